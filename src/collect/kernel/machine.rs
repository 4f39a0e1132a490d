//! Reads the size of the host: processors, cores, memory and swap. cAdvisor has these figures.

use std::collections::BTreeSet;

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_number, read_text};

/// The family. Sources: `/sys/devices/system/cpu` and the system call `sysinfo`.
#[derive(Debug)]
pub(super) struct Machine {
    roots: Roots,
    /// The number of directories of cores, and the cores. Cores are added and removed rarely, so they are counted again only if the number
    /// of directories has changed.
    cores: Option<(usize, Cores)>,
    boot_id: Option<String>,
}

/// The numbers of cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cores {
    logical: usize,
    physical: usize,
    sockets: usize,
}

impl Machine {
    pub(super) fn new(roots: Roots) -> Self {
        Self {
            roots,
            cores: None,
            boot_id: None,
        }
    }

    /// Counts the cores. A core that is switched off has no topology and is left out.
    fn cores(&mut self) -> Result<Cores, FamilyError> {
        let folder = self.roots.sys.join("devices/system/cpu");
        let mut names = names_in(&folder)?;
        names.retain(|name| {
            let number = name.strip_prefix("cpu");
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        });
        if let Some((directories, cores)) = self.cores
            && directories == names.len()
        {
            return Ok(cores);
        }
        let (mut physical, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        let mut logical = 0;
        for name in &names {
            let topology = folder.join(name).join("topology");
            let Some(core) = read_number(&topology.join("core_id")) else {
                continue;
            };
            let socket = read_number(&topology.join("physical_package_id")).unwrap_or_default();
            logical += 1;
            physical.insert((socket as i64, core as i64));
            sockets.insert(socket as i64);
        }
        if logical == 0 {
            return Err(FamilyError::Absent);
        }
        let cores = Cores {
            logical,
            physical: physical.len(),
            sockets: sockets.len(),
        };
        self.cores = Some((names.len(), cores));
        Ok(cores)
    }
}

impl Family for Machine {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let cores = self.cores()?;
        if self.boot_id.is_none() {
            self.boot_id = read_text(&self.roots.proc.join("sys/kernel/random/boot_id"));
        }
        let info = rustix::system::sysinfo();
        let bytes = |units: u64| units.saturating_mul(u64::from(info.mem_unit)) as f64;
        let boot_id = self.boot_id.as_deref().unwrap_or_default();
        let row = rows.add([("boot_id", boot_id)]);
        row.figure("cpu_cores", cores.logical as f64);
        row.figure("cpu_physical_cores", cores.physical as f64);
        row.figure("cpu_sockets", cores.sockets as f64);
        row.figure("memory_bytes", bytes(info.totalram as u64));
        row.figure("swap_bytes", bytes(info.totalswap as u64));
        rows.add([]).figure("scrape_error", 0.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Machine, Roots};

    #[test]
    fn cores_and_sockets_are_counted() {
        let folder = TempDir::new().unwrap();
        let cpu =
            |number: usize, file: &str| format!("devices/system/cpu/cpu{number}/topology/{file}");
        // Two processors with two cores each. The first has two threads in each core.
        let topology = [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1)];
        for (number, (socket, core)) in topology.into_iter().enumerate() {
            write_files(
                folder.path(),
                &[
                    (&cpu(number, "physical_package_id"), &format!("{socket}\n")),
                    (&cpu(number, "core_id"), &format!("{core}\n")),
                ],
            );
        }
        write_files(
            folder.path(),
            &[
                ("devices/system/cpu/cpu6/online", "0\n"),
                ("devices/system/cpu/cpufreq/x", ""),
                ("sys/kernel/random/boot_id", "0abb23a9\n"),
            ],
        );
        let mut machine = Machine::new(Roots {
            proc: folder.path().into(),
            sys: folder.path().into(),
        });
        for _ in 0..2 {
            let lines = lines_of(&mut machine);
            let expected = [
                "boot_id=0abb23a9 cpu_cores 6",
                "boot_id=0abb23a9 cpu_physical_cores 4",
                "boot_id=0abb23a9 cpu_sockets 2",
            ];
            assert_eq!(lines[..3], expected);
            let memory = lines[3].strip_prefix("boot_id=0abb23a9 memory_bytes ");
            assert!(memory.unwrap().parse::<f64>().unwrap() > 1e6, "{lines:?}");
            assert_eq!(lines[5], "scrape_error 0");
        }
    }

    #[test]
    fn this_host_is_read() {
        assert_eq!(lines_of(&mut Machine::new(Roots::default())).len(), 6);
    }
}
