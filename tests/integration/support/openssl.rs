//! OpenSSL's command line client. Tests use it because OpenSSL is another implementation of TLS than the agent's own (rustls).

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::{DEADLINE, Lines, schema, wait};

/// A running `openssl s_client`. Killed on drop.
pub(crate) struct OpenSsl {
    child: Child,
    stdin: ChildStdin,
    received: Lines,
    log: Lines,
    read: usize,
}

impl OpenSsl {
    /// Connects with these additional options of `s_client`.
    pub(crate) fn connect(address: SocketAddr, options: &[impl AsRef<OsStr>]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-brief", "-ign_eof", "-connect"])
            .arg(address.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start openssl");
        Self {
            stdin: child.stdin.take().expect("the output is not piped"),
            received: Lines::collect(child.stdout.take().expect("the output is not piped")),
            log: Lines::collect(child.stderr.take().expect("the output is not piped")),
            read: 0,
            child,
        }
    }

    /// Sends bytes after the TLS handshake. The bytes are lost if the handshake fails.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stdin.write_all(bytes.as_ref());
    }

    /// The next line from the agent, or `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let line = self
            .received
            .find(self.read, DEADLINE, |line| Some(line.to_owned()));
        self.read += 1;
        line
    }

    /// The next snapshot, validated against the schema.
    pub(crate) fn snapshot(&mut self) -> Value {
        let line = self.line();
        schema::snapshot(
            &line.unwrap_or_else(|| panic!("no snapshot; openssl says: {:#?}", self.log.all())),
        )
    }

    /// Waits for a line with this text on openssl's standard error. Returns the whole line.
    pub(crate) fn says(&self, text: &str) -> String {
        let found = |line: &str| line.contains(text).then(|| line.to_owned());
        let found = self.log.find(0, DEADLINE, found);
        found.unwrap_or_else(|| panic!("no line with {text:?}: {:#?}", self.log.all()))
    }

    /// Makes openssl close the connection and exit. This works only with the option `-no_ign_eof`.
    pub(crate) fn end(mut self) {
        self.send("Q\n");
        let child = &mut self.child;
        let ended = || child.try_wait().expect("cannot wait for openssl");
        wait::until("the end of openssl", DEADLINE, ended);
    }

    /// Waits until openssl exits. Returns the lines from the agent and the exit status.
    pub(crate) fn finish(mut self) -> (Vec<String>, ExitStatus) {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("cannot wait for openssl");
        let status = wait::until("the end of openssl", DEADLINE, ended);
        assert!(self.received.ended(DEADLINE));
        (self.received.all(), status)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
