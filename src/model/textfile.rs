//! The figures of other programs, which write them to files in the text format of Prometheus.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Timestamp;

/// One reading of the directory `TEXTFILE_DIR`. The default is the reading of an agent without this directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Textfiles {
    /// The metric families of all files, in the order of the files. Each name occurs once.
    pub families: Vec<Arc<TextFamily>>,
    /// The files, sorted by path. The directory comes first if it has an error itself.
    pub files: Vec<Textfile>,
    /// How long it took to read the files that had changed.
    pub duration: Duration,
}

/// A file of another program, with the metrics in it, see [prometheus.md](prometheus.md#figures-of-other-programs). The agent reads the
/// files at each system interval while a client names the section, as in `{"sections":["system","textfile"]}`, and for a scrape of
/// `/metrics`. At other times it looks at the directory once a minute. It parses only files that have changed. Source: the files in
/// `TEXTFILE_DIR`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Textfile {
    /// The path of the file. If the directory cannot be read, or has too many files, it is the path of the directory.
    pub file: String,
    /// The time of the last change of the file. Absent for the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Timestamp>,
    /// Why the file, or a metric of it, is left out. It shows no text of the file except names of metrics. Absent if nothing is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The metrics of the file that are not left out, in the order of the file.
    pub metrics: Vec<Arc<TextFamily>>,
    /// Whether the figures of the file are used.
    #[serde(skip)]
    pub is_used: bool,
}

impl Textfiles {
    /// Returns the reading of a directory that cannot be read.
    #[must_use]
    pub fn failed(directory: String, error: String) -> Self {
        let directory = Textfile {
            file: directory,
            error: Some(error),
            ..Textfile::default()
        };
        Self {
            files: vec![directory],
            ..Self::default()
        }
    }

    /// Returns the paths and the errors of the files that are left out, or of which a metric is left out.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter();
        files.filter_map(|file| Some((file.file.as_str(), file.error.as_deref()?)))
    }

    /// Returns the problems as one text, or none if there are none. The text names at most 3 files.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let mut problems = self.problems();
        let named = problems.by_ref().take(MAX_NAMED);
        let named: Vec<_> = named.map(|(file, why)| format!("{file}: {why}")).collect();
        let text = named.join("; ");
        match problems.count() {
            0 => (!text.is_empty()).then_some(text),
            more => Some(format!("{text}; {more} more files have errors")),
        }
    }
}

/// In JSON, a reading is an array of the files.
impl Serialize for Textfiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.files.serialize(serializer)
    }
}

/// Limit on the files in a text about all problems.
const MAX_NAMED: usize = 3;

/// A metric of another program, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextFamily {
    /// The name, with the suffix `_total` if the file has it.
    pub name: String,
    /// The type of the metric. `untyped`: the file has no type.
    #[serde(rename = "type")]
    pub kind: TextKind,
    /// The meaning of the metric. Absent if the file has no help text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The samples, in the order of the file.
    pub samples: Vec<TextSample>,
}

/// The type of a metric of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextKind {
    /// A figure that can increase and decrease.
    Gauge,
    /// A figure that never decreases.
    Counter,
    /// Counts of values in buckets, and their count and sum.
    Histogram,
    /// Quantiles of values, and their count and sum.
    Summary,
    /// The program has not written a type.
    #[default]
    Untyped,
}

/// A sample of a metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextSample {
    /// What the value is in a histogram or in a summary: the count of the bucket that the label `le` names, or the sum or the count of
    /// all values. It is the end of the sample's name in the file. Absent for other values.
    #[serde(skip_serializing_if = "SamplePart::is_value")]
    pub part: SamplePart,
    /// The labels, in the order of the file. No name occurs twice.
    #[serde(serialize_with = "as_object")]
    pub labels: Vec<(String, String)>,
    /// The value. JSON has no number for a value that is infinite or not a number. Such a value is one of the texts `NaN`, `+Inf` and
    /// `-Inf`, as in the file.
    #[serde(serialize_with = "as_number_or_text")]
    pub value: f64,
}

/// What a value is in a histogram or in a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplePart {
    /// The value of a gauge, of a counter or of a quantile. It is not written.
    #[default]
    #[serde(skip)]
    Value,
    /// The count of the bucket that the label `le` names.
    Bucket,
    /// The sum of all values.
    Sum,
    /// The count of all values.
    Count,
}

impl SamplePart {
    /// Returns the text after the family's name in the name of the sample.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }

    fn is_value(&self) -> bool {
        *self == Self::Value
    }
}

impl TextKind {
    /// Returns the parts that the samples of such a family have.
    #[must_use]
    pub fn parts(self) -> &'static [SamplePart] {
        use SamplePart::{Bucket, Count, Sum, Value};
        match self {
            Self::Gauge | Self::Counter | Self::Untyped => &[Value],
            Self::Histogram => &[Bucket, Sum, Count],
            Self::Summary => &[Value, Sum, Count],
        }
    }

    /// Returns the name of the type in the text format of Prometheus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

/// Returns a number as programs in Go write it, which is how Prometheus knows the numbers of buckets: `1`, `0.5`, `1e+06`, `+Inf`.
pub(crate) fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(-4..=5) | Err(_) => value.to_string(),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

fn as_object<S: Serializer>(labels: &[(String, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

fn as_number_or_text<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    match value.is_finite() {
        true => super::kernel::serialize_figure(*value, to),
        false => to.serialize_str(&number_text(*value)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{
        SamplePart, TextFamily, TextKind, TextSample, Textfile, Textfiles, Timestamp, number_text,
    };

    #[test]
    fn numbers_are_written_as_by_go() {
        for (value, text) in [
            (0.0, "0"),
            (-1.0, "-1"),
            (0.25, "0.25"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.5, "123456.5"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (1e300, "1e+300"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number_text(value), text);
        }
    }

    #[test]
    fn a_reading_is_an_array_of_files() {
        use SamplePart::{Bucket, Count, Sum, Value};
        let sample = |part, labels: &[(&str, &str)], value| TextSample {
            part,
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            value,
        };
        let time = TextFamily {
            name: "time".to_owned(),
            kind: TextKind::Histogram,
            help: Some("A help.".to_owned()),
            samples: vec![
                sample(Bucket, &[("z", "1"), ("a", "\"\n"), ("le", "+Inf")], 3.0),
                sample(Sum, &[], f64::NAN),
                sample(Count, &[], 1.5e300),
            ],
        };
        let odd = TextFamily {
            name: "odd_total".to_owned(),
            kind: TextKind::Untyped,
            help: None,
            samples: [f64::INFINITY, f64::NEG_INFINITY, -0.5, 1e9]
                .map(|value| sample(Value, &[], value))
                .into(),
        };
        let read = Textfile {
            file: "/t/a.prom".to_owned(),
            mtime: Some(Timestamp(
                SystemTime::UNIX_EPOCH + Duration::from_millis(1_704_110_400_250),
            )),
            metrics: vec![Arc::new(time), Arc::new(odd)],
            is_used: true,
            ..Textfile::default()
        };
        let failed = Textfiles::failed("/t".to_owned(), "cannot be read".to_owned());
        let textfiles = Textfiles {
            files: [failed.files, vec![read]].concat(),
            ..Textfiles::default()
        };
        assert_eq!(
            serde_json::to_string(&textfiles).unwrap(),
            concat!(
                r#"[{"file":"/t","error":"cannot be read","metrics":[]},"#,
                r#"{"file":"/t/a.prom","mtime":"2024-01-01T12:00:00.250Z","metrics":["#,
                r#"{"name":"time","type":"histogram","help":"A help.","samples":["#,
                r#"{"part":"bucket","labels":{"z":"1","a":"\"\n","le":"+Inf"},"value":3},"#,
                r#"{"part":"sum","labels":{},"value":"NaN"},{"part":"count","labels":{},"value":1.5e+300}]},"#,
                r#"{"name":"odd_total","type":"untyped","samples":["#,
                r#"{"labels":{},"value":"+Inf"},{"labels":{},"value":"-Inf"},{"labels":{},"value":-0.5},{"labels":{},"value":1000000000}]}]}]"#,
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn every_value_can_be_read_back(bits: u64) {
            let sample = TextSample {
                part: SamplePart::Value,
                labels: Vec::new(),
                value: f64::from_bits(bits),
            };
            let json = serde_json::to_value(&sample).unwrap();
            let read = match &json["value"] {
                serde_json::Value::String(text) => text.trim_start_matches('+').parse().unwrap(),
                value => value.as_f64().unwrap(),
            };
            let is_same = read == sample.value || (read.is_nan() && sample.value.is_nan());
            proptest::prop_assert!(is_same, "{json}");
        }
    }

    #[test]
    fn the_text_about_all_problems_has_a_limit() {
        let with = |errors: usize| {
            let file = |number| Textfile {
                file: format!("/t/{number}.prom"),
                error: (number < errors).then(|| "is not UTF-8".to_owned()),
                ..Textfile::default()
            };
            let textfiles = Textfiles {
                files: (0..300).map(file).collect(),
                ..Textfiles::default()
            };
            textfiles.error()
        };
        assert_eq!(with(0), None);
        assert_eq!(with(1).as_deref(), Some("/t/0.prom: is not UTF-8"));
        let three = "/t/0.prom: is not UTF-8; /t/1.prom: is not UTF-8; /t/2.prom: is not UTF-8";
        assert_eq!(with(3).as_deref(), Some(three));
        let many = format!("{three}; 253 more files have errors");
        assert_eq!(with(256), Some(many));
    }
}
