//! Reads the limits on processes and threads, and counts both by state. The snapshot counts the processes, too, but not the idle threads of the
//! kernel apart.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_number};
use crate::model::KernelRow;

/// The family. Sources: `/proc/sys/kernel`, and `/proc/<pid>/task` for a request that names the family.
pub(super) struct Processes(pub(super) Roots);

impl Family for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        self.read_limits(rows.add([]))
    }

    /// Also counts the threads. Each thread has a file of its own.
    fn read_by_name(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let counts = Counts::read(&self.0.proc)?;
        let row = rows.add([]);
        self.read_limits(row)?;
        row.figure("pids", counts.processes.values().sum::<u64>() as f64);
        row.figure("threads", counts.all_threads as f64);
        for (state, count) in &counts.processes {
            rows.add([("state", &state.to_string())])
                .figure("state", *count as f64);
        }
        for (state, count) in &counts.threads {
            rows.add([("thread_state", &state.to_string())])
                .figure("threads_state", *count as f64);
        }
        Ok(())
    }
}

impl Processes {
    fn read_limits(&self, row: &mut KernelRow) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("sys/kernel");
        for name in ["pid_max", "threads-max"] {
            let number = read_number(&folder.join(name)).ok_or(FamilyError::Absent)?;
            row.figure(name, number);
        }
        Ok(())
    }
}

/// The numbers of processes and threads, by the letter of their state.
#[derive(Default)]
struct Counts {
    processes: BTreeMap<char, u64>,
    threads: BTreeMap<char, u64>,
    /// The number of threads, as the processes tell it.
    all_threads: u64,
}

impl Counts {
    /// Counts the processes and threads. A process that ends during the reading is not counted.
    fn read(proc: &Path) -> Result<Self, FamilyError> {
        let mut counts = Self::default();
        for pid in names_in(proc)?.iter().filter(|name| is_number(name)) {
            let process = proc.join(pid);
            let Some(first) = Stat::read(&process) else {
                continue;
            };
            counts.all_threads += first.threads;
            *counts.processes.entry(first.state).or_default() += 1;
            *counts.threads.entry(first.state).or_default() += 1;
            if first.threads < 2 {
                continue;
            }
            let tasks = process.join("task");
            for thread in names_in(&tasks).unwrap_or_default() {
                // The first thread has the number of the process.
                if thread != *pid
                    && let Some(stat) = Stat::read(&tasks.join(&thread))
                {
                    *counts.threads.entry(stat.state).or_default() += 1;
                }
            }
        }
        Ok(counts)
    }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The fields of a file `stat` that this family uses.
struct Stat {
    state: char,
    threads: u64,
}

impl Stat {
    /// Reads the file `stat` in a folder. Returns none if the process has ended.
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join("stat")).ok()?;
        // The name of the process can contain any character, but no parenthesis comes after it.
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&text[close + 1..])
            .ok()?
            .split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(20 - 4)?.parse().ok()?;
        Some(Self { state, threads })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::read;
    use super::super::family::tests::{lines_of, write_files};
    use super::{Processes, Roots};
    use crate::model::KernelStatus;

    /// Returns the text of a file `stat`.
    fn stat(pid: u32, state: char, threads: u32) -> String {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0";
        format!("{pid} (a) b (c) {state} {rest} {threads} 0 9 10 11 12\n")
    }

    #[test]
    fn threads_are_counted_only_for_a_request_by_name() {
        let folder = TempDir::new().unwrap();
        let stats = [
            ("7/stat", stat(7, 'S', 1)),
            ("80/stat", stat(80, 'S', 3)),
            ("80/task/80/stat", stat(80, 'S', 3)),
            ("80/task/81/stat", stat(81, 'R', 3)),
            ("80/task/82/stat", stat(82, 'D', 3)),
            ("90/stat", "ended".to_owned()),
        ];
        let stats = stats.each_ref().map(|(path, text)| (*path, text.as_str()));
        write_files(folder.path(), &stats);
        let limits = [
            ("sys/kernel/pid_max", "123\n"),
            ("sys/kernel/threads-max", "7801\n"),
        ];
        write_files(folder.path(), &limits);
        let mut family = Processes(Roots {
            proc: folder.path().into(),
            ..Roots::default()
        });
        let limits = lines_of(&mut family);
        assert_eq!(limits, ["pid_max 123", "threads-max 7801"]);
        let named = read(&mut family, true);
        assert_eq!(named.status, KernelStatus::Read);
        let rows = named.rows.iter();
        let figures = rows.flat_map(|row| {
            let state = row.labels.first().map_or("", |(_, state)| state);
            row.figures
                .iter()
                .map(move |(name, count)| format!("{name} {state} {count}"))
        });
        let figures: Vec<String> = figures.collect();
        let expected = [
            "pid_max  123",
            "threads-max  7801",
            "pids  2",
            "threads  4",
            "state S 2",
            "threads_state D 1",
            "threads_state R 1",
            "threads_state S 2",
        ];
        assert_eq!(figures, expected);
    }
}
