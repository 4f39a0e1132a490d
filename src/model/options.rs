//! What a client may ask for after its key: a JSON object, e.g. `{"sections":["system"]}`.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What its snapshots hold.
    pub variant: Variant,
    /// It is sent every so manieth snapshot.
    pub every: NonZeroU32,
}

/// What snapshots hold, and how. Clients that ask for the same share the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The sections that they hold, beside the envelope.
    pub sections: Sections,
    /// Which log lines. [`LogMode::Tail`] without the section, where it makes no difference.
    pub logs: LogMode,
    /// How they are written.
    pub encoding: Encoding,
}

/// A part of the snapshot that a client may do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// The host's figures.
    System,
    /// The containers' figures.
    Containers,
    /// The containers' metadata.
    DockerMeta,
    /// The containers' log lines.
    Logs,
    /// What happened to containers.
    Events,
}

/// A set of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sections(u8);

/// Which log lines a client is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LogMode {
    /// The newest, in every snapshot.
    #[default]
    Tail,
    /// The newest at first, then each further one once.
    New,
}

/// How snapshots are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As lines of JSON.
    #[default]
    Json,
    /// Each line as a zstd frame of its own.
    Zstd,
}

impl Section {
    /// All of them, with the names of their fields, in the order of the line.
    pub const ALL: [(&'static str, Self); 5] = [
        ("system", Self::System),
        ("containers", Self::Containers),
        ("docker_meta", Self::DockerMeta),
        ("logs", Self::Logs),
        ("events", Self::Events),
    ];
}

impl Sections {
    /// All sections.
    pub const ALL: Self = Self((1 << Section::ALL.len()) - 1);
    /// The envelope alone.
    pub const NONE: Self = Self(0);

    /// These sections and one more.
    #[must_use]
    pub fn with(self, section: Section) -> Self {
        Self(self.0 | 1 << section as u8)
    }

    /// What they are called.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let names = Section::ALL.into_iter();
        let names = names.filter(|(_, section)| self.has(*section));
        names.map(|(name, _)| name).collect()
    }

    /// Whether a section is among them.
    #[must_use]
    pub fn has(self, section: Section) -> bool {
        self.0 & 1 << section as u8 != 0
    }
}

impl Default for Options {
    /// What a client gets that asks for nothing.
    fn default() -> Self {
        Self {
            variant: Variant {
                sections: Sections::ALL,
                logs: LogMode::Tail,
                encoding: Encoding::Json,
            },
            every: NonZeroU32::MIN,
        }
    }
}

impl Options {
    /// Reads a client's options.
    ///
    /// # Errors
    /// Which option is unknown or malformed, and what is accepted.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let asked: Map<String, Value> = serde_json::from_slice(text).map_err(|_| {
            "options: not a JSON object; accepted: e.g. {\"sections\":[\"system\"]}".to_owned()
        })?;
        let mut options = Self::default();
        let Variant {
            sections,
            logs,
            encoding,
        } = &mut options.variant;
        for (name, value) in &asked {
            match name.as_str() {
                "sections" => *sections = parse_sections(value)?,
                "logs" => {
                    let modes = [("tail", LogMode::Tail), ("new", LogMode::New)];
                    *logs = one_of(name, value, &modes)?;
                }
                "every" => options.every = parse_every(value)?,
                "encoding" => {
                    let encodings = [("json", Encoding::Json), ("zstd", Encoding::Zstd)];
                    *encoding = one_of(name, value, &encodings)?;
                }
                _ => {
                    // Whatever it holds, it is one line of a log as well.
                    let name: String = name.chars().take(LONGEST_NAME).collect();
                    let name = name.escape_debug();
                    return Err(format!(
                        "{name}: unknown option; accepted: sections, logs, every, encoding"
                    ));
                }
            }
        }
        if !sections.has(Section::Logs) {
            *logs = LogMode::Tail;
        }
        Ok(options)
    }
}

/// The most of an unknown option's name that is said.
const LONGEST_NAME: usize = 40;

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
    fn what_is_not_asked_for_is_as_ever() {
        assert_eq!(parsed("{}"), Ok(Options::default()));
        let all = r#"{"sections":["system","containers","docker_meta","logs","events"],
            "logs":"tail","every":1,"encoding":"json"}"#;
        assert_eq!(parsed(all), Ok(Options::default()));
    }

    #[test]
    fn every_option_is_read() {
        let options =
            parsed(r#"{"sections":["logs","logs"],"logs":"new","every":12,"encoding":"zstd"}"#);
        let options = options.unwrap();
        assert_eq!(options.variant.sections, Sections::NONE.with(Section::Logs));
        assert_eq!(options.variant.logs, LogMode::New);
        assert_eq!(options.variant.encoding, Encoding::Zstd);
        assert_eq!(options.every.get(), 12);
    }

    #[test]
    fn clients_that_get_the_same_share_a_variant() {
        let new = parsed(r#"{"sections":["system"],"logs":"new"}"#).unwrap();
        let tail = parsed(r#"{"sections":["system"]}"#).unwrap();
        assert_eq!(new.variant, tail.variant);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        for (text, error) in [
            ("", "options: not a JSON object"),
            ("[]", "options: not a JSON object"),
            (r#"{"sections":["system"]"#, "options: not a JSON object"),
            (
                r#"{"section":["system"]}"#,
                "section: unknown option; accepted: sections, logs, every, encoding",
            ),
            (
                r#"{"sections":"system"}"#,
                "sections: accepted: an array of any of system, containers, docker_meta, logs, events",
            ),
            (r#"{"sections":["system","cpu"]}"#, "sections: accepted"),
            (r#"{"sections":[1]}"#, "sections: accepted"),
            (r#"{"logs":"all"}"#, r#"logs: accepted: "tail" or "new""#),
            (r#"{"logs":null}"#, "logs: accepted"),
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
        assert!(parsed(&long).unwrap_err().len() < 120);
    }

    #[test]
    fn fuzz_options() {
        let seeds: [&[u8]; 4] = [
            br#"{"sections":["system","containers","docker_meta","logs","events"],"logs":"new","every":3,"encoding":"zstd"}"#,
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
