//! Reads whether SELinux is switched on, and its modes.

use super::family::{Family, FamilyError, Roots, Rows, read_number};
use crate::settings::HostRoot;

/// Maximum size of the configuration, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The family. Sources: `/sys/fs/selinux/enforce` and `/etc/selinux/config`.
pub(super) struct Selinux {
    pub(super) roots: Roots,
    pub(super) host: HostRoot,
}

impl Family for Selinux {
    fn name(&self) -> &'static str {
        "selinux"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let current = read_number(&self.roots.sys.join("fs/selinux/enforce"));
        let row = rows.add([]);
        row.figure("enabled", f64::from(u8::from(current.is_some())));
        if let Some(current) = current {
            row.figure("current_mode", current);
            let config = self.host.read("/etc/selinux/config", MAX_SIZE);
            row.figure("config_mode", configured(&config.unwrap_or_default()));
        }
        Ok(())
    }
}

/// Returns the mode in the configuration: 1 for enforcing, 0 for permissive, and -1 for disabled or unknown.
fn configured(config: &str) -> f64 {
    let mut lines = config.lines().map(str::trim);
    let mode = lines.find_map(|line| line.strip_prefix("SELINUX="));
    match mode.map(str::trim) {
        Some("enforcing") => 1.0,
        Some("permissive") => 0.0,
        _ => -1.0,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{HostRoot, Roots, Selinux};

    #[test]
    fn modes_are_read_only_if_selinux_is_switched_on() {
        let folder = TempDir::new().unwrap();
        let mut selinux = Selinux {
            roots: Roots {
                sys: folder.path().into(),
                ..Roots::default()
            },
            host: HostRoot::parse(folder.path().to_str().unwrap()).unwrap(),
        };
        assert_eq!(lines_of(&mut selinux), ["enabled 0"]);
        let files = [
            ("fs/selinux/enforce", "0"),
            (
                "etc/selinux/config",
                "# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
            ),
        ];
        write_files(folder.path(), &files);
        let expected = ["enabled 1", "current_mode 0", "config_mode 1"];
        assert_eq!(lines_of(&mut selinux), expected);
    }
}
