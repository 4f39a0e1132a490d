//! Another program that ships log lines: rsyslog, which reads Docker's log files with its module imfile.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::common::engine::docker;
use crate::common::process::Process;

/// Debian installs daemons in sbin, which is not in every PATH.
const PLACES: &str = ":/usr/sbin:/sbin";

/// A running rsyslogd that writes the lines of all containers to a file.
pub(crate) struct Rsyslog {
    pub(crate) process: Process,
    folder: TempDir,
}

impl Rsyslog {
    /// Starts rsyslogd. It reads no earlier lines. `None` if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file).display().to_string();
        let root = docker(&["info", "--format", "{{.DockerRootDir}}"]);
        let configuration = format!(
            "global(workDirectory=\"{}\")\n\
             module(load=\"imfile\" mode=\"inotify\")\n\
             template(name=\"text\" type=\"string\" string=\"%msg%\\n\")\n\
             input(type=\"imfile\" file=\"{root}/containers/*/*-json.log\" tag=\"docker\" freshStartTail=\"on\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"text\")\n",
            folder.path().display(),
            path("lines")
        );
        fs::write(path("rsyslog.conf"), configuration).unwrap();
        let mut daemon = Command::new("rsyslogd");
        daemon
            .env("PATH", std::env::var("PATH").unwrap_or_default() + PLACES)
            .args(["-n", "-f", &path("rsyslog.conf"), "-i", &path("pid")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::start(&mut daemon).ok()?;
        Some(Self { process, folder })
    }

    /// The number of lines that it has delivered.
    pub(crate) fn lines(&self) -> u64 {
        let written = fs::read(self.folder.path().join("lines")).unwrap_or_default();
        memchr::memchr_iter(b'\n', &written).count() as u64
    }
}
