//! Reads the names and versions of the host's operating system from os-release(5).

use std::time::UNIX_EPOCH;

use super::family::{Family, FamilyError, Rows};
use crate::settings::{FileVersion, HostRoot};

/// The paths of os-release(5). The first file that exists is used.
const PLACES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
/// Maximum size of the file, in bytes.
const MAX_SIZE: u64 = 64 * 1024;
/// The labels. The names of the fields in the file are the same in capital letters.
const LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

/// The family. The file is read again only when it has changed.
pub(super) struct Os {
    host: HostRoot,
    known: Option<(FileVersion, Release)>,
}

/// The fields of the file.
#[derive(Debug, Clone, PartialEq)]
struct Release {
    /// The values of [`LABELS`]. A field that the file does not have is empty.
    fields: [String; 12],
    /// The first two parts of the version, as a number.
    version: Option<f64>,
    /// The time at which support ends, in Unix seconds.
    support_end: Option<f64>,
}

impl Os {
    pub(super) fn new(host: HostRoot) -> Self {
        Self { host, known: None }
    }
}

impl Family for Os {
    fn name(&self) -> &'static str {
        "os"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let place = |place| Some((place, self.host.version(place).ok()?));
        let found = PLACES.into_iter().find_map(place);
        let (place, version) = found.ok_or(FamilyError::Absent)?;
        if self.known.as_ref().map(|(version, _)| *version) != Some(version) {
            let read = self.host.read(place, MAX_SIZE);
            let text = read.map_err(|source| FamilyError::Read {
                path: place.into(),
                source,
            })?;
            self.known = Some((version, Release::parse(&text)));
        }
        let Some((_, release)) = &self.known else {
            return Err(FamilyError::Absent);
        };
        let [_, id, id_like, _, _, name, ..] = &release.fields;
        let labels = LABELS.into_iter().zip(release.fields.iter().cloned());
        let row = rows.add([]);
        row.labels = labels.collect();
        row.figure("info", 1.0);
        if let Some(version) = release.version {
            rows.add([("id", id), ("id_like", id_like), ("name", name)])
                .figure("version", version);
        }
        if let Some(end) = release.support_end {
            rows.add([]).figure("support_end", end);
        }
        Ok(())
    }
}

impl Release {
    fn parse(text: &str) -> Self {
        let field = |wanted: &str| {
            let value = text.lines().rev().find_map(|line| {
                let (name, value) = line.trim().split_once('=')?;
                name.eq_ignore_ascii_case(wanted).then_some(value)
            });
            value.map(unquoted).unwrap_or_default()
        };
        let mut fields = LABELS.map(field);
        let [_, _, _, _, _, name, pretty_name, _, _, _, _, version_id] = &mut fields;
        if pretty_name.is_empty() {
            *pretty_name = format!("{name} {version_id}").trim().to_owned();
        }
        let version = fields.last().map_or("", |version| version);
        Self {
            version: number(version).filter(|version| *version > 0.0),
            support_end: midnight(&field("support_end")),
            fields,
        }
    }
}

/// Removes the quotes of a value, and the backslashes before characters that the shell would change.
fn unquoted(value: &str) -> String {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(plain) = inner('\'') {
        return plain.to_owned();
    }
    let mut plain = String::new();
    let mut characters = inner('"').unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

/// Parses the start of a version as a number: `20.04` for `20.04.2`.
fn number(version: &str) -> Option<f64> {
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let first = digits(version);
    if first == 0 {
        return None;
    }
    let length = match version[first..].strip_prefix('.') {
        Some(rest) => first + 1 + digits(rest),
        None => first,
    };
    version[..length].parse().ok()
}

/// Returns the Unix time at which a day begins in UTC, for example `2030-12-31`.
fn midnight(day: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{HostRoot, Os, number, unquoted};

    #[test]
    fn fields_become_labels() {
        let folder = TempDir::new().unwrap();
        let text = "NAME=\"Ubuntu\"\nVERSION=\"20.04.2 LTS (Focal Fossa)\"\nID=ubuntu\nID_LIKE=debian\n\
            PRETTY_NAME=\"Ubuntu 20.04.2 LTS\"\nVERSION_ID=\"20.04\"\nVERSION_CODENAME=focal\nSUPPORT_END=2030-01-02\n";
        write_files(folder.path(), &[("usr/lib/os-release", text)]);
        let host = HostRoot::parse(folder.path().to_str().unwrap()).unwrap();
        let mut os = Os::new(host);
        let expected = [
            "build_id= id=ubuntu id_like=debian image_id= image_version= name=Ubuntu pretty_name=Ubuntu 20.04.2 LTS variant= \
             variant_id= version=20.04.2 LTS (Focal Fossa) version_codename=focal version_id=20.04 info 1",
            "id=ubuntu id_like=debian name=Ubuntu version 20.04",
            "support_end 1893542400",
        ];
        assert_eq!(lines_of(&mut os), expected);
        assert_eq!(lines_of(&mut os), expected);
        write_files(folder.path(), &[("etc/os-release", "ID=arch\n")]);
        let lines = lines_of(&mut os);
        assert!(
            lines.len() == 1 && lines[0].contains(" id=arch "),
            "{lines:?}"
        );
    }

    #[test]
    fn quotes_are_removed_and_versions_are_numbers() {
        for (value, plain) in [
            ("a", "a"),
            ("\"a \\\"b\\\" \\$c\"", "a \"b\" $c"),
            ("'a\\b'", "a\\b"),
            ("\"", "\""),
            ("", ""),
        ] {
            assert_eq!(unquoted(value), plain);
        }
        for (version, expected) in [
            ("20.04.2", Some(20.04)),
            ("12", Some(12.0)),
            ("7.", Some(7.0)),
            ("rolling", None),
            ("", None),
        ] {
            assert_eq!(number(version), expected, "{version}");
        }
    }
}
