//! Writes the figures of other programs.

use std::borrow::Cow;
use std::time::SystemTime;

use super::format::Format;
use super::metric_text::MetricText;
use crate::model::{
    SamplePart, TextFamily, TextKind, TextSample, Textfiles, Timestamp, number_text,
};

/// Writes the families of all files, and which files were read.
pub(super) fn write(textfiles: &Textfiles, out: &mut MetricText) {
    for family in &textfiles.families {
        write_family(family, out);
    }
    let mut mtimes = own(
        "node_textfile_mtime_seconds",
        "Time of the last change of a text file that was read, in seconds since 1970",
    );
    mtimes.samples = textfiles
        .files
        .iter()
        .filter(|file| file.is_used)
        .filter_map(|file| {
            Some(TextSample {
                part: SamplePart::Value,
                labels: vec![("file".to_owned(), file.file.clone())],
                value: unix(file.mtime?),
            })
        })
        .collect();
    if !mtimes.samples.is_empty() {
        write_family(&mtimes, out);
    }
    let mut error = own(
        "node_textfile_scrape_error",
        "Whether a text file, or a metric of it, cannot be used",
    );
    error.samples.push(TextSample {
        part: SamplePart::Value,
        labels: Vec::new(),
        value: f64::from(u8::from(textfiles.problems().next().is_some())),
    });
    write_family(&error, out);
}

/// Returns a time in seconds since 1970. A time before 1970 is negative.
fn unix(Timestamp(time): Timestamp) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
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

fn write_family(family: &TextFamily, out: &mut MetricText) {
    let format = out.format();
    let (name, kind) = match format {
        Format::Classic => (family.name.as_str(), family.kind.name()),
        // In OpenMetrics, the samples of a counter have the suffix `_total`, and the family has not.
        Format::OpenMetrics => match (family.kind, family.name.strip_suffix("_total")) {
            (TextKind::Counter, Some(name)) => (name, "counter"),
            (TextKind::Counter, None) | (TextKind::Untyped, _) => (&*family.name, "unknown"),
            _ => (family.name.as_str(), family.kind.name()),
        },
    };
    out.head((name, ""), kind, family.help.as_deref().unwrap_or_default());
    for sample in &family.samples {
        let is_number = |label: &str| match (family.kind, sample.part) {
            (TextKind::Histogram, SamplePart::Bucket) => label == "le",
            (TextKind::Summary, SamplePart::Value) => label == "quantile",
            _ => false,
        };
        let labels: Vec<(&str, Cow<'_, str>)> = sample
            .labels
            .iter()
            .map(|(name, value)| match is_number(name) {
                true => (name.as_str(), number(value, format)),
                false => (name.as_str(), Cow::Borrowed(value.as_str())),
            })
            .collect();
        let labels = labels.iter().map(|(name, value)| (*name, &**value));
        let value = number_text(sample.value);
        out.sample(
            (&family.name, sample.part.suffix()),
            labels,
            &number(&value, format),
        );
    }
}

/// Returns a number in a format. In OpenMetrics, a number that can have a fraction has one.
fn number(text: &str, format: Format) -> Cow<'_, str> {
    let is_whole = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    match format == Format::OpenMetrics && is_whole {
        true => format!("{text}.0").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{Format, MetricText, write};
    use crate::model::{
        SamplePart, TextFamily, TextKind, TextSample, Textfile, Textfiles, Timestamp,
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
            files: vec![
                Textfile {
                    file: "/t/a.prom".to_owned(),
                    mtime: Some(Timestamp(
                        SystemTime::UNIX_EPOCH + Duration::from_millis(12_500),
                    )),
                    is_used: true,
                    ..Textfile::default()
                },
                Textfile {
                    file: "/t/b.prom".to_owned(),
                    mtime: Some(Timestamp(SystemTime::UNIX_EPOCH)),
                    error: Some("is not UTF-8".to_owned()),
                    ..Textfile::default()
                },
            ],
            ..Textfiles::default()
        }
    }

    #[test]
    fn all_types_are_written_in_both_formats() {
        let mut classic = MetricText::new(Format::Classic);
        write(&textfiles(), &mut classic);
        let classic = classic.end();
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
        let mut open = MetricText::new(Format::OpenMetrics);
        write(&textfiles(), &mut open);
        let open = open.end();
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
        let mut out = MetricText::new(Format::Classic);
        write(&Textfiles::default(), &mut out);
        let out = out.end();
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, ["node_textfile_scrape_error 0"]);
    }
}
