//! Starts processes for the benchmark, and ends them.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::engine;
use super::load::tree;

/// Timeout for a process to exit after SIGTERM.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The ids of the running processes, for the cleanup after a signal.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A process that the benchmark started. On drop, the process and all its descendants end.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts the process without input.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// Starts the process. Removes Docker's variables from the environment, so that the process uses the machine's own engine.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .spawn()?;
        RUNNING.lock().unwrap().push(child.id());
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0
            .try_wait()
            .expect("the process is not a child of this process")
            .is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            // The process has ended, so the kernel can already have given the process id to another process. That process must
            // not get a signal.
            RUNNING.lock().unwrap().retain(|&pid| pid != self.pid());
            return;
        }
        let all = tree(self.pid());
        send(self.pid(), Signal::TERM);
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
        RUNNING.lock().unwrap().retain(|&pid| pid != self.pid());
        // A descendant can still run after its parent has ended.
        let orphans = all.iter().filter(|&&pid| pid != self.pid());
        orphans.for_each(|&pid| send(pid, Signal::KILL));
    }
}

/// Sends a signal to a process. Does nothing if the process has ended.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("the process id is invalid"), signal);
}

/// On SIGINT or SIGTERM, ends all started processes, removes the containers and exits.
pub(crate) fn clean_up_at_signals() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || {
        let code = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).unwrap();
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! { _ = interrupt.recv() => 130, _ = terminate.recv() => 143 }
        });
        eprintln!("ending processes and removing containers");
        RUNNING
            .lock()
            .unwrap()
            .iter()
            .for_each(|&pid| send(pid, Signal::TERM));
        engine::remove_containers();
        std::process::exit(code);
    });
}
