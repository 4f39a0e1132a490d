//! Real snapshots of two sizes: processes make the one, containers that log the other.

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

use crate::common::agent::{self, KEY, PATIENCE};
use crate::common::engine::{remove_containers, start_containers};
use crate::plan::Plan;
use crate::process::Process;

/// Enough processes for 20 KB.
const PROCESSES: usize = 120;
const TOP_PROCESSES: &str = "95";
/// With fifty containers, and about a hundred characters a line, enough for 500 KB.
const LINES: &str = "100";
/// Until then the engine words the age of the youngest container anew each second, which the agent follows.
const YOUNG: Duration = Duration::from_secs(70);

/// What is measured is the fan-out: sources are read once, at the start.
const ONCE: [(&str, &str); 3] = [
    ("SYSTEM_INTERVAL", "1h"),
    ("DOCKER_INTERVAL", "1h"),
    ("LOG_INTERVAL", "1h"),
];

/// Snapshots of one size. What they show stays until they are dropped.
pub(crate) struct Kind {
    /// The agent's settings for them.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// The file that holds one.
    pub(crate) recorded: PathBuf,
    /// How long that is.
    pub(crate) bytes: usize,
    _shows: Shown,
}

/// What snapshots show.
enum Shown {
    Processes { _idle: Process },
    Containers,
}

impl Kind {
    /// About 20 KB, of idle processes.
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

    /// About 500 KB, of containers' logs.
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

/// Processes that sleep, all ended with the one that has started them.
fn idle_processes() -> Process {
    let script = format!(
        "trap 'trap - TERM; kill 0' TERM; i=0; while [ $i -lt {PROCESSES} ]; do sleep 1d & i=$((i+1)); done; wait"
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .stdout(Stdio::null())
        .process_group(0);
    let shell = Process::start(&mut shell).expect("sh starts");
    thread::sleep(Duration::from_secs(1));
    shell
}

/// Prints as a web server might, then nothing more: lines that repeat themselves as much as such lines do.
fn lines_of_a_server() -> String {
    let line = r#"printf "%s GET /api/v1/items/%d?page=%d status=%d bytes=%d ms=%d\n", "INFO", rand()*99999, rand()*50,
        200+int(rand()*3)*100, rand()*90000, rand()*400"#;
    format!(
        "awk -v seed=\"$(od -An -N3 -tu4 /dev/urandom)\" \
         'BEGIN {{ srand(seed); for (i = 0; i < {LINES}; i++) {line} }}'; exec tail -f /dev/null"
    )
}

/// A line of an agent that shows everything.
fn first_complete(plan: &Plan, settings: &[(&str, &str)], containers: usize) -> Vec<u8> {
    let (_process, mut stream) = agent::start(&plan.agent, settings);
    stream.write_all(format!("{KEY}\n").as_bytes()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    let started = Instant::now();
    loop {
        let mut line = Vec::new();
        lines
            .read_until(b'\n', &mut line)
            .expect("the agent streams");
        let whole: Whole = serde_json::from_slice(&line).expect("a snapshot");
        let logs = whole.logs.values().filter(|lines| !lines.is_empty());
        if whole.status == "ok"
            && whole.containers.len() >= containers
            && logs.count() >= containers
        {
            return line;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "not complete: {}, {} containers, {} logs",
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
