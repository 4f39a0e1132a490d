//! Merges the families of several files.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::parse::MAX_SAMPLES;
use crate::model::{SamplePart, TextFamily, TextSample};

/// The families of all files so far.
#[derive(Default)]
pub(super) struct Merged {
    families: Vec<Merging>,
    /// The index of the family to which each name of a sample belongs.
    by_sample: HashMap<String, usize>,
    samples: usize,
}

/// The families of a file that are used, and why another family of the file is left out.
pub(super) struct Added {
    pub(super) families: Vec<Arc<TextFamily>>,
    pub(super) error: Option<String>,
}

struct Merging {
    family: Arc<TextFamily>,
    /// The files with samples of the family.
    paths: Vec<String>,
}

impl Merged {
    /// Adds the families of a file. Leaves out a family that conflicts with another family. `is_published` returns whether the agent
    /// itself has a metric with this name.
    ///
    /// # Errors
    /// Fails if the file is left out, because the number of samples is limited.
    pub(super) fn add(
        &mut self,
        path: &str,
        families: &[Arc<TextFamily>],
        is_published: fn(&str) -> bool,
    ) -> Result<Added, String> {
        let samples: usize = families.iter().map(|family| family.samples.len()).sum();
        if self.samples + samples > MAX_SAMPLES {
            return Err(format!(
                "all files together have more than {MAX_SAMPLES} samples"
            ));
        }
        self.samples += samples;
        let (mut used, mut refused) = (Vec::new(), Vec::new());
        for family in families {
            match self.add_family(path, family, is_published) {
                Ok(()) => used.push(Arc::clone(family)),
                Err(reason) => refused.push(format!("the metric {} {reason}", family.name)),
            }
        }
        // One text tells of a file with many conflicts.
        let error = refused.first().map(|first| match refused.len() {
            1 => first.clone(),
            count => format!("{first}; {} other metrics also conflict", count - 1),
        });
        Ok(Added {
            families: used,
            error,
        })
    }

    fn add_family(
        &mut self,
        path: &str,
        family: &Arc<TextFamily>,
        is_published: fn(&str) -> bool,
    ) -> Result<(), &'static str> {
        let names = names_of(family);
        if names.iter().any(|name| is_published(name)) {
            return Err("is a metric of the agent itself");
        }
        let index = self.by_sample.get(&family.name).copied();
        let known = index.filter(|index| self.families[*index].family.name == family.name);
        let Some(known) = known else {
            if names.iter().any(|name| self.by_sample.contains_key(name)) {
                return Err("has the name of a sample of another metric");
            }
            let index = self.families.len();
            self.by_sample
                .extend(names.into_iter().map(|name| (name, index)));
            self.families.push(Merging {
                family: Arc::clone(family),
                paths: vec![path.to_owned()],
            });
            return Ok(());
        };
        let Merging {
            family: first,
            paths,
        } = &mut self.families[known];
        if first.kind != family.kind {
            return Err("has another type in another file");
        }
        if let (Some(one), Some(other)) = (&first.help, &family.help)
            && one != other
        {
            return Err("has another help text in another file");
        }
        let series: HashSet<_> = first.samples.iter().map(series).collect();
        if family
            .samples
            .iter()
            .any(|sample| series.contains(&self::series(sample)))
        {
            return Err("has a series that is also in another file");
        }
        drop(series);
        let first = Arc::make_mut(first);
        first.samples.extend(family.samples.iter().cloned());
        if first.help.is_none() {
            first.help.clone_from(&family.help);
        }
        paths.push(path.to_owned());
        Ok(())
    }

    /// Returns the families. Each has a help text: that of a family without one names the files.
    pub(super) fn into_families(self) -> Vec<Arc<TextFamily>> {
        let with_help = |merging: Merging| {
            let mut family = merging.family;
            if family.help.is_none() {
                let help = format!("Metric of the file {}", merging.paths.join(", "));
                Arc::make_mut(&mut family).help = Some(help);
            }
            family
        };
        self.families.into_iter().map(with_help).collect()
    }
}

/// Returns the names of all samples that a family can have, and its own name.
fn names_of(family: &TextFamily) -> Vec<String> {
    let parts = family.kind.parts().iter();
    let suffixes = parts.map(|part| part.suffix());
    let mut suffixes: Vec<_> = std::iter::once("").chain(suffixes).collect();
    suffixes.dedup();
    let named = |suffix| format!("{}{suffix}", family.name);
    suffixes.into_iter().map(named).collect()
}

/// Returns what must be different in each sample of a family. An empty label is the same as no label.
fn series(sample: &TextSample) -> (SamplePart, Vec<(&str, &str)>) {
    let labels = sample.labels.iter();
    let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
    let mut labels: Vec<_> = labels.filter(|(_, value)| !value.is_empty()).collect();
    labels.sort_unstable();
    (sample.part, labels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::parse::{MAX_SAMPLES, parse};
    use super::Merged;

    /// Merges files with these texts. Returns the families as text, and the problems.
    fn merged(texts: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut merged, mut problems) = (Merged::default(), Vec::new());
        for (path, text) in ["/a.prom", "/b.prom", "/c.prom"].into_iter().zip(texts) {
            let families: Vec<_> = parse(text).unwrap().into_iter().map(Arc::new).collect();
            let added = merged.add(path, &families, |name| name.starts_with("node_"));
            let error = match added {
                Ok(added) => {
                    let is_whole = added.families == families;
                    assert_eq!(is_whole, added.error.is_none(), "{path}");
                    added.error
                }
                Err(error) => Some(error),
            };
            problems.extend(error.map(|error| format!("{path}: {error}")));
        }
        let families = merged.into_families().into_iter().map(|family| {
            let (name, count) = (&family.name, family.samples.len());
            let help = family.help.as_deref().unwrap();
            format!("{name} {} {count}: {help}", family.kind.name())
        });
        (families.collect(), problems)
    }

    #[test]
    fn a_metric_of_two_files_is_merged() {
        let (families, problems) = merged(&[
            "# TYPE a gauge\na{x=\"1\"} 1\nb 1\n",
            "# HELP a The help.\n# TYPE a gauge\na{x=\"2\"} 1\n",
            "b{x=\"3\"} 1\n",
        ]);
        assert_eq!(
            families,
            [
                "a gauge 2: The help.",
                "b untyped 2: Metric of the file /a.prom, /c.prom"
            ]
        );
        assert_eq!(problems.len(), 0);
    }

    #[test]
    fn a_conflict_costs_only_the_metric() {
        let first = "# HELP a One.\n# TYPE a histogram\na_sum 1\na_count 1\n";
        for (text, reason) in [
            (
                "node_load1 1\n",
                "the metric node_load1 is a metric of the agent itself",
            ),
            (
                "# TYPE a counter\na 1\n",
                "the metric a has another type in another file",
            ),
            (
                "# HELP a Two.\n# TYPE a histogram\na_sum{x=\"1\"} 1\n",
                "the metric a has another help text in another file",
            ),
            (
                "# TYPE a histogram\na_sum{x=\"\"} 1\n",
                "the metric a has a series that is also in another file",
            ),
            (
                "a_count 1\nnode_x 1\n",
                "the metric a_count has the name of a sample of another metric; 1 other metrics also conflict",
            ),
        ] {
            let (families, problems) = merged(&[first, &format!("{text}fine 1\n")]);
            assert_eq!(
                families,
                [
                    "a histogram 2: One.",
                    "fine untyped 1: Metric of the file /b.prom"
                ]
            );
            assert_eq!(problems, [format!("/b.prom: {reason}")]);
        }
    }

    #[test]
    fn the_samples_of_all_files_together_are_limited() {
        let many: String = (0..MAX_SAMPLES).map(|at| format!("a{at} 1\n")).collect();
        let (families, problems) = merged(&["b 1\n", &many, "c 1\n"]);
        assert_eq!(families.len(), 2);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("/b.prom: "), "{problems:?}");
    }
}
