//! Reads the energy that the processors have used (RAPL).

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::devices::{Cached, filled, number};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of zones.
const MAX_ZONES: usize = 256;

/// The family. Source: `/sys/class/powercap`. Since Linux 5.10, only root can read the energy.
pub(super) struct Rapl {
    folder: PathBuf,
    zones: Cached<Zone>,
}

/// A part of a processor. The kernel counts its energy.
struct Zone {
    /// The name without its number, such as `package`.
    name: String,
    /// The number of the zone among the zones with the same name.
    index: String,
    path: PathBuf,
}

impl Rapl {
    pub(super) fn new(roots: &Roots) -> Self {
        Self {
            folder: roots.sys.join("class/powercap"),
            zones: Cached::default(),
        }
    }
}

impl Family for Rapl {
    fn name(&self) -> &'static str {
        "rapl"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let Self { folder, zones } = self;
        let zones = zones.found(|| find(folder));
        if zones.is_empty() && !folder.exists() {
            return Err(FamilyError::Absent);
        }
        for zone in zones {
            if let Some(microjoules) = number(&zone.path.join("energy_uj")) {
                let path = zone.path.to_string_lossy();
                rows.add([("index", &zone.index), ("path", &path)])
                    .figure(zone.name.clone(), microjoules / 1_000_000.0);
            }
        }
        Ok(())
    }
}

/// Finds the zones that can be read.
fn find(folder: &Path) -> Vec<Zone> {
    let mut used = HashMap::<String, u32>::new();
    let mut zones = Vec::new();
    for entry in names_in(folder).unwrap_or_default() {
        let path = folder.join(entry);
        let Some(name) = filled(&path.join("name")) else {
            continue;
        };
        let (name, index) = match numbered(&name) {
            Some((name, index)) => (name.to_owned(), index),
            None => (name.clone(), used.get(&name).copied().unwrap_or_default()),
        };
        used.insert(name.clone(), index.saturating_add(1));
        let opened = File::open(path.join("energy_uj"));
        let is_forbidden = opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        if !is_forbidden && zones.len() < MAX_ZONES {
            zones.push(Zone {
                name,
                index: index.to_string(),
                path,
            });
        }
    }
    zones
}

/// Splits a name such as `package-0` into name and number.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (name, number) = name.split_once('-')?;
    Some((name, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Rapl, Roots};

    #[test]
    fn zones_of_the_same_name_have_numbers() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("class/powercap/intel-rapl{name}");
        write_files(
            folder.path(),
            &[
                (&file("/enabled"), "1\n"),
                (&file(":0/name"), "package-0\n"),
                (&file(":0/energy_uj"), "240422366267\n"),
                (&file(":0:0/name"), "core\n"),
                (&file(":0:0/energy_uj"), "118821284256\n"),
                (&file(":1:0/name"), "core\n"),
                (&file(":1:0/energy_uj"), "1000000\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let path = folder.path().join("class/powercap").display().to_string();
        let expected = [
            format!("index=0 path={path}/intel-rapl:0 package 240422.366267"),
            format!("index=0 path={path}/intel-rapl:0:0 core 118821.284256"),
            format!("index=1 path={path}/intel-rapl:1:0 core 1"),
        ];
        assert_eq!(lines_of(&mut Rapl::new(&roots)), expected);
    }
}
