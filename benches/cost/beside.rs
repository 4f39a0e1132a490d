//! Compares the agent with the floor and with Beszel's agent. All of them run at the same time, so a disturbance affects all, and the CPU
//! times are those of the clocks of the processes, in nanoseconds.
//!
//! The floor is a program that in each round only lists `/proc`, reads the file `stat` of every process, and reads every other file that
//! the agent keeps open. Of a log file, it reads what was added. It parses nothing and sends nothing. The agent itself does not read
//! idle processes in every round, so its cost can be lower.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::WARM_UP;
use crate::agent::Agent;
use crate::common::agent::{as_installed, free_port};
use crate::common::bars::Bars;
use crate::floor;
use crate::host;
use crate::load::{anonymous_mib, cpu_seconds, median, rss_mib};
use crate::plan::Plan;
use crate::process::Process;

/// The agent's default interval.
const INTERVAL: Duration = Duration::from_secs(5);
/// Size of the buffer for a file's text.
const BUFFER: usize = 64 * 1024;
/// Timeout for the start of Beszel's agent.
const TIMEOUT: Duration = Duration::from_secs(20);
/// With more containers than this, the agent gets fewer [`CLIENTS`] than by default, so that a limit of 20,000 open files allows it
/// to keep the files of 1,000 containers open.
const MANY: usize = 500;
const CLIENTS: (&str, &str) = ("MAX_CLIENTS", "100");
/// The number of processes on the host, without containers.
const PROCESSES: usize = 300;

/// One of the programs that run at the same time.
struct Program {
    name: &'static str,
    pid: u32,
    /// For each window: CPU time in seconds per minute, and context switches per second. A context switch follows each time that a
    /// thread wakes up.
    cpu: Vec<f64>,
    switches: Vec<f64>,
}

/// Runs the comparison and prints the result.
pub(crate) fn compare(plan: &Plan, count: usize, bars: &mut Bars) {
    eprintln!("measuring: the agent beside the floor");
    let _processes = (count == 0).then(|| host::Idle::to(PROCESSES));
    let settings: &[_] = if count > MANY { &[CLIENTS] } else { &[] };
    let root = Agent::start(plan, count, settings);
    let installed = Agent::start_by(as_installed(&plan.agent), count, settings);
    // The agent opens the files of all containers in its first rounds.
    thread::sleep(WARM_UP);
    let mut floor = Command::new(std::env::current_exe().unwrap());
    floor.args(["reading", &root.pid().to_string()]);
    let floor = Process::start(&mut floor).expect("cannot start this program");
    let beszel = plan.beszel.as_deref().map(Beszel::start).transpose();
    let beszel = beszel.unwrap_or_else(|error| {
        println!("\nNOTE: Beszel's agent is not measured: {error}");
        None
    });
    let mut programs = vec![
        Program::new("System Agent", root.pid()),
        Program::new("System Agent as installed", installed.pid()),
        Program::new("the floor", floor.pid()),
    ];
    programs.extend(
        beszel
            .as_ref()
            .map(|beszel| Program::new("Beszel's agent, asked each 5 s", beszel.agent.pid())),
    );
    thread::sleep(WARM_UP + INTERVAL);
    for _ in 0..plan.windows {
        let before: Vec<_> = programs.iter().map(Program::now).collect();
        thread::sleep(plan.window);
        for (program, before) in programs.iter_mut().zip(before) {
            program.add(before, plan.window);
        }
    }
    println!(
        "\n| at the same time | own CPU s/min | CPU over the floor's | switches/s | RSS MiB | anonymous MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let floor_cpu = median(&programs[2].cpu);
    for program in &programs {
        let cpu = median(&program.cpu);
        println!(
            "| {} | {cpu:.3} | {:.2} | {:.1} | {:.1} | {:.1} |",
            program.name,
            cpu / floor_cpu,
            median(&program.switches),
            rss_mib(&[program.pid]),
            anonymous_mib(&[program.pid])
        );
    }
    check(&programs, count, bars);
}

fn check(programs: &[Program], count: usize, bars: &mut Bars) {
    let [root, installed, floor, beszel @ ..] = programs else {
        return;
    };
    // Each window has a ratio of its own, because a disturbance affects all programs in it.
    let ratio = |one: &Program, other: &Program| {
        let pairs = one.cpu.iter().zip(&other.cpu);
        median(&pairs.map(|(one, other)| one / other).collect::<Vec<_>>())
    };
    for (agent, way) in [(root, "as root"), (installed, "as installed")] {
        if count == 0 {
            let what = format!("own CPU {way}, 0 containers, at least {PROCESSES} processes");
            bars.at_most(&what, median(&agent.cpu), 0.02, "s/min");
            let what = format!("context switches {way}, 0 containers");
            bars.at_most(&what, median(&agent.switches), 3.0, "a second");
            continue;
        }
        let what = format!("own CPU {way} over the floor's, {count} containers");
        bars.at_most(&what, ratio(agent, floor), 1.2, "×");
        for beszel in beszel {
            let what = format!("own CPU {way} over that of Beszel's agent, {count} containers");
            bars.at_most(&what, ratio(agent, beszel), 0.6, "×");
        }
        if count == 100 {
            let what = format!("anonymous memory {way}, {count} containers");
            bars.at_most(&what, anonymous_mib(&[agent.pid]), 3.5, "MiB");
        }
    }
}

impl Program {
    fn new(name: &'static str, pid: u32) -> Self {
        Self {
            name,
            pid,
            cpu: Vec::new(),
            switches: Vec::new(),
        }
    }

    /// The CPU time in seconds and the number of context switches until now.
    fn now(&self) -> (f64, u64) {
        (cpu_seconds(self.pid), switches(self.pid))
    }

    /// Adds a window that began with `before`.
    fn add(&mut self, before: (f64, u64), window: Duration) {
        let (cpu, switches) = self.now();
        let seconds = window.as_secs_f64();
        self.cpu.push((cpu - before.0) / seconds * 60.0);
        // A thread that has ended takes its switches with it.
        let switches = switches.saturating_sub(before.1);
        self.switches.push(switches as f64 / seconds);
    }
}

/// The number of context switches of all threads of a process.
fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process has ended");
    let of_thread = |thread: io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        let lines = status
            .lines()
            .filter(|line| line.contains("ctxt_switches:"));
        Some(
            lines
                .filter_map(|line| line.split_once(':')?.1.trim().parse::<u64>().ok())
                .sum::<u64>(),
        )
    };
    threads.filter_map(of_thread).sum()
}

/// Runs in the process of the floor. Reads the same files as the agent `agent`, until the process is killed.
pub(crate) fn run(agent: &str) {
    floor::raise_file_limit();
    let folder = Path::new("/proc").join(agent).join("fd");
    let links = fs::read_dir(folder).expect("the agent has ended");
    let kept = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let is_file = |path: &PathBuf| path.starts_with("/proc/") || path.starts_with("/sys/");
    let (of_kernel, others): (Vec<_>, Vec<_>) = kept.partition(is_file);
    // Files of processes are opened by `Stats`.
    let of_kernel = of_kernel
        .iter()
        .filter(|path| !path.ends_with("stat") || path.starts_with("/proc/stat"));
    let mut of_kernel: Vec<File> = of_kernel.filter_map(|path| File::open(path).ok()).collect();
    let is_log = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "log");
    let logs = others
        .iter()
        .filter(is_log)
        .filter_map(|path| File::open(path).ok());
    let mut logs: Vec<(File, u64)> = logs
        .map(|log| {
            let length = log.metadata().expect("a log has no length").len();
            (log, length)
        })
        .collect();
    let mut stats = Stats::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        stats.read(&mut buffer);
        // The file of a process that has ended cannot be read any more.
        of_kernel.retain(|file| file.read_at(&mut buffer, 0).is_ok());
        for (log, length) in &mut logs {
            let now = log.metadata().expect("a log has no length").len();
            let added = usize::try_from(now.saturating_sub(*length)).unwrap_or(BUFFER);
            let _ = log.read_at(&mut buffer[..added.min(BUFFER)], *length);
            *length = now;
        }
        thread::sleep(INTERVAL);
    }
}

/// The files `stat` of all processes.
#[derive(Default)]
struct Stats(HashMap<u32, File>);

impl Stats {
    fn read(&mut self, buffer: &mut [u8]) {
        let mut found = HashMap::with_capacity(self.0.len());
        for entry in fs::read_dir("/proc").expect("cannot read /proc").flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let kept = self.0.remove(&pid);
            let kept = kept.filter(|file| file.read_at(buffer, 0).is_ok());
            let file = kept.or_else(|| {
                let file = File::open(format!("/proc/{pid}/stat")).ok()?;
                file.read_at(buffer, 0).is_ok().then_some(file)
            });
            found.extend(file.map(|file| (pid, file)));
        }
        self.0 = found;
    }
}

/// Beszel's agent, and a client that asks it as Beszel's hub does.
pub(crate) struct Beszel {
    pub(crate) agent: Process,
    _client: Process,
    _folder: TempDir,
}

impl Beszel {
    /// Starts the program `program`.
    ///
    /// # Errors
    /// Fails if a program cannot be started, or if the client gets no answer. The text is the reason.
    pub(crate) fn start(program: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let key = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status()
            .map_err(|error| format!("ssh-keygen: {error}"))?;
        if !made.success() {
            return Err("ssh-keygen failed".to_owned());
        }
        let public =
            fs::read_to_string(key.with_extension("pub")).map_err(|error| error.to_string())?;
        let port = free_port();
        let mut command = Command::new(program);
        command
            .env("KEY", public.trim())
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("DATA_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = |error: io::Error| format!("{}: {error}", program.display());
        let mut agent = Process::start(&mut command).map_err(started)?;
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if agent.has_ended() || begun.elapsed() > TIMEOUT {
                return Err("it does not listen".to_owned());
            }
            thread::sleep(Duration::from_millis(100));
        }
        let mut command = Command::new("target/bench/beszel-client/bin/python3");
        command
            .arg("benches/cost/beszel.py")
            .arg(port.to_string())
            .arg(&key)
            .stdout(Stdio::piped());
        let mut client =
            Process::start(&mut command).map_err(|error| format!("its client: {error}"))?;
        let mut answers = BufReader::new(client.0.stdout.take().unwrap());
        let mut answer = String::new();
        let read = answers.read_line(&mut answer);
        if !read.is_ok_and(|length| length > 0) {
            return Err("its client got no answer".to_owned());
        }
        // Reads the other answers, so that the client never waits.
        thread::spawn(move || for _ in answers.lines() {});
        Ok(Self {
            agent,
            _client: client,
            _folder: folder,
        })
    }
}
