//! OpenSSL's own client: a TLS implementation that is not the agent's.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::{Lines, PATIENCE, schema, wait};

/// A running `openssl s_client`. Dropping it kills it.
pub(crate) struct OpenSsl {
    child: Child,
    stdin: ChildStdin,
    received: Lines,
    log: Lines,
    read: usize,
}

impl OpenSsl {
    /// Connects, with further options of `s_client`.
    pub(crate) fn connect(address: SocketAddr, options: &[impl AsRef<OsStr>]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-brief", "-ign_eof", "-connect"])
            .arg(address.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        Self {
            stdin: child.stdin.take().expect("piped"),
            received: Lines::collect(child.stdout.take().expect("piped")),
            log: Lines::collect(child.stderr.take().expect("piped")),
            read: 0,
            child,
        }
    }

    /// Sends bytes through the tunnel once it stands; they are lost if it never does.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stdin.write_all(bytes.as_ref());
    }

    /// The next line received, or `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let line = self
            .received
            .find(self.read, PATIENCE, |line| Some(line.to_owned()));
        self.read += 1;
        line
    }

    /// The next snapshot, validated against the schema.
    pub(crate) fn snapshot(&mut self) -> Value {
        let line = self.line();
        schema::snapshot(&line.unwrap_or_else(|| panic!("no snapshot: {:#?}", self.log.all())))
    }

    /// Waits until openssl says this on its standard error; yields the whole line.
    pub(crate) fn says(&self, text: &str) -> String {
        let said = |line: &str| line.contains(text).then(|| line.to_owned());
        let said = self.log.find(0, PATIENCE, said);
        said.unwrap_or_else(|| panic!("not {text:?}: {:#?}", self.log.all()))
    }

    /// Has it say good-bye and end, which it does where `-no_ign_eof` was given.
    pub(crate) fn end(mut self) {
        self.send("Q\n");
        let child = &mut self.child;
        let ended = || child.try_wait().expect("a child of ours");
        wait::until("the end of openssl", PATIENCE, ended);
    }

    /// Waits for its end; what it received, and its exit status.
    pub(crate) fn finish(mut self) -> (Vec<String>, ExitStatus) {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("a child of ours");
        let status = wait::until("the end of openssl", PATIENCE, ended);
        assert!(self.received.ended(PATIENCE));
        (self.received.all(), status)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
