//! Reads the size of the host: processors, cores, memory and swap. cAdvisor has these figures.

use std::collections::BTreeSet;

use super::family::{Family, FamilyError, Roots, Rows, read_file, read_number, read_text};
use super::proc_stat::cpus;

/// The family. Sources: `/sys/devices/system/cpu` and the system call `sysinfo`.
#[derive(Debug)]
pub(super) struct Machine {
    roots: Roots,
    /// The numbers of the CPUs that are switched on, and the cores. The cores are counted again only if the numbers have changed.
    cores: Option<(Vec<usize>, Cores)>,
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

    /// Counts the cores that are switched on.
    fn cores(&mut self) -> Result<Cores, FamilyError> {
        let online = self.online()?;
        if let Some((counted, cores)) = &self.cores
            && *counted == online
        {
            return Ok(*cores);
        }
        let (mut physical, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        let mut without_topology = 0;
        for number in &online {
            let cpu = format!("devices/system/cpu/cpu{number}/topology");
            let topology = self.roots.sys.join(cpu);
            // Some virtual machines have no topology. Then each CPU counts as a core.
            let Some(core) = read_number(&topology.join("core_id")) else {
                without_topology += 1;
                continue;
            };
            let socket = read_number(&topology.join("physical_package_id")).unwrap_or_default();
            physical.insert((socket as i64, core as i64));
            sockets.insert(socket as i64);
        }
        let cores = Cores {
            logical: online.len(),
            physical: physical.len() + without_topology,
            sockets: sockets.len().max(1),
        };
        self.cores = Some((online, cores));
        Ok(cores)
    }

    /// Returns the numbers of the CPUs that are switched on.
    fn online(&self) -> Result<Vec<usize>, FamilyError> {
        let online = self.roots.sys.join("devices/system/cpu/online");
        let online = cpus(&read_text(&online).unwrap_or_default());
        if !online.is_empty() {
            return Ok(online);
        }
        // A container can lack the files in /sys. This file has a line for each CPU that is switched on.
        let stat = read_file(&self.roots.proc.join("stat"))?;
        let numbers = stat.lines().map_while(|line| line.strip_prefix("cpu"));
        let numbers: Vec<usize> = numbers
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        match numbers.is_empty() {
            true => Err(FamilyError::Absent),
            false => Ok(numbers),
        }
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

    fn machine(folder: &TempDir) -> Machine {
        Machine::new(Roots {
            proc: folder.path().into(),
            sys: folder.path().into(),
        })
    }

    /// Returns the lines with the numbers of cores, which have no boot id.
    fn cores(machine: &mut Machine) -> Vec<String> {
        let lines = lines_of(machine);
        let lines = lines
            .iter()
            .filter_map(|line| line.strip_prefix("boot_id= cpu_"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn cores_and_sockets_are_counted() {
        let folder = TempDir::new().unwrap();
        let cpu =
            |number: usize, file: &str| format!("devices/system/cpu/cpu{number}/topology/{file}");
        // Two processors with two cores each. The first has two threads in each core. The first core of the second is switched off.
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
        let online = "devices/system/cpu/online";
        write_files(folder.path(), &[(online, "0-3,5\n")]);
        let mut machine = machine(&folder);
        for _ in 0..2 {
            let expected = ["cores 5", "physical_cores 3", "sockets 2"];
            assert_eq!(cores(&mut machine), expected);
        }
        // The number of directories stays the same.
        write_files(folder.path(), &[(online, "0-5\n")]);
        let expected = ["cores 6", "physical_cores 4", "sockets 2"];
        assert_eq!(cores(&mut machine), expected);
        write_files(folder.path(), &[(online, "0-3\n")]);
        let expected = ["cores 4", "physical_cores 2", "sockets 1"];
        assert_eq!(cores(&mut machine), expected);
    }

    #[test]
    fn each_cpu_without_topology_is_a_core() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[(
                "stat",
                "cpu  9 9\ncpu0 1 2\ncpu1 1 2\ncpu7 1 2\nintr 5 cpu\n",
            )],
        );
        let mut machine = machine(&folder);
        let expected = ["cores 3", "physical_cores 3", "sockets 1"];
        assert_eq!(cores(&mut machine), expected);
        write_files(folder.path(), &[("devices/system/cpu/online", "0-1\n")]);
        let expected = ["cores 2", "physical_cores 2", "sockets 1"];
        assert_eq!(cores(&mut machine), expected);
    }

    #[test]
    fn this_host_is_read() {
        let lines = lines_of(&mut Machine::new(Roots::default()));
        assert_eq!(lines.len(), 6);
        let (memory, bytes) = lines[3].rsplit_once(' ').unwrap();
        assert!(memory.starts_with("boot_id=") && memory.ends_with(" memory_bytes"));
        assert!(bytes.parse::<f64>().unwrap() > 1e6, "{lines:?}");
        assert_eq!(lines[5], "scrape_error 0");
    }
}
