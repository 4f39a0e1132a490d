//! Processes that cause a known load.

use std::process::{Child, Command, Stdio};

use super::{DEADLINE, kernel, wait};

/// A process named `sh` that keeps one core busy. Ended on drop.
pub(crate) struct Busy {
    child: Child,
}

impl Busy {
    /// Starts the process and waits until it has used 0.1 s of CPU time. `nice` gives the process the highest priority, if the
    /// user may do that. With this priority the process gets a whole core even on a busy machine.
    pub(crate) fn start() -> Self {
        Self::with_niceness("-20")
    }

    /// Starts the process with a low priority, so that it takes little CPU time from the agent and the test.
    pub(crate) fn in_background() -> Self {
        Self::with_niceness("10")
    }

    fn with_niceness(niceness: &str) -> Self {
        let child = Command::new("nice")
            .args(["-n", niceness, "sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start nice and sh");
        let busy = Self { child };
        let warm = || (kernel::cpu_seconds(busy.pid()) > 0.1).then_some(());
        wait::until("a busy process", DEADLINE, warm);
        busy
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Many idle processes. Each process adds an entry to the list of processes.
pub(crate) struct Idle {
    children: Vec<Child>,
}

impl Idle {
    /// Starts `count` processes.
    pub(crate) fn start(count: usize) -> Self {
        let sleep = || {
            Command::new("sleep")
                .arg("3600")
                .spawn()
                .expect("cannot start sleep")
        };
        let children = (0..count).map(|_| sleep()).collect();
        Self { children }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}
