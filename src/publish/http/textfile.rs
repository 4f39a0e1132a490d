//! Writes the figures of other programs. The library for the agent's own metrics cannot write types, such as a summary, whose names are
//! known only at run time.

use std::fmt::{self, Write};

use super::format::Format;
use crate::model::{SamplePart, TextFamily, TextKind, TextSample, Textfiles, number_text};

/// Writes the families of all files, and which files were read.
///
/// # Errors
/// Fails if a writer fails. This is not expected, because the writer is a text in memory.
pub(super) fn write(textfiles: &Textfiles, format: Format, out: &mut String) -> fmt::Result {
    for family in &textfiles.families {
        write_family(family, format, out)?;
    }
    let mut mtimes = own(
        "node_textfile_mtime_seconds",
        "Time of the last change of a text file that was read, in seconds since 1970",
    );
    mtimes.samples = textfiles
        .files
        .iter()
        .map(|file| TextSample {
            part: SamplePart::Value,
            labels: vec![("file".to_owned(), file.path.clone())],
            value: file.mtime,
        })
        .collect();
    if !mtimes.samples.is_empty() {
        write_family(&mtimes, format, out)?;
    }
    let mut error = own(
        "node_textfile_scrape_error",
        "Whether a text file, or a metric of it, cannot be used",
    );
    error.samples.push(TextSample {
        part: SamplePart::Value,
        labels: Vec::new(),
        value: f64::from(u8::from(!textfiles.problems.is_empty())),
    });
    write_family(&error, format, out)
}

/// Returns a metric of the agent about the files.
fn own(name: &str, help: &str) -> TextFamily {
    TextFamily {
        name: name.to_owned(),
        help: Some(help.to_owned()),
        kind: TextKind::Gauge,
        samples: Vec::new(),
    }
}

fn write_family(family: &TextFamily, format: Format, out: &mut String) -> fmt::Result {
    let (name, kind) = match format {
        Format::Classic => (family.name.as_str(), family.kind.name()),
        // In OpenMetrics, the samples of a counter have the suffix `_total`, and the family has not.
        Format::OpenMetrics => match (family.kind, family.name.strip_suffix("_total")) {
            (TextKind::Counter, Some(name)) => (name, "counter"),
            (TextKind::Counter, None) | (TextKind::Untyped, _) => (&*family.name, "unknown"),
            _ => (family.name.as_str(), family.kind.name()),
        },
    };
    write!(out, "# HELP {name} ")?;
    let escapes_quotes = format == Format::OpenMetrics;
    write_escaped(
        family.help.as_deref().unwrap_or_default(),
        escapes_quotes,
        out,
    );
    writeln!(out, "\n# TYPE {name} {kind}")?;
    for sample in &family.samples {
        out.push_str(&family.name);
        out.push_str(sample.part.suffix());
        write_labels(family.kind, sample, format, out)?;
        writeln!(out, " {}", number(&number_text(sample.value), format))?;
    }
    Ok(())
}

fn write_labels(
    kind: TextKind,
    sample: &TextSample,
    format: Format,
    out: &mut String,
) -> fmt::Result {
    for (index, (name, value)) in sample.labels.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        write!(out, "{name}=\"")?;
        let is_number = match (kind, sample.part) {
            (TextKind::Histogram, SamplePart::Bucket) => name == "le",
            (TextKind::Summary, SamplePart::Value) => name == "quantile",
            _ => false,
        };
        match is_number {
            true => out.push_str(&number(value, format)),
            false => write_escaped(value, true, out),
        }
        out.push('"');
    }
    if !sample.labels.is_empty() {
        out.push('}');
    }
    Ok(())
}

/// Returns a number in a format. In OpenMetrics, a number that can have a fraction has one.
fn number(text: &str, format: Format) -> String {
    let is_whole = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    match format == Format::OpenMetrics && is_whole {
        true => format!("{text}.0"),
        false => text.to_owned(),
    }
}

fn write_escaped(text: &str, escapes_quotes: bool, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if escapes_quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Format, write};
    use crate::model::{
        SamplePart, TextFamily, TextKind, TextSample, Textfile, TextfileProblem, Textfiles,
    };

    fn sample(part: SamplePart, labels: &[(&str, &str)], value: f64) -> TextSample {
        let owned = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        TextSample {
            part,
            labels: labels.iter().map(owned).collect(),
            value,
        }
    }

    fn family(name: &str, kind: TextKind, samples: Vec<TextSample>) -> Arc<TextFamily> {
        Arc::new(TextFamily {
            name: name.to_owned(),
            help: Some("A \"help\"\n\\".to_owned()),
            kind,
            samples,
        })
    }

    fn textfiles() -> Textfiles {
        use SamplePart::{Bucket, Count, Sum, Value};
        Textfiles {
            families: vec![
                family(
                    "runs_total",
                    TextKind::Counter,
                    vec![sample(Value, &[], 1e9)],
                ),
                family("odd", TextKind::Counter, vec![sample(Value, &[], 2.5)]),
                family(
                    "size",
                    TextKind::Histogram,
                    vec![
                        sample(Bucket, &[("le", "1"), ("a", "\"\n\\")], 1.0),
                        sample(Bucket, &[("le", "+Inf")], 2.0),
                        sample(Sum, &[], f64::NAN),
                        sample(Count, &[], 2.0),
                    ],
                ),
                family(
                    "time",
                    TextKind::Summary,
                    vec![sample(Value, &[("quantile", "0.5")], f64::NEG_INFINITY)],
                ),
                family(
                    "le",
                    TextKind::Untyped,
                    vec![sample(Value, &[("le", "1")], 0.0)],
                ),
            ],
            files: vec![Textfile {
                path: "/t/a.prom".to_owned(),
                mtime: 12.5,
            }],
            problems: vec![TextfileProblem {
                path: "/t/b.prom".to_owned(),
                error: "is not UTF-8".to_owned(),
            }],
            ..Textfiles::default()
        }
    }

    #[test]
    fn all_types_are_written_in_both_formats() {
        let mut classic = String::new();
        write(&textfiles(), Format::Classic, &mut classic).unwrap();
        assert_eq!(
            classic,
            r#"# HELP runs_total A "help"\n\\
# TYPE runs_total counter
runs_total 1e+09
# HELP odd A "help"\n\\
# TYPE odd counter
odd 2.5
# HELP size A "help"\n\\
# TYPE size histogram
size_bucket{le="1",a="\"\n\\"} 1
size_bucket{le="+Inf"} 2
size_sum NaN
size_count 2
# HELP time A "help"\n\\
# TYPE time summary
time{quantile="0.5"} -Inf
# HELP le A "help"\n\\
# TYPE le untyped
le{le="1"} 0
# HELP node_textfile_mtime_seconds Time of the last change of a text file that was read, in seconds since 1970
# TYPE node_textfile_mtime_seconds gauge
node_textfile_mtime_seconds{file="/t/a.prom"} 12.5
# HELP node_textfile_scrape_error Whether a text file, or a metric of it, cannot be used
# TYPE node_textfile_scrape_error gauge
node_textfile_scrape_error 1
"#
        );
        let mut open = String::new();
        write(&textfiles(), Format::OpenMetrics, &mut open).unwrap();
        for line in [
            r#"# HELP runs A \"help\"\n\\"#,
            "# TYPE runs counter",
            "runs_total 1e+09",
            "# TYPE odd unknown",
            "# TYPE le unknown",
            r#"size_bucket{le="1.0",a="\"\n\\"} 1.0"#,
            r#"le{le="1"} 0.0"#,
            "node_textfile_scrape_error 1.0",
        ] {
            assert!(open.lines().any(|one| one == line), "{line} in {open}");
        }
    }

    #[test]
    fn without_files_there_is_only_the_state() {
        let mut out = String::new();
        write(&Textfiles::default(), Format::Classic, &mut out).unwrap();
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, ["node_textfile_scrape_error 0"]);
    }
}
