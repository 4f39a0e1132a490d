//! A snapshot as Prometheus reads it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::model::Snapshot;
use crate::publish::figures::{self, FigureFamily, FigureSource, MetricKind};

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own, version 0.0.4.
    Classic,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client accepts, by its `Accept` header: OpenMetrics where it says so, and not that it likes the other better.
    pub(super) fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let of = |range: &str| {
                let mut parts = range.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |text| text.parse::<f64>().unwrap_or(0.0)))
            };
            accept.split(',').filter_map(of).reduce(f64::max)
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) => {
                Self::OpenMetrics
            }
            _ => Self::Classic,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The snapshot's figures, of which there are new ones every `interval`. `room` is how long they were before.
///
/// # Errors
/// None that could be named: memory is written to.
pub(super) fn write(
    snapshot: Arc<Snapshot>,
    interval: Duration,
    format: Format,
    room: usize,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { snapshot, interval }));
    let mut written = String::with_capacity(room);
    match format {
        Format::Classic => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(without_repeats(written))
}

/// Every series once, whatever the names in its labels: of several that came to the same text the first counts. A scrape
/// with a series that comes twice is refused as a whole.
fn without_repeats(text: String) -> String {
    let mut known = HashSet::new();
    let mut repeats = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') {
            // No series is in two families.
            known.clear();
        } else if !known.insert(line.rsplit_once(' ').map_or(line, |(series, _)| series)) {
            repeats.push(start..start + line.len());
        }
        start += line.len();
    }
    let mut text = text;
    for repeat in repeats.into_iter().rev() {
        text.replace_range(repeat, "");
    }
    text
}

#[derive(Debug)]
struct Figures {
    snapshot: Arc<Snapshot>,
    interval: Duration,
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let source = FigureSource {
            snapshot: &self.snapshot,
            interval: self.interval,
        };
        figures::families().try_for_each(|family| write_family(&mut encoder, family, &source))
    }
}

/// Nothing where there are no samples.
fn write_family(
    encoder: &mut DescriptorEncoder<'_>,
    family: &FigureFamily,
    source: &FigureSource<'_>,
) -> fmt::Result {
    let mut is_empty = true;
    family.samples(source, &mut |_, _| is_empty = false);
    if is_empty {
        return Ok(());
    }
    let kind = match family.kind {
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Counter => MetricType::Counter,
    };
    let mut encoded = encoder.encode_descriptor(family.name, family.help, None, kind)?;
    let mut written = Ok(());
    family.samples(source, &mut |labels, value| {
        written = written.and_then(|()| {
            let labels = Labels(labels);
            let mut sample = encoded.encode_family(&labels)?;
            match family.kind {
                MetricKind::Gauge => sample.encode_gauge(&value),
                MetricKind::Counter => sample.encode_counter::<NoLabelSet, _, f64>(&value, None),
            }
        });
    });
    written
}

/// The labels of a sample, by name and value.
struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut labels = self.0.iter();
        labels.try_for_each(|label| label.encode(encoder.encode_label()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Format, write};
    use crate::model::{
        Container, ContainerMeta, Disk, DiskIo, FailedUnit, Gpu, NetworkInterface, SensorChip,
        SensorLabel, Sensors, Snapshot, Space, SystemMetrics, Temperature,
    };

    /// With two of everything that may look the same.
    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::recorded();
        let sensor = |chip: &str| Temperature {
            device: "nvme".to_owned(),
            sensor: "Composite".to_owned(),
            chip: chip.to_owned(),
            input: "temp1".to_owned(),
            celsius: 40.0,
            critical: Some(80.0),
            exact: 40.01,
        };
        let system: &mut SystemMetrics = Arc::make_mut(&mut snapshot.system);
        system.temperatures = ["nvme_nvme0", "nvme_nvme1"].map(sensor).into();
        let chips = ["nvme_nvme0", "nvme_nvme1"].map(|chip| SensorChip {
            chip: chip.to_owned(),
            device: "nvme".to_owned(),
        });
        system.exact.sensors = Arc::new(Sensors {
            chips: chips.into(),
            labels: Vec::new(),
        });
        let containers: &mut Vec<Container> = Arc::make_mut(&mut snapshot.containers);
        let mut odd = containers[0].clone();
        odd.id = "aaaaaaaaaaaa".to_owned();
        odd.name = "/\"odd\\name\n".to_owned();
        odd.labels = BTreeMap::from([("a.b", "1"), ("a_b", "2"), ("é", "3")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        containers.push(odd);
        let meta: &mut Vec<Arc<ContainerMeta>> = Arc::make_mut(&mut snapshot.docker_meta);
        let mut restarting = ContainerMeta::clone(&meta[0]);
        restarting.id = "bbbbbbbbbbbb".to_owned();
        restarting.state = "restarting".to_owned();
        meta.push(Arc::new(restarting));
        snapshot
    }

    fn written(snapshot: Snapshot, format: Format) -> String {
        write(Arc::new(snapshot), Duration::from_secs(5), format, 0).unwrap()
    }

    #[test]
    fn no_series_comes_twice_and_each_belongs_to_the_family_before_it() {
        for format in [Format::Classic, Format::OpenMetrics] {
            let text = written(snapshot(), format);
            let mut family = String::new();
            let mut seen = std::collections::BTreeSet::new();
            let mut families = std::collections::BTreeSet::new();
            for line in text.lines() {
                if let Some(kind) = line.strip_prefix("# TYPE ") {
                    family = kind.split(' ').next().unwrap().to_owned();
                    assert!(families.insert(family.clone()), "{family} twice");
                } else if !line.starts_with('#') {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    assert!(series.starts_with(&family), "{series} in {family}");
                    assert!(seen.insert(series), "{series} twice");
                    assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                }
            }
            assert!(seen.len() > 100, "{text}");
        }
    }

    /// Everything that has names from outside, twice.
    fn repeated() -> Snapshot {
        fn twice<T: Clone>(list: &mut Vec<T>) {
            list.extend(list.clone());
        }
        let mut snapshot = snapshot();
        let system = Arc::make_mut(&mut snapshot.system);
        system
            .exact
            .cpu_seconds
            .push(crate::model::CpuSeconds::default());
        system.disks.push(Disk {
            exact: Some(Space::default()),
            ..Disk::default()
        });
        system.disk_io.push(DiskIo::default());
        system.network.push(NetworkInterface::default());
        system.gpus.as_mut().unwrap().push(Gpu::default());
        twice(system.gpus.as_mut().unwrap());
        let units = system.failed_units.as_mut().unwrap();
        units.push(FailedUnit::default());
        twice(units);
        let sensors = Arc::make_mut(&mut system.exact.sensors);
        sensors.labels.push(SensorLabel::default());
        twice(&mut sensors.labels);
        twice(&mut sensors.chips);
        twice(&mut system.exact.cpu_seconds);
        twice(&mut system.disks);
        twice(&mut system.disk_io);
        twice(&mut system.network);
        twice(&mut system.temperatures);
        twice(Arc::make_mut(&mut snapshot.containers));
        twice(Arc::make_mut(&mut snapshot.docker_meta));
        snapshot
    }

    #[test]
    fn nothing_that_looks_the_same_makes_a_series_come_twice() {
        for format in [Format::Classic, Format::OpenMetrics] {
            let once = written(snapshot(), format);
            let text = written(repeated(), format);
            let mut seen = std::collections::BTreeSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (series, _) = line.rsplit_once(' ').unwrap();
                assert!(seen.insert(series), "{series} twice");
            }
            for line in once.lines() {
                assert!(text.lines().any(|one| one == line), "{line} is missing");
            }
        }
    }

    #[test]
    fn what_is_odd_is_escaped_and_the_first_of_two_labels_is_taken() {
        let text = written(snapshot(), Format::Classic);
        let info = text
            .lines()
            .find(|line| line.starts_with("system_agent_container_info{id=\"aaaaaaaaaaaa\""))
            .unwrap();
        assert!(info.contains(r#"name="\"odd\\name\n""#), "{info}");
        assert!(info.contains(r#"container_label_a_b="1""#), "{info}");
        assert!(!info.contains(r#""2""#), "{info}");
        assert!(info.contains(r#"container_label__="3""#), "{info}");
    }

    #[test]
    fn one_that_waits_for_its_next_start_is_told_of_though_it_has_no_figures() {
        let text = written(snapshot(), Format::Classic);
        let line = |state: &str| {
            let end = format!("state=\"{state}\"}} 1.0");
            text.lines().find(|line| {
                line.starts_with("system_agent_container_state{id=\"bbbbbbbbbbbb\"")
                    && line.ends_with(&end)
            })
        };
        assert!(line("restarting").is_some() && line("running").is_none());
    }

    /// What the build before the one that made a table of the figures wrote for a recorded snapshot. Families may come in between.
    #[test]
    fn the_figures_are_byte_for_byte_what_they_were() {
        for (file, format) in [
            ("wire/metrics.txt", Format::Classic),
            ("wire/openmetrics.txt", Format::OpenMetrics),
        ] {
            let family = |line: &str| {
                line.strip_prefix("# HELP ")
                    .map(|rest| rest.split(' ').next().unwrap().to_owned())
            };
            let recorded = crate::recorded::read(file);
            let known: Vec<_> = recorded.lines().filter_map(family).collect();
            let now = written(snapshot(), format);
            let mut is_known = true;
            let kept = now.split_inclusive('\n').filter(|line| {
                is_known = match family(line) {
                    Some(name) => known.contains(&name),
                    None => is_known || *line == "# EOF\n",
                };
                is_known
            });
            crate::recorded::compare(file, &kept.collect::<String>());
        }
    }

    #[test]
    fn of_what_was_never_read_nothing_is_said() {
        let mut snapshot = snapshot();
        snapshot.sources.system.collected_at = None;
        snapshot.system = Arc::default();
        let text = written(snapshot, Format::Classic);
        assert!(!text.contains("node_"), "{text}");
        // Whether it is a limit cannot be told without the host's memory.
        assert!(
            !text.contains("container_spec_memory_limit_bytes"),
            "{text}"
        );
        assert!(text.contains("system_agent_source_up{"), "{text}");
    }
}
