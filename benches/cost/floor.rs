//! Compares a round of the agent's container source with the floor, which is the minimum cost of such a round. The floor is a
//! loop that only calls `pread` on the same files. The files stay open. The round and the loop run in turns in one process, so a
//! disturbance affects both. Rounds are one second apart, because the agent reads fewer files of idle containers in faster
//! rounds.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system_agent::collect::collect_once;
use system_agent::collect::docker::{ContainerSource, Containers};
use system_agent::settings::{CollectSettings, DockerHost};

use crate::common::bars::Bars;
use crate::common::engine::docker;
use crate::load::median;

/// Size of the buffer for a file's text.
const BUFFER: usize = 16 * 1024;
const ROUNDS: usize = 30;
/// Maximum number of containers whose files the floor reads, because the limit of open files can be too low for more.
const MAX_CONTAINERS: usize = 300;
/// Number of files that the agent's source may keep open: those of 1,000 containers.
const KEPT_FILES: u64 = 11_000;
/// The pause between rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// The files of a control group in cgroup v1, by controller. Not every host has all of these files.
const V1: [(&str, &[&str]); 5] = [
    ("cpuacct", &["cpuacct.usage"]),
    (
        "memory",
        &[
            "memory.usage_in_bytes",
            "memory.stat",
            "memory.limit_in_bytes",
            "memory.kmem.usage_in_bytes",
            "memory.oom_control",
        ],
    ),
    ("cpu", &["cpu.stat"]),
    ("pids", &["pids.current"]),
    (
        "blkio",
        &[
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_serviced_recursive",
        ],
    ),
];
const V2: [&str; 10] = [
    "cpu.stat",
    "memory.current",
    "memory.stat",
    "memory.max",
    "memory.events",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "pids.current",
    "io.stat",
];

/// Runs the comparison in a process of its own and prints the result.
pub(crate) fn print(bars: &mut Bars) {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("floor")
        .output();
    let output = output.expect("cannot start this program");
    if !output.status.success() {
        // The comparison fails if other containers start or stop while it runs.
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("\na container round: NOT MEASURED: {}", stderr.trim());
        return;
    }
    let stdout = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = stdout
        .split_whitespace()
        .map(|figure| figure.parse().unwrap())
        .collect();
    let [containers, files, rounds, agent, floor] = figures[..] else {
        panic!("unexpected output: {stdout}");
    };
    println!(
        "\na container round: {agent:.1} µs per container; floor with {files:.1} preads per container: {floor:.1} µs \
         (medians of {rounds} rounds of {containers} containers)"
    );
    let what = format!("a container round over its floor, {containers} containers");
    bars.at_most(&what, agent / floor, 2.0, "×");
    if containers >= 1000.0 {
        let what = format!("a container round, {containers} containers");
        bars.at_most(&what, agent * containers / 1000.0, 50.0, "ms");
    }
}

/// Runs in the process that compares. Prints the number of containers, files per container, rounds, and µs per container of the
/// agent and of the floor.
pub(crate) fn run() {
    raise_file_limit();
    let (read_by_floor, files) = all_files();
    let mut buffer = vec![0; BUFFER];
    let (mut agent, mut floor, mut containers) = (Vec::new(), Vec::new(), 0);
    actix::System::new().block_on(async {
        let variables = [("CONTAINER_STATS".into(), "kernel".into())];
        let settings =
            CollectSettings::from_env(variables.into_iter()).expect("the settings are invalid");
        let known = Containers::of(DockerHost::default(), &settings);
        // The first source keeps no files open, because of its long interval.
        let variables = [
            ("CONTAINER_STATS".into(), "kernel".into()),
            ("DOCKER_INTERVAL".into(), "1m".into()),
        ];
        let long =
            CollectSettings::from_env(variables.into_iter()).expect("the settings are invalid");
        let mut first = ContainerSource::new(known.clone(), &long);
        let source = ContainerSource::new(known.clone(), &settings);
        let mut source = source.with_kept_files(KEPT_FILES);
        // The first round opens the files. The second round reads the files that the first round could not read yet.
        for source in [&mut source, &mut first] {
            for _ in 0..2 {
                let round = collect_once(source).await;
                assert_eq!(
                    round.error, None,
                    "every container must be read without an error"
                );
            }
        }
        for _ in 0..ROUNDS {
            tokio::time::sleep(PAUSE).await;
            // A round of another source runs first. That round makes the request to the engine and fills the kernel's caches, so
            // that neither measured time contains this work.
            collect_once(&mut first).await;
            let round = Instant::now();
            let collected = collect_once(&mut source).await;
            agent.push(micros(round.elapsed()));
            containers = collected
                .sample
                .expect("the round has no sample")
                .containers
                .len();

            let round = Instant::now();
            for file in &files {
                let read = file
                    .read_at(&mut buffer, 0)
                    .expect("cannot read a file of a running container");
                std::hint::black_box(&buffer[..read]);
            }
            floor.push(micros(round.elapsed()));
        }
    });
    let each = read_by_floor as f64;
    println!(
        "{containers} {} {} {} {}",
        files.len() as f64 / each,
        agent.len(),
        median(&agent) / containers as f64,
        median(&floor) / each
    );
}

/// Raises the limit on open files, as the agent does at its start.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Opens the files that the agent reads for the running containers, at most [`MAX_CONTAINERS`]. Returns the number of containers and
/// the files.
fn all_files() -> (usize, Vec<File>) {
    let mounts = mounts();
    let ids = docker(&["ps", "--quiet"]);
    let ids: Vec<&str> = ids.lines().take(MAX_CONTAINERS).collect();
    let inspect = [
        "inspect",
        "--format",
        "{{.State.Pid}} {{.HostConfig.NetworkMode}}",
    ];
    let inspected = docker(&[&inspect, &ids[..]].concat());
    let of_container = |line: &str| {
        let (pid, network) = line.split_once(' ').unwrap();
        let process = Path::new("/proc").join(pid);
        let mut files = group_files(
            &mounts,
            &fs::read_to_string(process.join("cgroup")).unwrap(),
        );
        if network != "host" && network != "none" {
            files.push(process.join("net/dev"));
        }
        files
    };
    let paths = inspected.lines().flat_map(of_container);
    let files = paths.filter_map(|path| File::open(path).ok());
    (ids.len(), files.collect())
}

/// The files of a process's control group. `cgroup` is the content of `/proc/<pid>/cgroup`.
fn group_files(mounts: &HashMap<String, (String, PathBuf)>, cgroup: &str) -> Vec<PathBuf> {
    let directory = |controller: &str| {
        let path = cgroup.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers
                .split(',')
                .any(|one| one == controller)
                .then_some(path)
        })?;
        let (root, point) = mounts.get(controller)?;
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        Some(point.join(below.trim_start_matches('/')))
    };
    if directory("memory").is_some() {
        let of_controller = |(controller, files): (&str, &[&str])| {
            let directory = directory(controller);
            let paths =
                directory.map(|directory| files.iter().map(|file| directory.join(file)).collect());
            paths.unwrap_or_else(Vec::new)
        };
        V1.into_iter().flat_map(of_controller).collect()
    } else {
        let group = directory("").expect("the control group is not visible");
        V2.map(|file| group.join(file)).into()
    }
}

/// For each controller of cgroup v1: the mounted directory of the cgroup file system, and the mount point. The empty name stands
/// for cgroup v2.
fn mounts() -> HashMap<String, (String, PathBuf)> {
    let mut mounts = HashMap::new();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        let (before, after) = line.split_once(" - ").unwrap();
        let mut before = before.split(' ').skip(3);
        let place = (
            before.next().unwrap().to_owned(),
            PathBuf::from(before.next().unwrap()),
        );
        let mut after = after.split(' ');
        let controllers = match after.next() {
            Some("cgroup") => after.nth(1).unwrap(),
            Some("cgroup2") => "",
            _ => continue,
        };
        for controller in controllers.split(',') {
            mounts
                .entry(controller.to_owned())
                .or_insert_with(|| place.clone());
        }
    }
    mounts
}
