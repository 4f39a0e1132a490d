//! Parses the text format of Prometheus, version 0.0.4.

use std::collections::{HashMap, HashSet};

use crate::model::{SamplePart, TextFamily, TextKind, TextSample};

/// Limit on the samples of all files together, and so of each file.
pub(super) const MAX_SAMPLES: usize = 20_000;
/// Limit on the labels of a sample.
const MAX_LABELS: usize = 64;
/// Limit on the bytes of a name of a metric or of a label.
const MAX_NAME: usize = 256;
/// Limit on the bytes of the value of a label, and of a help text.
const MAX_TEXT: usize = 4096;

/// Why a text is refused. The message shows no part of the text, because the text can be a file that has a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct ParseError {
    line: usize,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("the last line does not end with a line feed")]
    Incomplete,
    #[error("invalid name of a metric")]
    MetricName,
    #[error("invalid name of a label")]
    LabelName,
    #[error("invalid labels")]
    Labels,
    #[error("a label occurs twice")]
    RepeatedLabel,
    #[error("a backslash before an invalid character")]
    Escape,
    #[error("invalid value")]
    Value,
    #[error("a sample has a timestamp, which is not supported")]
    Timestamp,
    #[error("unknown type")]
    Type,
    #[error("a second TYPE for the metric, or the TYPE is after a sample")]
    RepeatedType,
    #[error("a second HELP for the metric")]
    RepeatedHelp,
    #[error("a sample does not fit the type of its metric")]
    Part,
    #[error("the series occurs twice")]
    RepeatedSeries,
    #[error("a name, a label or a help text is too long")]
    TooLong,
    #[error("too many labels")]
    TooManyLabels,
    #[error("more than {MAX_SAMPLES} samples")]
    TooManySamples,
}

/// Parses a text. Leaves out families without samples.
///
/// # Errors
/// Fails if a line is invalid, if a sample has a timestamp, if a series occurs twice, or if a limit is exceeded.
pub(super) fn parse(text: &str) -> Result<Vec<TextFamily>, ParseError> {
    let mut parser = Parser::default();
    let mut number = 0;
    for line in text.split_terminator('\n') {
        number += 1;
        let parsed = parser.line(line.trim_start_matches(BLANKS));
        parsed.map_err(|problem| ParseError {
            line: number,
            problem,
        })?;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(ParseError {
            line: number,
            problem: Problem::Incomplete,
        });
    }
    let families = parser.families.into_iter().map(|one| one.family);
    Ok(families.filter(|one| !one.samples.is_empty()).collect())
}

const BLANKS: [char; 2] = [' ', '\t'];

/// What identifies a series: the number of its family, its part of the family and its labels.
type Series = (usize, SamplePart, Vec<(String, String)>);

#[derive(Default)]
struct Parser {
    families: Vec<Described>,
    /// The index of each family by its name.
    by_name: HashMap<String, usize>,
    /// All series so far: the family, the part, and the labels in order.
    series: HashSet<Series>,
}

struct Described {
    family: TextFamily,
    has_type: bool,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), Problem> {
        match line.strip_prefix('#') {
            _ if line.is_empty() => Ok(()),
            Some(comment) => self.comment(comment.trim_start_matches(BLANKS)),
            None => self.sample(line),
        }
    }

    /// Parses a line that begins with `#`. Ignores a line that is neither HELP nor TYPE.
    fn comment(&mut self, comment: &str) -> Result<(), Problem> {
        let (keyword, rest) = comment.split_once(BLANKS).unwrap_or((comment, ""));
        if !matches!(keyword, "HELP" | "TYPE") {
            return Ok(());
        }
        let rest = rest.trim_start_matches(BLANKS);
        if rest.is_empty() {
            return Ok(());
        }
        let (name, text) = rest.split_once(BLANKS).unwrap_or((rest, ""));
        check_metric_name(name)?;
        let text = text.trim_start_matches(BLANKS);
        if text.is_empty() {
            return Ok(());
        }
        let index = self.family(name);
        let described = &mut self.families[index];
        if keyword == "HELP" {
            if described.family.help.is_some() {
                return Err(Problem::RepeatedHelp);
            }
            described.family.help = Some(unescaped_help(text)?);
            return Ok(());
        }
        if described.has_type || !described.family.samples.is_empty() {
            return Err(Problem::RepeatedType);
        }
        described.has_type = true;
        described.family.kind = kind_of(text.trim_end_matches(BLANKS))?;
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), Problem> {
        let end = line.find(|c| BLANKS.contains(&c) || c == '{');
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        check_metric_name(name)?;
        let (labels, rest) = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
        let value = words.next().ok_or(Problem::Value)?;
        let value: f64 = value.parse().map_err(|_| Problem::Value)?;
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some(time), None) if time.parse::<i64>().is_ok() => return Err(Problem::Timestamp),
            (Some(_), _) => return Err(Problem::Value),
        }
        let (index, part) = self.place(name);
        let kind = self.families[index].family.kind;
        let labels = checked_labels(kind, part, labels)?;
        let mut sorted = labels.clone();
        // An empty label is the same as no label.
        sorted.retain(|(_, value)| !value.is_empty());
        sorted.sort_unstable();
        if self.series.len() == MAX_SAMPLES {
            return Err(Problem::TooManySamples);
        }
        if !self.series.insert((index, part, sorted)) {
            return Err(Problem::RepeatedSeries);
        }
        let samples = &mut self.families[index].family.samples;
        samples.push(TextSample {
            part,
            labels,
            value,
        });
        Ok(())
    }

    /// Returns the family to which a sample belongs, and what its value is. `a_sum` belongs to the histogram or summary `a`, if there is
    /// one.
    fn place(&mut self, name: &str) -> (usize, SamplePart) {
        if let Some(index) = self.by_name.get(name) {
            return (*index, SamplePart::Value);
        }
        for part in [SamplePart::Bucket, SamplePart::Sum, SamplePart::Count] {
            if let Some(family) = name.strip_suffix(part.suffix())
                && let Some(index) = self.by_name.get(family)
                && self.families[*index].family.kind.parts().contains(&part)
            {
                return (*index, part);
            }
        }
        (self.family(name), SamplePart::Value)
    }

    /// Returns the index of the family with this name. Adds the family if it is new.
    fn family(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.families.len();
        self.by_name.insert(name.to_owned(), index);
        self.families.push(Described {
            family: TextFamily {
                name: name.to_owned(),
                help: None,
                kind: TextKind::Untyped,
                samples: Vec::new(),
            },
            has_type: false,
        });
        index
    }
}

fn kind_of(text: &str) -> Result<TextKind, Problem> {
    const KINDS: [TextKind; 5] = [
        TextKind::Gauge,
        TextKind::Counter,
        TextKind::Histogram,
        TextKind::Summary,
        TextKind::Untyped,
    ];
    let named = |kind: &TextKind| text.eq_ignore_ascii_case(kind.name());
    KINDS.into_iter().find(named).ok_or(Problem::Type)
}

fn check_metric_name(name: &str) -> Result<(), Problem> {
    check_name(name, b"_:").map_err(|problem| problem.unwrap_or(Problem::MetricName))
}

/// Checks that a name has only ASCII letters, digits and characters of `others`, and does not begin with a digit. The error is none if it
/// has others.
fn check_name(name: &str, others: &[u8]) -> Result<(), Option<Problem>> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_valid) {
        return Err(None);
    }
    match name.len() > MAX_NAME {
        true => Err(Some(Problem::TooLong)),
        false => Ok(()),
    }
}

type LabelPairs = Vec<(String, String)>;

/// Parses labels after their opening brace. Returns the labels, and the text after the closing brace.
fn parse_labels(mut rest: &str) -> Result<(LabelPairs, &str), Problem> {
    let mut labels = LabelPairs::new();
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or(Problem::Labels)?;
        let name = name.trim_end_matches(BLANKS);
        check_name(name, b"_").map_err(|problem| problem.unwrap_or(Problem::LabelName))?;
        if name == "__name__" {
            return Err(Problem::LabelName);
        }
        if labels.iter().any(|(known, _)| known == name) {
            return Err(Problem::RepeatedLabel);
        }
        if labels.len() == MAX_LABELS {
            return Err(Problem::TooManyLabels);
        }
        let quoted = after.trim_start_matches(BLANKS).strip_prefix('"');
        let (value, after) = parse_quoted(quoted.ok_or(Problem::Labels)?)?;
        labels.push((name.to_owned(), value));
        let after = after.trim_start_matches(BLANKS);
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.starts_with('}') => after,
            None => return Err(Problem::Labels),
        };
    }
}

/// Parses the value of a label after its opening quote. Returns the value, and the text after the closing quote.
fn parse_quoted(text: &str) -> Result<(String, &str), Problem> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['"', '\\']).ok_or(Problem::Labels)?;
        value.push_str(&rest[..at]);
        if value.len() > MAX_TEXT {
            return Err(Problem::TooLong);
        }
        let after = &rest[at + 1..];
        if rest.as_bytes()[at] == b'"' {
            return Ok((value, after));
        }
        let mut characters = after.chars();
        value.push(match characters.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('"') => '"',
            _ => return Err(Problem::Escape),
        });
        rest = characters.as_str();
    }
}

fn unescaped_help(text: &str) -> Result<String, Problem> {
    let mut help = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        help.push(match character {
            '\\' => match characters.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                _ => return Err(Problem::Escape),
            },
            other => other,
        });
    }
    match help.len() > MAX_TEXT {
        true => Err(Problem::TooLong),
        false => Ok(help),
    }
}

/// Checks that the labels fit the type. Writes the number of a bucket or of a quantile in one way, so that `1` and `1.0` are the same.
fn checked_labels(
    kind: TextKind,
    part: SamplePart,
    mut labels: LabelPairs,
) -> Result<LabelPairs, Problem> {
    if !kind.parts().contains(&part) {
        return Err(Problem::Part);
    }
    let numbered = match (kind, part) {
        (TextKind::Histogram, SamplePart::Bucket) => "le",
        (TextKind::Summary, SamplePart::Value) => "quantile",
        _ => return Ok(labels),
    };
    let number = labels.iter_mut().find(|(name, _)| name == numbered);
    let (_, text) = number.ok_or(Problem::Part)?;
    let value: f64 = text.parse().map_err(|_| Problem::Part)?;
    if value.is_nan() {
        return Err(Problem::Part);
    }
    *text = crate::model::number_text(value);
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_SAMPLES, Problem, SamplePart, TextFamily, TextKind, parse};

    const TEXT: &str = r#"# A comment.
# HELP backup_last_success_timestamp_seconds Time of the last backup.\nOne line \\ more.
# TYPE backup_last_success_timestamp_seconds gauge
backup_last_success_timestamp_seconds{job="db",path="C:\\DIR\\\"x\"\n"} 1.7e9

  backup_files_total { job = "db" , }   +12
#TYPE	duration_seconds	histogram
duration_seconds_bucket{le="0.5"} 1
duration_seconds_bucket{le="1e6"} 2
duration_seconds_bucket{le="+Inf"} 3
duration_seconds_sum 4.5
duration_seconds_count 3
# TYPE size_bytes SUMMARY
size_bytes{quantile="0.50"} NaN
size_bytes_sum -Inf
size_bytes_count 0
# TYPE unused counter
"#;

    /// Returns each sample as a line.
    fn lines(families: &[TextFamily]) -> Vec<String> {
        let of = |family: &TextFamily| -> Vec<String> {
            let samples = family.samples.iter();
            let line = |sample: &crate::model::TextSample| {
                let (name, part) = (&family.name, sample.part.suffix());
                format!("{name}{part} {:?} {}", sample.labels, sample.value)
            };
            samples.map(line).collect()
        };
        families.iter().flat_map(of).collect()
    }

    #[test]
    fn all_types_labels_and_escapes_are_read() {
        let families = parse(TEXT).unwrap();
        let kinds: Vec<_> = families.iter().map(|one| one.kind).collect();
        use TextKind::{Gauge, Histogram, Summary, Untyped};
        assert_eq!(kinds, [Gauge, Untyped, Histogram, Summary]);
        assert_eq!(
            families[0].help.as_deref(),
            Some("Time of the last backup.\nOne line \\ more.")
        );
        assert_eq!(families[0].samples[0].labels[1].1, "C:\\DIR\\\"x\"\n");
        assert_eq!(families[2].samples[0].part, SamplePart::Bucket);
        assert_eq!(
            lines(&families)[1..],
            [
                r#"backup_files_total [("job", "db")] 12"#,
                r#"duration_seconds_bucket [("le", "0.5")] 1"#,
                r#"duration_seconds_bucket [("le", "1e+06")] 2"#,
                r#"duration_seconds_bucket [("le", "+Inf")] 3"#,
                "duration_seconds_sum [] 4.5",
                "duration_seconds_count [] 3",
                r#"size_bytes [("quantile", "0.5")] NaN"#,
                "size_bytes_sum [] -inf",
                "size_bytes_count [] 0",
            ]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("\n# HELP a\n#\n").unwrap(), []);
    }

    #[test]
    fn an_invalid_text_is_refused_with_its_line() {
        for (text, line, problem) in [
            ("a 1", 1, Problem::Incomplete),
            ("a 1\n1a 1\n", 2, Problem::MetricName),
            ("{a=\"b\"} 1\n", 1, Problem::MetricName),
            ("a-b 1\n", 1, Problem::MetricName),
            ("a{b-c=\"d\"} 1\n", 1, Problem::LabelName),
            ("a{__name__=\"d\"} 1\n", 1, Problem::LabelName),
            ("a{b=\"c\" 1\n", 1, Problem::Labels),
            ("a{b=c} 1\n", 1, Problem::Labels),
            ("a{b=\"c\n\"} 1\n", 1, Problem::Labels),
            ("a{b=\"c\",b=\"d\"} 1\n", 1, Problem::RepeatedLabel),
            ("a{b=\"\\t\"} 1\n", 1, Problem::Escape),
            ("# HELP a \\t\na 1\n", 1, Problem::Escape),
            ("a\n", 1, Problem::Value),
            ("a one\n", 1, Problem::Value),
            ("a 1 2 3\n", 1, Problem::Value),
            ("a 1\r\n", 1, Problem::Value),
            ("b 1\na 1 1700000000000\n", 2, Problem::Timestamp),
            ("# TYPE a number\n", 1, Problem::Type),
            ("# TYPE a gauge\n# TYPE a gauge\n", 2, Problem::RepeatedType),
            ("a 1\n# TYPE a gauge\n", 2, Problem::RepeatedType),
            ("# HELP a b\n# HELP a b\n", 2, Problem::RepeatedHelp),
            ("# TYPE a histogram\na 1\n", 2, Problem::Part),
            ("# TYPE a histogram\na_bucket 1\n", 2, Problem::Part),
            ("# TYPE a summary\na 1\n", 2, Problem::Part),
            ("a 1\nb 1\na 1\n", 3, Problem::RepeatedSeries),
            (
                "a{b=\"1\",c=\"\"} 1\na{b=\"1\"} 1\n",
                2,
                Problem::RepeatedSeries,
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.problem), (line, problem), "{text}");
        }
    }

    #[test]
    fn the_sizes_are_limited() {
        let problem = |text: &str| parse(text).unwrap_err().problem;
        assert_eq!(
            problem(&format!("{} 1\n", "a".repeat(257))),
            Problem::TooLong
        );
        let long = "a".repeat(4097);
        assert_eq!(problem(&format!("a{{b=\"{long}\"}} 1\n")), Problem::TooLong);
        assert_eq!(problem(&format!("# HELP a {long}\n")), Problem::TooLong);
        let labels: String = (0..65).map(|number| format!("a{number}=\"b\",")).collect();
        assert_eq!(
            problem(&format!("a{{{labels}}} 1\n")),
            Problem::TooManyLabels
        );
        let lines = |count: usize| (0..count).map(|number| format!("a{number} 1\n"));
        assert!(parse(&lines(MAX_SAMPLES).collect::<String>()).is_ok());
        let many: String = lines(MAX_SAMPLES + 1).collect();
        assert_eq!(problem(&many), Problem::TooManySamples);
    }

    #[test]
    fn a_message_shows_no_text_of_the_file() {
        let error = parse("a 1\nsecret: hunter2\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: invalid value");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n|[ab]|\\{|\\}|\"|=|,|# TYPE a histogram\n|a_bucket|le)*") {
            let _ = parse(&text);
        }

        #[test]
        fn every_label_is_read_as_it_was(value in "(\\PC|\n|\"|\\\\){0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let families = parse(&format!("a{{b=\"{escaped}\"}} 1\n")).unwrap();
            prop_assert_eq!(&families[0].samples[0].labels[0].1, &value);
        }
    }

    #[test]
    fn fuzz_textfile() {
        crate::fuzzing::run("textfile", &[TEXT.as_bytes()], |bytes| {
            let _ = parse(&String::from_utf8_lossy(bytes));
        });
    }
}
