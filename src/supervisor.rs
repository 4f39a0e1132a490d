//! Notifies systemd that the agent is ready, alive or stopping, and sends a status text.
//!
//! Uses the protocol of sd_notify(3): datagrams to the socket in `NOTIFY_SOCKET`. If the variable is not set, the agent sends
//! nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::{debug, warn};

/// The connection to the supervisor of the agent, usually systemd. If the socket of the supervisor is full, the message is
/// dropped, so that a slow supervisor never delays the agent.
#[derive(Debug, Default)]
pub struct Supervisor {
    at: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// Whether `READY=1` was sent. systemd stops an agent that does not send this message in time.
    is_ready: bool,
}

impl Supervisor {
    /// Reads the supervisor's socket and watchdog timeout from the environment variables of sd_notify(3). Without
    /// `NOTIFY_SOCKET`, the agent sends no messages.
    #[must_use]
    pub fn from_env(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let at = variable("NOTIFY_SOCKET").and_then(|path| {
            reach(&path)
                .inspect_err(|error| warn!(%error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let applies = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| applies && *usec > 0);
        Self {
            watchdog: watchdog.filter(|_| at.is_some()).map(Duration::from_micros),
            at,
            is_ready: false,
        }
    }

    /// Returns the interval of keep-alive messages: half of the watchdog's timeout. Returns none if there is no watchdog.
    #[must_use]
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// Notifies the supervisor that the agent is ready. The agent is ready when it listens and has a snapshot. Does nothing if
    /// this message was already sent.
    pub fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = self.notify("READY=1");
        }
    }

    /// Sends a keep-alive message to the watchdog.
    pub fn alive(&self) {
        self.notify("WATCHDOG=1");
    }

    /// Notifies the supervisor that the agent is stopping.
    pub fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// Sends one line of text about the state of the agent. `systemctl status` shows this line.
    pub fn status(&self, status: impl FnOnce() -> String) {
        if self.at.is_some() {
            self.notify(&format!("STATUS={}", status().replace('\n', " ")));
        }
    }

    /// Sends a message. Returns whether the message was sent.
    fn notify(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.at else {
            return false;
        };
        // Sends to the path each time and opens no connection, because the supervisor can replace its socket.
        let sent = socket.send_to_addr(message.as_bytes(), address);
        if let Err(error) = &sent {
            debug!(%error, message, "message to the supervisor not sent");
        }
        sent.is_ok()
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
    fn the_supervisor_gets_all_messages_and_never_blocks_the_agent() {
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
        // A supervisor that does not read its socket blocks no call.
        for _ in 0..10_000 {
            supervisor.alive();
        }
    }

    #[test]
    fn a_watchdog_for_another_process_or_without_a_timeout_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let own = std::process::id().to_string();
        for (pid, usec, applies) in [(&*own, "10", true), ("1", "10", false), (&*own, "0", false)] {
            let variables = [
                ("NOTIFY_SOCKET", path),
                ("WATCHDOG_USEC", usec),
                ("WATCHDOG_PID", pid),
            ];
            assert_eq!(supervisor(&variables).alive_every().is_some(), applies);
        }
        assert!(
            supervisor(&[("WATCHDOG_USEC", "10")])
                .alive_every()
                .is_none()
        );
    }
}
