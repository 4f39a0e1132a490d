//! The figures of other programs, which write them to files in the text format of Prometheus.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One reading of the directory `TEXTFILE_DIR`. The default is the reading of an agent without this directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Textfiles {
    /// The metric families, in the order of the files. Each name occurs once.
    pub families: Vec<Arc<TextFamily>>,
    /// The files that were read, sorted by path.
    pub files: Vec<Textfile>,
    /// The files that cannot be used, or of which a family cannot be used.
    pub problems: Vec<TextfileProblem>,
    /// How long it took to read the files that had changed.
    pub duration: Duration,
}

/// A file whose figures are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Textfile {
    /// The path of the file.
    pub path: String,
    /// The time of the last change, in seconds since 1970.
    pub mtime: f64,
}

/// Why a file, or a family of a file, is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TextfileProblem {
    /// The path of the file, or of the directory.
    pub path: String,
    /// The reason. It shows no text of the file except names of metrics.
    pub error: String,
}

/// A metric family, as a program has written it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextFamily {
    /// The name, with the suffix `_total` if the program has written it.
    pub name: String,
    /// The meaning of the metric. None if the program has not written it.
    pub help: Option<String>,
    /// The type of the metric.
    pub kind: TextKind,
    /// The samples, in the order of the file.
    pub samples: Vec<TextSample>,
}

/// The type of a metric of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A sample of a metric family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSample {
    /// What the value is in a histogram or in a summary.
    #[serde(default, skip_serializing_if = "SamplePart::is_value")]
    pub part: SamplePart,
    /// Names and values of the labels, in the order of the file. No name occurs twice.
    pub labels: Vec<(String, String)>,
    /// The value. In JSON, a value that is not a number or infinite is the text `NaN`, `+Inf` or `-Inf`.
    #[serde(with = "number")]
    pub value: f64,
}

/// What a value is in a histogram or in a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplePart {
    /// The value of a gauge, of a counter or of a quantile.
    #[default]
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

/// Numbers in JSON, which has no infinite numbers.
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        match *value {
            value if value.is_finite() => to.serialize_f64(value),
            value if value.is_nan() => to.serialize_str("NaN"),
            value if value > 0.0 => to.serialize_str("+Inf"),
            _ => to.serialize_str("-Inf"),
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<f64, D::Error> {
        match Written::deserialize(from)? {
            Written::Number(value) => Ok(value),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SamplePart, TextSample, number_text};

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
    fn every_value_can_be_json() {
        for value in [1.5, f64::INFINITY, f64::NEG_INFINITY] {
            let sample = TextSample {
                part: SamplePart::Value,
                labels: vec![("a".to_owned(), "b".to_owned())],
                value,
            };
            let json = serde_json::to_string(&sample).unwrap();
            assert_eq!(serde_json::from_str::<TextSample>(&json).unwrap(), sample);
        }
        let json = r#"{"labels":[],"value":"NaN","part":"sum"}"#;
        let sample: TextSample = serde_json::from_str(json).unwrap();
        assert!(sample.value.is_nan() && sample.part == SamplePart::Sum);
        assert!(serde_json::to_string(&sample).unwrap().contains(r#""NaN""#));
    }
}
