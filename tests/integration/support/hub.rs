//! A NATS server (Debian's `nats-server`) on the loopback interface, for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{DEADLINE, net, wait};

/// A running server. Killed on drop. A test can kill the server earlier and start it again.
pub(crate) struct Hub {
    port: u16,
    environment: Vec<(String, String)>,
    directory: TempDir,
    process: Option<Child>,
}

impl Hub {
    /// Starts a server on a free port with these additional lines of configuration.
    pub(crate) fn start(configuration: &str) -> Self {
        let port = net::free_port();
        let listen = format!("listen: \"127.0.0.1:{port}\"\n");
        Self::configured(port, &format!("{listen}{configuration}"), &[])
    }

    /// Starts a server with this whole configuration and this environment. The configuration must name the same port.
    pub(crate) fn configured(port: u16, configuration: &str, environment: &[(&str, &str)]) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let mut hub = Self {
            port,
            environment: environment.iter().map(owned).collect(),
            directory: tempfile::tempdir().unwrap(),
            process: None,
        };
        hub.file("hub.conf", configuration);
        hub.run();
        hub
    }

    /// Starts the server, again on the same port.
    pub(crate) fn run(&mut self) {
        let path = std::env::var("PATH").unwrap_or_default();
        let log = fs::File::create(self.path().join("hub.log")).unwrap();
        let child = Command::new("nats-server")
            // nats-server is in sbin, which is not in every user's PATH.
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin"))
            .envs(self.environment.iter().cloned())
            .arg("--config")
            .arg(self.path().join("hub.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cannot start nats-server (Debian package nats-server)");
        self.process = Some(child);
        let listens = || net::listens(self.port).then_some(());
        if wait::within(DEADLINE, listens).is_none() {
            panic!("nats-server does not listen. Its log:\n{}", self.log());
        }
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The directory of the server's files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into the directory of the server's files.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The server's log since its newest start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("hub.log")).unwrap()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
    }
}
