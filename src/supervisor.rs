//! What systemd is told: that the agent is ready, alive, stopping, and how it is.
//!
//! By sd_notify(3)'s protocol: datagrams to the socket in `NOTIFY_SOCKET`. With no such variable nobody is told anything.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::{debug, warn};

/// Whoever started the agent and watches over it. A message that it has no room for is dropped: it never holds up the agent.
#[derive(Debug, Default)]
pub struct Supervisor {
    at: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// Whether it was told that the agent is ready: else it would end the agent after a while.
    is_ready: bool,
}

impl Supervisor {
    /// The one that the environment names, if it names one.
    #[must_use]
    pub fn from_env(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let at = variable("NOTIFY_SOCKET").and_then(|path| {
            reach(&path)
                .inspect_err(|error| warn!(%error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0);
        Self {
            watchdog: watchdog.filter(|_| at.is_some()).map(Duration::from_micros),
            at,
            is_ready: false,
        }
    }

    /// How often it wants to hear that the agent is alive, if it does: twice as often as it would lose patience.
    #[must_use]
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }

    /// The agent listens, and has a snapshot. Told until it is heard.
    pub fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = self.tell("READY=1");
        }
    }

    /// The agent publishes.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The agent will end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line about how the agent is.
    pub fn status(&self, status: impl FnOnce() -> String) {
        if self.at.is_some() {
            self.tell(&format!("STATUS={}", status().replace('\n', " ")));
        }
    }

    /// Whether it was told.
    fn tell(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.at else {
            return false;
        };
        // By its name each time: it may have been made anew.
        let told = socket.send_to_addr(message.as_bytes(), address);
        if let Err(error) = &told {
            debug!(%error, message, "supervisor not told");
        }
        told.is_ok()
    }
}

fn reach(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::Supervisor;

    fn supervisor(variables: &[(&str, &str)]) -> Supervisor {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Supervisor::from_env(|name| variables.get(name).map(OsString::from))
    }

    #[test]
    fn the_supervisor_hears_what_it_wants_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let mut supervisor = supervisor(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "3000000")]);
        assert_eq!(supervisor.alive_every(), Some(Duration::from_millis(1500)));
        supervisor.ready();
        supervisor.ready();
        supervisor.status(|| "two\nlines".to_owned());
        supervisor.alive();
        supervisor.stopping();
        let expected = ["READY=1", "STATUS=two lines", "WATCHDOG=1", "STOPPING=1"];
        for expected in expected {
            let mut message = [0; 64];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], expected.as_bytes());
        }
        // One that does not read holds nobody up.
        for _ in 0..10_000 {
            supervisor.alive();
        }
    }

    #[test]
    fn a_watchdog_is_meant_for_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let own = std::process::id().to_string();
        for (pid, usec, meant) in [(&*own, "10", true), ("1", "10", false), (&*own, "0", false)] {
            let variables = [
                ("NOTIFY_SOCKET", path),
                ("WATCHDOG_USEC", usec),
                ("WATCHDOG_PID", pid),
            ];
            assert_eq!(supervisor(&variables).alive_every().is_some(), meant);
        }
        assert!(
            supervisor(&[("WATCHDOG_USEC", "10")])
                .alive_every()
                .is_none()
        );
    }
}
