//! The busiest processes, and the agent among them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::messages::AgentUsage;
use crate::model::{TopProcess, figure};

/// The engine's processes: one each, and a shim per container (`containerd-shim-runc-v2`, of which
/// the kernel keeps 15 bytes).
const ENGINE: [&[u8]; 2] = [b"dockerd", b"containerd"];
const SHIM: &[u8] = b"containerd-shim";

/// What is kept of each process between two readings.
///
/// CPU is the difference of `utime` + `stime`, not sysinfo's own percentage, which stays at 0
/// for a process that had used no CPU at the reading before.
pub(super) struct Processes {
    listed: usize,
    agent: Pid,
    cpu_times: HashMap<Pid, CpuTime>,
    /// When they were read: the middle of the pass over `/proc`. None before the first.
    read_at: Option<Instant>,
}

/// A process's CPU time; the start tells a process from a later one with the same id.
#[derive(Clone, Copy)]
struct CpuTime {
    started: u64,
    used_ms: u64,
}

/// The outcome of a reading.
pub(super) struct Busiest {
    pub(super) top: Vec<TopProcess>,
    pub(super) agent: AgentUsage,
}

impl Processes {
    /// Lists the `listed` busiest.
    pub(super) fn new(listed: usize) -> Self {
        Self {
            listed,
            agent: Pid::from_u32(std::process::id()),
            cpu_times: HashMap::new(),
            read_at: None,
        }
    }

    /// Reads all processes, or only the agent where none are listed, and compares them with the
    /// reading before. Refreshes the host's CPU as well, which sysinfo needs for it.
    pub(super) fn refresh(&mut self, system: &mut System) -> Busiest {
        let agent = [self.agent];
        let wanted = if self.listed > 0 {
            ProcessesToUpdate::All
        } else {
            ProcessesToUpdate::Some(&agent)
        };
        let started = Instant::now();
        system.refresh_processes_specifics(
            wanted,
            true,
            ProcessRefreshKind::nothing()
                .with_cpu()
                .with_memory()
                .without_tasks(),
        );
        let read_at = started + started.elapsed() / 2;
        let elapsed = self
            .read_at
            .map_or(0.0, |before| (read_at - before).as_secs_f64());
        let mut cpu_times = HashMap::with_capacity(system.processes().len());
        let mut usages: Vec<(f64, Pid, &Process)> = Vec::with_capacity(cpu_times.capacity());
        for (&pid, process) in system.processes() {
            let time = CpuTime {
                started: process.start_time(),
                used_ms: process.accumulated_cpu_time(),
            };
            // One that was there before, but was missed, has nothing to be compared with.
            let is_new = process.run_time() as f64 <= elapsed + 1.0;
            usages.push((self.percent(pid, time, is_new, elapsed), pid, process));
            cpu_times.insert(pid, time);
        }
        self.cpu_times = cpu_times;
        self.read_at = Some(read_at);

        let agent = usages
            .iter()
            .find(|(_, pid, _)| *pid == self.agent)
            .map(|(cpu, _, process)| AgentUsage {
                cpu_percent: figure(*cpu, 2),
                engine_cpu_percent: engine_percent(&usages),
                memory_rss: process.memory(),
            })
            .unwrap_or_default();
        let total = system.total_memory();
        let top = busiest(usages, self.listed)
            .into_iter()
            .map(|(cpu, pid, process)| TopProcess {
                name: process.name().to_string_lossy().into_owned(),
                cpu: figure(cpu, 2),
                mem: figure(share(process.memory(), total), 2),
                pid: pid.as_u32(),
            })
            .collect();
        Busiest { top, agent }
    }

    /// A process that started since the last reading, `elapsed` seconds ago, is measured from its
    /// start.
    fn percent(&self, pid: Pid, now: CpuTime, is_new: bool, elapsed: f64) -> f64 {
        let before = self
            .cpu_times
            .get(&pid)
            .filter(|before| before.started == now.started)
            .map_or(if is_new { 0 } else { now.used_ms }, |before| {
                before.used_ms
            });
        // Before the first reading there is nothing that a difference could be taken of.
        if elapsed <= 0.0 {
            return 0.0;
        }
        now.used_ms.saturating_sub(before) as f64 / 10.0 / elapsed
    }
}

/// The `listed` highest, highest first; at equal CPU the larger memory, then the older process.
fn busiest(mut usages: Vec<(f64, Pid, &Process)>, listed: usize) -> Vec<(f64, Pid, &Process)> {
    let order = |a: &(f64, Pid, &Process), b: &(f64, Pid, &Process)| -> Ordering {
        b.0.total_cmp(&a.0)
            .then_with(|| b.2.memory().cmp(&a.2.memory()))
            .then_with(|| a.1.cmp(&b.1))
    };
    if listed < usages.len() {
        usages.select_nth_unstable_by(listed, order);
        usages.truncate(listed);
    }
    usages.sort_unstable_by(order);
    usages
}

/// CPU of all the engine's processes together; none where no such process is visible.
fn engine_percent(usages: &[(f64, Pid, &Process)]) -> Option<f64> {
    let engine = |process: &Process| {
        let name = process.name().as_encoded_bytes();
        ENGINE.contains(&name) || name.starts_with(SHIM)
    };
    usages
        .iter()
        .filter(|(_, _, process)| engine(process))
        .map(|(cpu, _, _)| *cpu)
        .reduce(|sum, cpu| sum + cpu)
        .map(|sum| figure(sum, 2))
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 100.0
    }
}
