//! Compares the figures of containers with those of cAdvisor, as one Prometheus server has both: the answers to queries of dashboards,
//! and the alerts that fire.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::prometheus::Prometheus;
use super::targets::Target;
use crate::common::bars::Bars;
use crate::common::engine::{docker, label, remove_containers, start_container};
use crate::plan::Plan;

const QUERIES: &str = include_str!("../../../tests/fixtures/prometheus-docker-queries.txt");
const RULES: &str = include_str!("../../../tests/fixtures/prometheus-docker-rules.yml");

/// The beginning of the containers' names in queries and rules. It is replaced by that of this run's containers.
const NAMES: &str = "system-agent-test";
/// The time in which Prometheus gets enough samples for rates.
const WARM_UP: Duration = Duration::from_secs(40);
/// Figures move between the readings of both programs. A query agrees if one of this many attempts agrees.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// The time in which all alerts must fire.
const ALERT_TIMEOUT: Duration = Duration::from_secs(90);

/// Containers with load and limits. Removed on drop.
struct Containers {
    _traffic: Sender<()>,
}

impl Containers {
    fn start() -> Self {
        let group = ["--label", "org.label-schema.group=apps"];
        let start = |purpose, options: &[&str], script| {
            start_container(purpose, &[&group[..], options].concat(), script)
        };
        start(
            "throttled",
            &["--cpus", "0.2", "--memory", "64m"],
            "while :; do :; done",
        );
        start(
            "memory",
            &[
                "--memory",
                "40m",
                "--memory-reservation",
                "8m",
                "--shm-size",
                "64m",
            ],
            "dd if=/dev/zero of=/dev/shm/file bs=1M count=34; sleep 10000",
        );
        start(
            "writes",
            &["--cpu-shares", "512", "--pids-limit", "50"],
            "sleep 1000 & while :; do dd if=/dev/zero of=/file bs=4k count=50 conv=fsync; sleep 0.3; done",
        );
        start(
            "healthy",
            &["--health-cmd", "true", "--health-interval", "1s"],
            "sleep 10000",
        );
        let unhealthy = [
            "--health-cmd",
            "false",
            "--health-interval",
            "1s",
            "--health-retries",
            "1",
        ];
        start("unhealthy", &unhealthy, "sleep 10000");
        start(
            "oom",
            &["--memory", "16m", "--memory-swap", "16m"],
            "while :; do tail /dev/zero; sleep 2; done",
        );
        start("host", &["--network", "host"], "sleep 10000");
        let receives = start("receives", &[], "nc -ll -p 7 -e cat");
        let address = docker(&[
            "inspect",
            "--format",
            "{{.NetworkSettings.IPAddress}}",
            &receives,
        ]);
        let (traffic, ended) = channel();
        thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
                // The program in the container starts a moment after the container.
                let _ = echo(&address);
            }
        });
        Self { _traffic: traffic }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        remove_containers();
    }
}

/// Sends 2 KB to a program that sends them back.
fn echo(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((address, 7))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut data = [0; 2048];
    stream.write_all(&data)?;
    stream.read_exact(&mut data)
}

/// Compares the figures, and prints the differences.
pub(crate) fn compare(plan: &Plan, bars: &mut Bars) {
    eprintln!("comparing the figures of containers with those of cAdvisor");
    println!("\n## The figures of containers beside those of cAdvisor\n");
    // cAdvisor reads the processes of containers only with this setting, and idle containers less often without the other.
    let options = [
        "--housekeeping_interval=1s",
        "--allow_dynamic_housekeeping=false",
        "--disable_metrics=advtcp,cpu_topology,cpuset,hugetlb,memory_numa,referenced_memory,resctrl,sched,tcp,udp",
    ];
    let theirs = match Target::cadvisor(plan, 0, &options) {
        Ok(theirs) => theirs,
        Err(reason) => {
            println!("NOTE: left out: cAdvisor: {reason}");
            return;
        }
    };
    let _containers = Containers::start();
    let ended = start_container("ended", &[], "sleep 10000");
    let restarted = start_container("restarted", &[], "sleep 10000");
    let settings = [
        ("PUBLISH_INTERVAL", "1s"),
        ("SYSTEM_INTERVAL", "1s"),
        ("DOCKER_INTERVAL", "1s"),
        ("CONTAINER_LABELS", "*"),
    ];
    let ours = Target::agent(plan, "System Agent", 0, &settings);
    let names = label().replace('=', "-");
    let rules = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    fs::write(rules.path(), RULES.replace(NAMES, &names)).unwrap();
    let jobs = [("ours", ours.address), ("theirs", theirs.address)];
    let prometheus = match Prometheus::start(&jobs, rules.path()) {
        Ok(prometheus) => prometheus,
        Err(reason) => {
            println!("NOTE: left out: {reason}");
            return;
        }
    };
    thread::sleep(WARM_UP);
    queries(&prometheus, &names, bars);
    docker(&["rm", "--force", &ended]);
    docker(&["restart", "--time", "0", &restarted]);
    alerts(&prometheus, bars);
}

/// The values of an answer of Prometheus. The key is the labels of the series without `job` and `instance`.
fn answer(prometheus: &Prometheus, query: &str, job: &str) -> BTreeMap<String, f64> {
    let series = prometheus.query(&query.replace("$job", job)).into_iter();
    let named = series.map(|(labels, value)| (text(labels), value));
    named.collect()
}

fn text(labels: BTreeMap<String, String>) -> String {
    let labels = labels.into_iter();
    let labels = labels.filter(|(name, _)| name != "instance" && name != "job");
    labels
        .map(|(name, value)| format!("{name}={value} "))
        .collect()
}

/// Whether two values agree. Both programs read at different moments.
fn agree(query: &str, ours: f64, theirs: f64) -> bool {
    let has = |parts: &[&str]| parts.iter().any(|part| query.contains(part));
    let is_memory =
        has(&["memory_"]) && has(&["_bytes", "_rss", "_cache", "_swap", "_file", "_usage"]);
    let (relative, absolute) = match () {
        () if has(&["rate(", "increase("]) => (0.3, 0.05),
        () if has(&[" / ", "_failures_"]) => (0.1, 2.0),
        // Other programs of the host use memory, and the commands of health checks do.
        () if is_memory && has(&["id=\"/\""]) => (0.15, 0.0),
        () if is_memory => (0.05, 1e6),
        () => (0.05, 2.0),
    };
    (ours - theirs).abs() <= f64::max(ours.abs().max(theirs.abs()) * relative, absolute)
}

fn queries(prometheus: &Prometheus, names: &str, bars: &mut Bars) {
    let queries = QUERIES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let queries: Vec<String> = queries.map(|query| query.replace(NAMES, names)).collect();
    let (mut answered, mut differences) = (0, BTreeMap::new());
    for attempt in 0..ATTEMPTS {
        let left: Vec<&String> = queries
            .iter()
            .filter(|query| attempt == 0 || differences.contains_key(*query))
            .collect();
        for query in left {
            let (ours, theirs) = (
                answer(prometheus, query, "ours"),
                answer(prometheus, query, "theirs"),
            );
            if attempt == 0 && !theirs.is_empty() {
                answered += 1;
            }
            match difference(query, &ours, &theirs) {
                Some(difference) => differences.insert(query.clone(), difference),
                None => differences.remove(query),
            };
        }
        thread::sleep(PAUSE);
    }
    println!(
        "{} queries, {answered} of them answered by cAdvisor, {} with other series or values",
        queries.len(),
        differences.len()
    );
    for (query, difference) in &differences {
        println!("* `{query}`: {difference}");
    }
    let what = "queries that cAdvisor answers in another way";
    bars.at_most(what, differences.len() as f64, 0.0, "queries");
}

fn difference(
    query: &str,
    ours: &BTreeMap<String, f64>,
    theirs: &BTreeMap<String, f64>,
) -> Option<String> {
    // The agent has more metrics than cAdvisor.
    if theirs.is_empty() {
        return None;
    }
    let lacks: Vec<_> = theirs
        .keys()
        .filter(|labels| !ours.contains_key(*labels))
        .collect();
    let more: Vec<_> = ours
        .keys()
        .filter(|labels| !theirs.contains_key(*labels))
        .collect();
    if !lacks.is_empty() || !more.is_empty() {
        return Some(format!("without {lacks:?}, more {more:?}"));
    }
    let off = theirs
        .iter()
        .find(|(labels, value)| !agree(query, ours[*labels], **value));
    off.map(|(labels, value)| format!("{labels}{} instead of {value}", ours[labels]))
}

/// The alerts that fire for a job, each with its labels.
fn firing(prometheus: &Prometheus, job: &str) -> BTreeSet<String> {
    let query = format!("ALERTS{{alertstate=\"firing\",job=\"{job}\"}}");
    let alerts = prometheus.query(&query).into_iter();
    alerts.map(|(labels, _)| text(labels)).collect()
}

/// Waits until every alert fires, and the same alerts fire for both programs.
fn alerts(prometheus: &Prometheus, bars: &mut Bars) {
    let names = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<&str> = names.collect();
    let started = Instant::now();
    let (mut silent, mut different);
    loop {
        let (ours, theirs) = (firing(prometheus, "ours"), firing(prometheus, "theirs"));
        let fires = |name: &&&str| {
            theirs
                .iter()
                .any(|alert| alert.contains(&format!("alertname={name} ")))
        };
        silent = names
            .iter()
            .filter(|name| !fires(name))
            .copied()
            .collect::<Vec<_>>();
        different = ours
            .symmetric_difference(&theirs)
            .cloned()
            .collect::<Vec<_>>();
        if (silent.is_empty() && different.is_empty()) || started.elapsed() > ALERT_TIMEOUT {
            break;
        }
        thread::sleep(PAUSE);
    }
    println!(
        "\n{} alert rules, {} of them fire on cAdvisor's figures, {} alerts fire only on the figures of one program",
        names.len(),
        names.len() - silent.len(),
        different.len()
    );
    for name in &silent {
        println!("* {name} does not fire");
    }
    for alert in &different {
        println!("* only for one program: {alert}");
    }
    bars.at_most(
        "alert rules that do not fire on cAdvisor's figures",
        silent.len() as f64,
        0.0,
        "rules",
    );
    bars.at_most(
        "alerts that fire for one program only",
        different.len() as f64,
        0.0,
        "alerts",
    );
}
