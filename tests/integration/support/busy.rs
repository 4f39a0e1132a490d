//! Processes whose load is known.

use std::process::{Child, Command, Stdio};

use super::{PATIENCE, kernel, wait};

/// A process named `sh` that keeps one core busy until it is dropped.
pub(crate) struct Busy {
    child: Child,
}

impl Busy {
    /// Starts it and waits until it has kept a core busy for a moment. It is given precedence where that is
    /// permitted, so that it gets a whole core on a machine that has more to do.
    pub(crate) fn start() -> Self {
        let child = Command::new("nice")
            .args(["-n", "-20", "sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nice and sh");
        let busy = Self { child };
        let warm = || (kernel::cpu_seconds(busy.pid()) > 0.1).then_some(());
        wait::until("a busy process", PATIENCE, warm);
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

/// Many processes that do nothing: each adds its entry to a long list of processes.
pub(crate) struct Idle {
    children: Vec<Child>,
}

impl Idle {
    /// Starts `count` of them.
    pub(crate) fn start(count: usize) -> Self {
        let sleep = || Command::new("sleep").arg("3600").spawn().expect("sleep");
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
