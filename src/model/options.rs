//! The options of a client. A client can send them after its key as a JSON object, e.g. `{"sections":["system"]}`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Cursor, LogRange};

/// The text of a log line is cut at this length, in bytes, unless the client asks for more.
pub const DEFAULT_MAX_LINE: u32 = 16 * 1024;
/// The longest log line that a client can ask for, in bytes.
pub const MOST_MAX_LINE: u32 = 1024 * 1024;

/// The longest history that an agent keeps and a client can ask for.
pub const MOST_HISTORY: Duration = Duration::from_secs(3600);

/// The options of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The content and encoding of the client's snapshots.
    pub variant: Variant,
    /// The client gets every n-th snapshot, and this field is n. 1 means every snapshot.
    pub every: NonZeroU32,
    /// Whether the client gets events and new log lines as they happen, in JSON lines of their own.
    pub live: bool,
    /// The older log lines that the client asks for. None for a client that gets snapshots.
    pub range: Option<Arc<LogRange>>,
    /// The position after which events and new log lines begin. None for a client that begins now.
    pub resume: Option<Arc<Cursor>>,
    /// How far back the figures of the past go that come before the first snapshot. None for a client that gets no such figures.
    pub history: Option<Duration>,
}

/// The content and encoding of snapshots. Clients with the same variant share the encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The sections of the snapshots. Fields that do not belong to a section are always present.
    pub sections: Sections,
    /// The log lines in the snapshots. The value is always [`LogMode::Tail`] if the section `logs` is left out.
    pub logs: LogMode,
    /// How the snapshots are encoded.
    pub encoding: Encoding,
    /// Whether the snapshots have a cursor.
    pub has_cursor: bool,
    /// Limit on the text of a new log line, in bytes. A longer line is cut. In tails, lines are always cut at
    /// [`DEFAULT_MAX_LINE`].
    pub max_line: u32,
}

/// A part of the snapshot that a client can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// The figures of the host.
    System,
    /// The figures of containers.
    Containers,
    /// The metadata of containers.
    DockerMeta,
    /// The stopped containers.
    Stopped,
    /// The log lines of containers.
    Logs,
    /// The events of containers.
    Events,
    /// The kernel's own figures. Only clients that name this section get it.
    Kernel,
    /// The figures of other programs. Only clients that name this section get it.
    Textfile,
}

/// A set of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sections(u16);

/// The log lines that a client gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LogMode {
    /// Every snapshot has the newest log lines.
    #[default]
    Tail,
    /// The first snapshot has the newest log lines. Later snapshots have each new log line once.
    New,
}

/// How snapshots are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON lines.
    #[default]
    Json,
    /// JSON lines, each compressed as one zstd frame.
    Zstd,
}

impl Section {
    /// All sections with the names of their fields, in the order of the JSON line.
    pub const ALL: [(&'static str, Self); 8] = [
        ("system", Self::System),
        ("containers", Self::Containers),
        ("docker_meta", Self::DockerMeta),
        ("stopped", Self::Stopped),
        ("logs", Self::Logs),
        ("events", Self::Events),
        ("kernel", Self::Kernel),
        ("textfile", Self::Textfile),
    ];
}

impl Sections {
    /// The sections of a client that names no sections: all but `kernel` and `textfile`.
    pub const DEFAULT: Self = Self(
        ((1 << Section::ALL.len()) - 1)
            & !(1 << Section::Kernel as u16)
            & !(1 << Section::Textfile as u16),
    );
    /// No section. A snapshot then has only the fields that are always present.
    pub const NONE: Self = Self(0);

    /// Returns these sections and one more section.
    #[must_use]
    pub fn with(self, section: Section) -> Self {
        Self(self.0 | 1 << section as u16)
    }

    /// Returns the sections of both sets.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Returns the names of the sections.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let names = Section::ALL.into_iter();
        let names = names.filter(|(_, section)| self.has(*section));
        names.map(|(name, _)| name).collect()
    }

    /// Returns whether the set has a section.
    #[must_use]
    pub fn has(self, section: Section) -> bool {
        self.0 & 1 << section as u16 != 0
    }
}

impl Default for Options {
    /// The options of a client that sends no options.
    fn default() -> Self {
        Self {
            variant: Variant {
                sections: Sections::DEFAULT,
                logs: LogMode::Tail,
                encoding: Encoding::Json,
                has_cursor: false,
                max_line: DEFAULT_MAX_LINE,
            },
            every: NonZeroU32::MIN,
            live: false,
            range: None,
            resume: None,
            history: None,
        }
    }
}

impl Options {
    /// Parses a client's options.
    ///
    /// # Errors
    /// Fails if an option is unknown or invalid. The error names the option and the accepted values.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let asked: Map<String, Value> = serde_json::from_slice(text).map_err(|_| {
            "options: not a JSON object; accepted: e.g. {\"sections\":[\"system\"]}".to_owned()
        })?;
        let mut options = Self::default();
        if asked.get("logs").is_some_and(|mode| mode == "range") {
            options.range = Some(Arc::new(LogRange::parse(&asked)?));
            return Ok(options);
        }
        let Variant {
            sections,
            logs,
            encoding,
            has_cursor,
            max_line,
        } = &mut options.variant;
        for (name, value) in &asked {
            match name.as_str() {
                "sections" => {
                    *sections = parse_sections(value)?;
                    *has_cursor |= sections.has(Section::Events);
                }
                "logs" => {
                    let modes = [("tail", LogMode::Tail), ("new", LogMode::New)];
                    *logs = one_of(name, value, &modes)?;
                }
                "every" => options.every = parse_every(value)?,
                "live" => {
                    options.live = value
                        .as_bool()
                        .ok_or_else(|| "live: accepted: true or false".to_owned())?;
                }
                "max_line" => *max_line = parse_max_line(value)?,
                "history" => options.history = parse_history(value)?,
                "resume" => options.resume = Some(Arc::new(parse_cursor(value)?)),
                "encoding" => {
                    let encodings = [("json", Encoding::Json), ("zstd", Encoding::Zstd)];
                    *encoding = one_of(name, value, &encodings)?;
                }
                _ => {
                    return Err(format!(
                        "{}: unknown option; accepted: sections, logs, live, max_line, every, encoding, resume, history",
                        shown(name)
                    ));
                }
            }
        }
        if !sections.has(Section::Logs) {
            *logs = LogMode::Tail;
        }
        if *logs == LogMode::Tail {
            // Clients with the same content share the encoded bytes.
            *max_line = DEFAULT_MAX_LINE;
        }
        *has_cursor |= *logs == LogMode::New || options.resume.is_some();
        Ok(options)
    }
}

/// Maximum length of an unknown option's name in an error, in characters.
const MAX_NAME_LENGTH: usize = 40;

/// Returns the name of an unknown option, for an error. The client has chosen the name. The name is escaped, because the log has
/// one line for each error.
pub(super) fn shown(name: &str) -> String {
    let name: String = name.chars().take(MAX_NAME_LENGTH).collect();
    name.escape_debug().to_string()
}

fn parse_sections(value: &Value) -> Result<Sections, String> {
    let accepted = || {
        let names: Vec<_> = Section::ALL.iter().map(|(name, _)| *name).collect();
        format!(
            "sections: accepted: an array of any of {}",
            names.join(", ")
        )
    };
    let names = value.as_array().ok_or_else(accepted)?;
    names.iter().try_fold(Sections::NONE, |sections, name| {
        let known = Section::ALL.iter().find(|(known, _)| name == known);
        let (_, section) = known.ok_or_else(accepted)?;
        Ok(sections.with(*section))
    })
}

fn parse_every(value: &Value) -> Result<NonZeroU32, String> {
    let every = value.as_u64().and_then(|every| u32::try_from(every).ok());
    every
        .and_then(NonZeroU32::new)
        .ok_or_else(|| format!("every: accepted: an integer from 1 to {}", u32::MAX))
}

pub(super) fn parse_max_line(value: &Value) -> Result<u32, String> {
    let bytes = value.as_u64().and_then(|bytes| u32::try_from(bytes).ok());
    let accepted = DEFAULT_MAX_LINE..=MOST_MAX_LINE;
    bytes.filter(|bytes| accepted.contains(bytes)).ok_or_else(|| {
        format!("max_line: accepted: an integer from {DEFAULT_MAX_LINE} to {MOST_MAX_LINE}, in bytes")
    })
}

fn parse_history(value: &Value) -> Result<Option<Duration>, String> {
    let most = MOST_HISTORY.as_secs();
    match (value.as_bool(), value.as_u64()) {
        (Some(wanted), _) => Ok(wanted.then_some(MOST_HISTORY)),
        (None, Some(seconds)) if (1..=most).contains(&seconds) => {
            Ok(Some(Duration::from_secs(seconds)))
        }
        _ => Err(format!(
            "history: accepted: true, false, or an integer from 1 to {most}, in seconds"
        )),
    }
}

fn parse_cursor(value: &Value) -> Result<Cursor, String> {
    let cursor = value.as_str().and_then(|text| Cursor::parse(text).ok());
    cursor.ok_or_else(|| "resume: accepted: the value of agent.cursor".to_owned())
}

fn one_of<T: Copy>(option: &str, value: &Value, accepted: &[(&str, T)]) -> Result<T, String> {
    let found = accepted.iter().find(|(name, _)| value == name);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = accepted
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        format!("{option}: accepted: {}", names.join(" or "))
    })
}

#[cfg(test)]
mod tests {
    use super::{Encoding, LogMode, Options, Section, Sections};

    fn parsed(text: &str) -> Result<Options, String> {
        Options::parse(text.as_bytes())
    }

    #[test]
    fn options_that_are_not_sent_have_their_defaults() {
        assert_eq!(parsed("{}"), Ok(Options::default()));
        let all = r#"{"sections":["system","containers","docker_meta","stopped","logs","events"],
            "logs":"tail","every":1,"encoding":"json"}"#;
        let mut expected = Options::default();
        expected.variant.has_cursor = true;
        assert_eq!(parsed(all), Ok(expected));
    }

    #[test]
    fn snapshots_have_a_cursor_if_the_client_can_use_it() {
        for (text, has_cursor) in [
            ("{}", false),
            (r#"{"logs":"new"}"#, true),
            (r#"{"sections":["system"]}"#, false),
            (r#"{"sections":["events"]}"#, true),
            (r#"{"sections":["system"],"logs":"new"}"#, false),
            (
                r#"{"sections":["system"],"resume":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
                true,
            ),
        ] {
            assert_eq!(
                parsed(text).unwrap().variant.has_cursor,
                has_cursor,
                "{text}"
            );
        }
    }

    #[test]
    fn every_option_is_read() {
        let options = parsed(
            r#"{"sections":["logs","logs"],"logs":"new","every":12,"encoding":"zstd","live":true}"#,
        );
        let options = options.unwrap();
        assert_eq!(options.variant.sections, Sections::NONE.with(Section::Logs));
        assert_eq!(options.variant.logs, LogMode::New);
        assert_eq!(options.variant.encoding, Encoding::Zstd);
        assert_eq!(options.every.get(), 12);
        assert!(options.live);
    }

    #[test]
    fn the_history_does_not_change_the_snapshots() {
        for (text, seconds) in [
            (r#"{"history":true}"#, Some(3600)),
            (r#"{"history":3600}"#, Some(3600)),
            (r#"{"history":1}"#, Some(1)),
            (r#"{"history":false}"#, None),
        ] {
            let options = parsed(text).unwrap();
            let history = options.history.map(|history| history.as_secs());
            assert_eq!(history, seconds, "{text}");
            assert_eq!(options.variant, Options::default().variant);
        }
    }

    #[test]
    fn clients_with_the_same_content_have_equal_variants() {
        let new = parsed(r#"{"sections":["system"],"logs":"new"}"#).unwrap();
        let tail = parsed(r#"{"sections":["system"]}"#).unwrap();
        assert_eq!(new.variant, tail.variant);
    }

    #[test]
    fn an_error_names_the_option_and_the_accepted_values() {
        for (text, error) in [
            ("", "options: not a JSON object"),
            ("[]", "options: not a JSON object"),
            (r#"{"sections":["system"]"#, "options: not a JSON object"),
            (
                r#"{"section":["system"]}"#,
                "section: unknown option; accepted: sections, logs, live, max_line, every, encoding, resume, history",
            ),
            (
                r#"{"sections":"system"}"#,
                "sections: accepted: an array of any of system, containers, docker_meta, stopped, logs, events, kernel, textfile",
            ),
            (r#"{"sections":["system","cpu"]}"#, "sections: accepted"),
            (r#"{"sections":[1]}"#, "sections: accepted"),
            (r#"{"logs":"all"}"#, r#"logs: accepted: "tail" or "new""#),
            (r#"{"logs":null}"#, "logs: accepted"),
            (
                r#"{"logs":"new","max_line":1048577}"#,
                "max_line: accepted: an integer from 16384 to 1048576",
            ),
            (r#"{"max_line":"20000"}"#, "max_line: accepted"),
            (r#"{"live":1}"#, "live: accepted: true or false"),
            (
                r#"{"history":0}"#,
                "history: accepted: true, false, or an integer from 1 to 3600, in seconds",
            ),
            (r#"{"history":3601}"#, "history: accepted"),
            (r#"{"history":1.5}"#, "history: accepted"),
            (r#"{"history":"10m"}"#, "history: accepted"),
            (r#"{"history":null}"#, "history: accepted"),
            (
                r#"{"every":0}"#,
                "every: accepted: an integer from 1 to 4294967295",
            ),
            (r#"{"every":-1}"#, "every: accepted"),
            (r#"{"every":1.5}"#, "every: accepted"),
            (r#"{"every":4294967296}"#, "every: accepted"),
            (r#"{"every":"2"}"#, "every: accepted"),
            (
                r#"{"encoding":"gzip"}"#,
                r#"encoding: accepted: "json" or "zstd""#,
            ),
        ] {
            let said = parsed(text).unwrap_err();
            assert!(said.starts_with(error), "{text}: {said}");
        }
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(1000));
        assert!(parsed(&long).unwrap_err().len() < 140);
    }

    #[test]
    fn fuzz_options() {
        let seeds: [&[u8]; 6] = [
            br#"{"logs":"range","container":"web","before":"2026-01-02T03:04:05Z","lines":5,"grep":"a+","from":"oldest"}"#,
            br#"{"logs":"new","live":true,"max_line":20000,"history":600}"#,
            br#"{"sections":["system","containers","docker_meta","stopped","logs","events"],"logs":"new","every":3,"encoding":"zstd"}"#,
            br#"{"every":1,"logs":"tail"}"#,
            b"{}",
            br#"{"sections":[],"encoding":"json"}"#,
        ];
        crate::fuzzing::run("options", &seeds, |bytes| {
            if let Err(error) = Options::parse(bytes) {
                assert!(!error.contains('\n'), "{error}");
            }
        });
    }
}
