//! Real snapshots of two sizes. Many processes make the small snapshot, and containers with logs make the large snapshot.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::common::agent::{self, KEY, TIMEOUT};
use crate::common::engine::{remove_containers, start_containers};
use crate::plan::Plan;
use crate::process::Process;

/// This number of processes makes a snapshot of 20 KB.
const PROCESSES: usize = 120;
const TOP_PROCESSES: &str = "95";
/// With fifty containers and about a hundred characters per log line, this makes a snapshot of 500 KB.
const LINES: &str = "100";
/// Minimum age of a container that is measured. The status of a container younger than a minute shows seconds, so the agent
/// requests the container list every second.
const YOUNG: Duration = Duration::from_secs(70);

/// The benchmark measures the fan-out only, so the sources are read once, at the start.
const ONCE: [(&str, &str); 3] = [
    ("SYSTEM_INTERVAL", "1h"),
    ("DOCKER_INTERVAL", "1h"),
    ("LOG_INTERVAL", "1h"),
];

/// Snapshots of one size. On drop, the processes or containers that the snapshots show end.
pub(crate) struct Kind {
    /// The agent's settings for snapshots of this size.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// The file with a recorded snapshot.
    pub(crate) recorded: PathBuf,
    /// The length of the recorded snapshot.
    pub(crate) bytes: usize,
    _shows: Shown,
}

/// The content of the snapshots.
enum Shown {
    Processes { _idle: Process },
    Containers,
}

impl Kind {
    /// Snapshots of about 20 KB, with idle processes.
    pub(crate) fn small(plan: &Plan) -> Self {
        let settings = [
            ("DOCKER_ENABLED", "false"),
            ("TOP_PROCESSES", TOP_PROCESSES),
        ];
        let shows = Shown::Processes {
            _idle: idle_processes(),
        };
        Self::record(plan, "small", &settings, shows)
    }

    /// Snapshots of about 500 KB, with the logs of containers.
    pub(crate) fn large(plan: &Plan) -> Self {
        eprintln!("starting {} containers", plan.containers);
        let shows = Shown::Containers;
        start_containers(plan.containers, &[], &lines_of_a_server());
        thread::sleep(YOUNG);
        Self::record(plan, "large", &[("LOG_LINES", LINES)], shows)
    }

    fn record(
        plan: &Plan,
        name: &str,
        settings: &[(&'static str, &'static str)],
        shows: Shown,
    ) -> Self {
        let settings = [&ONCE[..], settings].concat();
        let containers = match &shows {
            Shown::Processes { .. } => 0,
            Shown::Containers => plan.containers,
        };
        let line = first_complete(plan, &settings, containers);
        let recorded = plan.directory.path().join(name);
        fs::write(&recorded, &line).unwrap();
        Self {
            settings,
            recorded,
            bytes: line.len(),
            _shows: shows,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{:.0} KB", self.bytes as f64 / 1000.0)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if matches!(self, Self::Containers) {
            remove_containers();
        }
    }
}

/// Idle processes. The processes end together with the shell that starts them.
fn idle_processes() -> Process {
    let script = format!(
        "trap 'trap - TERM; kill 0' TERM; i=0; while [ $i -lt {PROCESSES} ]; do sleep 1d & i=$((i+1)); done; wait"
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .stdout(Stdio::null())
        .process_group(0);
    let shell = Process::start(&mut shell).expect("cannot start sh");
    thread::sleep(Duration::from_secs(1));
    shell
}

/// A script that prints log lines like those of a web server and then waits. The printed lines compress about as well as real log
/// lines.
fn lines_of_a_server() -> String {
    let line = r#"printf "%s GET /api/v1/items/%d?page=%d status=%d bytes=%d ms=%d\n", "INFO", rand()*99999, rand()*50,
        200+int(rand()*3)*100, rand()*90000, rand()*400"#;
    format!(
        "awk -v seed=\"$(od -An -N3 -tu4 /dev/urandom)\" \
         'BEGIN {{ srand(seed); for (i = 0; i < {LINES}; i++) {line} }}'; exec tail -f /dev/null"
    )
}

/// The first complete snapshot of an agent.
fn first_complete(plan: &Plan, settings: &[(&str, &str)], containers: usize) -> Vec<u8> {
    let (_process, mut stream) = agent::start(&plan.agent, settings);
    stream.write_all(format!("{KEY}\n").as_bytes()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut lines = BufReader::new(stream);
    let started = Instant::now();
    loop {
        let mut line = Vec::new();
        lines
            .read_until(b'\n', &mut line)
            .expect("no line from the agent");
        let whole: Whole = serde_json::from_slice(&line).expect("expected a snapshot");
        let logs = whole.logs.values().filter(|lines| !lines.is_empty());
        if whole.status == "ok"
            && whole.containers.len() >= containers
            && logs.count() >= containers
        {
            return line;
        }
        assert!(
            started.elapsed() < TIMEOUT,
            "the snapshot is not complete: status {}, {} containers, {} logs",
            whole.status,
            whole.containers.len(),
            whole.logs.len()
        );
    }
}

#[derive(Deserialize)]
struct Whole {
    status: String,
    containers: Vec<IgnoredAny>,
    logs: HashMap<String, Vec<IgnoredAny>>,
}
