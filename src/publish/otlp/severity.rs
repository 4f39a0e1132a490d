//! The severity and the trace of a log line, where they are cheap to see: a line of JSON, a prefix of syslog, or `level=`.

use memchr::memmem;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Only this many bytes at the beginning of a line are searched for `level=`.
const SEARCHED: usize = 512;

/// What a log line tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LineFacts {
    /// The severity as the line writes it, and as a number.
    pub(super) severity: Option<(String, SeverityNumber)>,
    /// The trace id, 16 bytes. Empty without a trace.
    pub(super) trace_id: Vec<u8>,
    /// The span id, 8 bytes. Empty without a span.
    pub(super) span_id: Vec<u8>,
}

/// The fields of a line of JSON that loggers use for the severity and the trace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonLine<'l> {
    #[serde(borrow)]
    level: Option<&'l RawValue>,
    #[serde(borrow)]
    severity: Option<&'l RawValue>,
    #[serde(borrow)]
    lvl: Option<&'l RawValue>,
    #[serde(borrow, rename = "log.level")]
    log_level: Option<&'l RawValue>,
    #[serde(borrow, alias = "traceId", alias = "traceid", alias = "trace.id")]
    trace_id: Option<&'l RawValue>,
    #[serde(borrow, alias = "spanId", alias = "spanid", alias = "span.id")]
    span_id: Option<&'l RawValue>,
}

impl LineFacts {
    /// Reads a line without its timestamp.
    pub(super) fn of(line: &str) -> Self {
        match line.as_bytes().first() {
            Some(b'{') => Self::of_json(line).unwrap_or_default(),
            Some(b'<') => Self {
                severity: of_syslog(line),
                ..Self::default()
            },
            _ => Self {
                severity: of_key(line),
                ..Self::default()
            },
        }
    }

    fn of_json(line: &str) -> Option<Self> {
        let fields: JsonLine<'_> = serde_json::from_str(line).ok()?;
        let level = fields.level.or(fields.severity);
        let level = level.or(fields.lvl).or(fields.log_level);
        let word = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
        let severity = level.and_then(|level| match word(level) {
            Some(word) => of_word(&word),
            None => of_number(level.get()),
        });
        let id = |value: Option<&RawValue>, bytes| {
            value
                .and_then(word)
                .and_then(|text| hexadecimal(&text, bytes))
        };
        Some(Self {
            severity,
            trace_id: id(fields.trace_id, 16).unwrap_or_default(),
            span_id: id(fields.span_id, 8).unwrap_or_default(),
        })
    }
}

/// Reads a prefix of syslog such as `<3>`. The lowest three bits are the severity.
fn of_syslog(line: &str) -> Option<(String, SeverityNumber)> {
    let (number, _) = line.get(1..line.len().min(5))?.split_once('>')?;
    let number: u32 = number.parse().ok()?;
    let (word, severity) = match number % 8 {
        0 => ("emerg", SeverityNumber::Fatal),
        1 => ("alert", SeverityNumber::Error3),
        2 => ("crit", SeverityNumber::Error2),
        3 => ("err", SeverityNumber::Error),
        4 => ("warning", SeverityNumber::Warn),
        5 => ("notice", SeverityNumber::Info2),
        6 => ("info", SeverityNumber::Info),
        _ => ("debug", SeverityNumber::Debug),
    };
    (number < 192).then(|| (word.to_owned(), severity))
}

/// Reads a pair such as `level=warn`.
fn of_key(line: &str) -> Option<(String, SeverityNumber)> {
    let begin = &line.as_bytes()[..line.len().min(SEARCHED)];
    let value = ["level=", "lvl=", "severity="].iter().find_map(|key| {
        memmem::find_iter(begin, key.as_bytes())
            .find(|at| *at == 0 || begin[at - 1] == b' ')
            .map(|at| at + key.len())
    })?;
    let rest = line.get(value..)?.trim_start_matches('"');
    let end = rest.find(|one: char| !one.is_ascii_alphabetic());
    of_word(&rest[..end.unwrap_or(rest.len())])
}

/// Reads the number that loggers of Node.js write: 30 is the severity `info`.
fn of_number(text: &str) -> Option<(String, SeverityNumber)> {
    let severity = match text.parse::<u32>().ok()? {
        10 => SeverityNumber::Trace,
        20 => SeverityNumber::Debug,
        30 => SeverityNumber::Info,
        40 => SeverityNumber::Warn,
        50 => SeverityNumber::Error,
        60 => SeverityNumber::Fatal,
        _ => return None,
    };
    Some((text.to_owned(), severity))
}

fn of_word(word: &str) -> Option<(String, SeverityNumber)> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    let severity = match word {
        _ if is(&["info", "information", "i", "inf"]) => SeverityNumber::Info,
        _ if is(&["warn", "warning", "w", "wrn"]) => SeverityNumber::Warn,
        _ if is(&["error", "err", "e", "severe"]) => SeverityNumber::Error,
        _ if is(&["debug", "d", "dbg", "fine"]) => SeverityNumber::Debug,
        _ if is(&["notice", "default"]) => SeverityNumber::Info2,
        _ if is(&["trace", "t", "trc", "verbose", "finest"]) => SeverityNumber::Trace,
        _ if is(&["critical", "crit"]) => SeverityNumber::Error2,
        _ if is(&["alert", "dpanic"]) => SeverityNumber::Error3,
        _ if is(&["fatal", "f", "ftl", "panic", "emergency", "emerg"]) => SeverityNumber::Fatal,
        _ => return None,
    };
    Some((word.to_owned(), severity))
}

/// Reads hexadecimal digits. None unless they are `bytes` bytes that are not all zero.
fn hexadecimal(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| {
        let digit = |one: u8| char::from(one).to_digit(16);
        u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
    };
    if text.len() != 2 * bytes {
        return None;
    }
    let read: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(pair).collect();
    read.filter(|read| read.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

    use super::LineFacts;

    fn severity(line: &str) -> Option<(String, SeverityNumber)> {
        LineFacts::of(line).severity
    }

    #[test]
    fn the_severity_is_read_from_each_known_form() {
        for (line, word, expected) in [
            (
                r#"{"msg":"a","level":"WARN"}"#,
                "WARN",
                SeverityNumber::Warn,
            ),
            (r#"{"level":30,"msg":"a"}"#, "30", SeverityNumber::Info),
            (
                r#"{"severity":"critical"}"#,
                "critical",
                SeverityNumber::Error2,
            ),
            (r#"{"log.level":"debug"}"#, "debug", SeverityNumber::Debug),
            ("<3>disk failed", "err", SeverityNumber::Error),
            ("<14>app: started", "info", SeverityNumber::Info),
            ("level=error msg=a", "error", SeverityNumber::Error),
            (r#"time=1 level="fatal" a"#, "fatal", SeverityNumber::Fatal),
            ("ts=1 lvl=dbg", "dbg", SeverityNumber::Debug),
        ] {
            assert_eq!(severity(line), Some((word.to_owned(), expected)), "{line}");
        }
    }

    #[test]
    fn other_lines_have_no_severity() {
        for line in [
            "",
            "error: plain text",
            r#"{"level":"loud"}"#,
            r#"{"level":{"a":1}}"#,
            r#"{"level":"info""#,
            "<a>b",
            "<999>b",
            "<3",
            "nolevel=error",
            "level=",
            "level=ä",
        ] {
            assert_eq!(LineFacts::of(line), LineFacts::default(), "{line}");
        }
    }

    #[test]
    fn a_trace_is_read_from_json() {
        let line = r#"{"trace_id":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331"}"#;
        let facts = LineFacts::of(line);
        assert_eq!(facts.trace_id.len(), 16);
        assert_eq!(facts.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(facts.span_id[..2], [0xb7, 0xad]);
        for id in [
            "0",
            "00000000000000000000000000000000",
            "zzf7651916cd43dd8448eb211c80319c",
        ] {
            let facts = LineFacts::of(&format!(r#"{{"trace_id":"{id}"}}"#));
            assert_eq!(facts.trace_id, Vec::<u8>::new(), "{id}");
        }
    }

    #[test]
    fn fuzz_severity() {
        let seeds: [&[u8]; 3] = [
            br#"{"level":"info","trace_id":"0a"}"#,
            b"<3>a",
            b"a level=warn",
        ];
        crate::fuzzing::run("otlp-severity", &seeds, |bytes| {
            let facts = LineFacts::of(&String::from_utf8_lossy(bytes));
            assert!(matches!(facts.trace_id.len(), 0 | 16) && matches!(facts.span_id.len(), 0 | 8));
        });
    }
}
