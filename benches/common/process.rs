//! Processes that the benchmark starts, and how they end.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::engine;
use super::load::tree;

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Those that run now: a signal ends them, too.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A process of ours. Ended on drop, with all that it has started.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts it without input.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// Starts it with the machine's own engine, whatever the environment points Docker's clients at.
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
        self.0.try_wait().expect("a child of ours").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            // Its id may be another's by now.
            RUNNING.lock().unwrap().retain(|&pid| pid != self.pid());
            return;
        }
        let all = tree(self.pid());
        send(self.pid(), Signal::TERM);
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
        RUNNING.lock().unwrap().retain(|&pid| pid != self.pid());
        // What a daemon has started may outlive it.
        let orphans = all.iter().filter(|&&pid| pid != self.pid());
        orphans.for_each(|&pid| send(pid, Signal::KILL));
    }
}

/// Sends a signal to a process of ours; one that has ended is none.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("the id of a process"), signal);
}

/// At SIGINT and SIGTERM ends what was started, removes the containers, and exits.
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
        eprintln!("removing what was started");
        RUNNING
            .lock()
            .unwrap()
            .iter()
            .for_each(|&pid| send(pid, Signal::TERM));
        engine::remove_containers();
        std::process::exit(code);
    });
}
