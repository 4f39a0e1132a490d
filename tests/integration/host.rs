//! Compares the host's figures with the kernel's own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime};
use std::{env, fs, process, thread};

use serde_json::Value;
use serial_test::{parallel, serial};

use crate::support::{Agent, Busy, DEADLINE, Idle, Watch, kernel};

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

/// Parses a timestamp of a snapshot.
fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

fn collected_at(snapshot: &Value) -> SystemTime {
    time(&snapshot["sources"]["system"]["collected_at"])
}

/// Asserts that a figure is between the smallest and the largest reading, with a tolerance.
fn assert_between(figure: f64, readings: impl IntoIterator<Item = f64>, tolerance: f64) {
    let readings: Vec<f64> = readings.into_iter().collect();
    let least = readings.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = readings.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let range = least - tolerance..=greatest + tolerance;
    assert!(range.contains(&figure), "{figure} is not within {range:?}");
}

/// The reading closest to a moment.
fn at<T>(readings: &[(SystemTime, T)], moment: SystemTime) -> &(SystemTime, T) {
    let distance = |(at, _): &&(SystemTime, T)| match at.duration_since(moment) {
        Ok(later) => later,
        Err(earlier) => earlier.duration(),
    };
    readings.iter().min_by_key(distance).unwrap()
}

/// The list entry of a process that keeps a core busy. The process is usually first in the list. On each of the other cores,
/// another process can be as busy.
fn first<'a>(snapshot: &'a Value, busy: &Busy) -> &'a Value {
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    let place = processes
        .iter()
        .position(|process| process["pid"] == busy.pid());
    let place = place.unwrap_or_else(|| panic!("not in {processes:#?}"));
    assert!(
        (place as u64) < kernel::cpus(),
        "at {place} of {processes:#?}"
    );
    let cpu = number(&processes[place]["cpu"]);
    assert_between(cpu, [80.0, 105.0], 0.0);
    &processes[place]
}

#[test]
#[serial]
fn memory_matches_meminfo() {
    let watch = Watch::start(kernel::memory);
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    let readings = watch.finish();
    let (total, _) = readings[0].1;
    assert_between(number(&snapshot["system"]["memory_total"]), [total], 0.01);
    let used = readings.iter().map(|(_, (_, used))| *used);
    assert_between(number(&snapshot["system"]["memory_used"]), used, 8.0);
}

#[test]
#[serial]
fn disk_matches_df() {
    let (total, before) = kernel::disk();
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    let (_, after) = kernel::disk();
    assert_between(number(&snapshot["system"]["disk_total"]), [total], 0.01);
    let used = number(&snapshot["system"]["disk_used"]);
    assert_between(used, [before, after], 0.05);
}

#[test]
#[serial]
fn load_averages_match_loadavg() {
    let watch = Watch::start(kernel::load);
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    let load = &snapshot["system"]["load_avg"];
    let load = ["1m", "5m", "15m"].map(|span| number(&load[span]));
    let readings = watch.finish();
    let same = |(_, kernel): &(SystemTime, Vec<f64>)| {
        kernel.iter().zip(load).all(|(a, b)| (a - b).abs() < 0.011)
    };
    assert!(
        readings.iter().any(same),
        "{load:?} was never in /proc/loadavg"
    );
}

#[test]
#[serial]
fn uptime_and_boot_time_match_the_kernel() {
    let before = kernel::uptime().floor();
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    let uptime = number(&snapshot["system"]["uptime"]);
    assert_between(uptime, [before, kernel::uptime()], 0.0);
    let boot_time = number(&snapshot["host"]["boot_time"]);
    assert_between(boot_time, [kernel::boot_time() as f64], 1.0);
}

#[test]
#[serial]
fn network_counters_match_the_kernel() {
    let before = kernel::network();
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    let after = kernel::network();
    let interfaces = snapshot["system"]["network"].as_array().unwrap();
    let names: Vec<&str> = interfaces
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    // An interface that appeared or disappeared during the test does not matter.
    let steady = before.keys().filter(|name| after.contains_key(*name));
    for name in steady {
        assert!(names.contains(&name.as_str()), "{name} is missing");
    }
    for interface in interfaces {
        let name = interface["name"].as_str().unwrap();
        let Some((before, after)) = before.get(name).zip(after.get(name)) else {
            continue;
        };
        let counter = |field: &str, before: u64, after: u64| {
            let count = interface[field].as_u64().unwrap();
            let range = before..=after;
            assert!(range.contains(&count), "{name} {field} {count}: {range:?}");
        };
        counter("bytes_sent", before.bytes_sent, after.bytes_sent);
        counter("bytes_recv", before.bytes_recv, after.bytes_recv);
        counter("packets_sent", before.packets_sent, after.packets_sent);
        counter("packets_recv", before.packets_recv, after.packets_recv);
    }
}

#[test]
#[serial]
fn network_counters_follow_known_traffic() {
    const SENT: u64 = 16 << 20;
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")]);
    let mut client = agent.login();
    let loopback = |snapshot: &Value| {
        let mut interfaces = snapshot["system"]["network"].as_array().unwrap().iter();
        let loopback = interfaces
            .find(|i| i["name"] == "lo")
            .expect("there is no interface lo")
            .clone();
        ["bytes_sent", "bytes_recv"].map(|field| loopback[field].as_u64().unwrap())
    };
    let [sent, received] = loopback(&client.snapshot());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    let transfer = thread::spawn(move || {
        let mut all = Vec::new();
        receiver.take(SENT).read_to_end(&mut all).unwrap();
    });
    sender.write_all(&vec![0; SENT as usize]).unwrap();
    transfer.join().unwrap();
    let done = SystemTime::now();
    let after = client.snapshot_where("a later round", DEADLINE, |s| collected_at(s) > done);
    let [sent, received] = [loopback(&after)[0] - sent, loopback(&after)[1] - received];
    // Packet headers and the snapshots themselves add some bytes.
    for bytes in [sent, received] {
        assert!((SENT..SENT * 11 / 10).contains(&bytes), "{bytes} of {SENT}");
    }
}

#[test]
#[serial]
fn the_first_snapshot_has_correct_cpu_figures() {
    let busy = Busy::start();
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h"), ("SYSTEM_INTERVAL", "1h")]);
    let snapshot = agent.login().snapshot();
    assert_eq!(snapshot["agent"]["seq"], 1);
    assert_eq!(snapshot["status"], "ok");
    assert_eq!(first(&snapshot, &busy)["name"], "sh");
    let one_core = 100.0 / kernel::cpus() as f64;
    assert_between(
        number(&snapshot["system"]["cpu_percent"][0]),
        [one_core * 0.8, 100.0],
        0.0,
    );
}

#[test]
#[serial]
fn the_first_snapshot_has_correct_cpu_figures_with_many_processes() {
    // The agent needs some time to read all processes. The busy process continues to run during this time.
    let busy = Busy::start();
    let _idle = Idle::start(2000);
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h"), ("SYSTEM_INTERVAL", "1h")]);
    first(&agent.login().snapshot(), &busy);
}

#[test]
#[serial]
fn cpu_figures_cover_the_last_interval() {
    let busy = Busy::start();
    let pid = busy.pid();
    let watch = Watch::start(move || (kernel::cpu_times(), kernel::cpu_seconds(pid)));
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "1500ms"), ("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.login();
    let mut snapshots = vec![client.snapshot()];
    for _ in 0..3 {
        let last = collected_at(snapshots.last().unwrap());
        let next = |snapshot: &Value| collected_at(snapshot) > last;
        snapshots.push(client.snapshot_where("a new round", DEADLINE, next));
    }
    let readings = watch.finish();
    for pair in snapshots.windows(2) {
        let (from, ((busy_then, total_then), cpu_then)) = at(&readings, collected_at(&pair[0]));
        let (to, ((busy_now, total_now), cpu_now)) = at(&readings, collected_at(&pair[1]));
        let system = 100.0 * (busy_now - busy_then) / (total_now - total_then);
        assert_between(number(&pair[1]["system"]["cpu_percent"][0]), [system], 10.0);
        let elapsed = to.duration_since(*from).unwrap().as_secs_f64();
        let core = 100.0 * (cpu_now - cpu_then) / elapsed;
        assert_between(number(&first(&pair[1], &busy)["cpu"]), [core], 10.0);
    }
}

#[test]
#[serial]
fn a_process_that_has_ended_is_not_in_the_list() {
    let busy = Busy::start();
    let pid = busy.pid();
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.login();
    first(&client.snapshot(), &busy);
    drop(busy);
    let ended = SystemTime::now();
    let after = |snapshot: &Value| collected_at(snapshot) > ended + Duration::from_millis(400);
    let snapshot = client.snapshot_where("a round after its end", DEADLINE, after);
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    assert!(processes.iter().all(|process| process["pid"] != pid));
}

#[test]
#[serial]
fn all_processes_are_listed_busiest_first() {
    let before = kernel::processes();
    let agent = Agent::start(&[("TOP_PROCESSES", "1000")]);
    let snapshot = agent.login().snapshot();
    let after = kernel::processes();
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    let cpu: Vec<f64> = processes
        .iter()
        .map(|process| number(&process["cpu"]))
        .collect();
    assert!(cpu.is_sorted_by(|a, b| a >= b), "{cpu:?}");
    let pids: Vec<u64> = processes
        .iter()
        .map(|p| p["pid"].as_u64().unwrap())
        .collect();
    let mut unique = pids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), pids.len(), "a process is listed twice");
    let steady = before.iter().filter(|pid| after.contains(pid));
    for pid in steady.take(900) {
        assert!(pids.contains(pid), "process {pid} is missing");
    }
    // The agent has several threads, but the list shows one process.
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid()))
        .unwrap()
        .flatten();
    let tasks = tasks.map(|task| task.file_name().to_str().unwrap().parse().unwrap());
    let listed: Vec<u64> = tasks.filter(|task| pids.contains(task)).collect();
    assert_eq!(listed, [u64::from(agent.pid())]);
}

#[test]
#[serial]
fn command_lines_are_published_only_if_wanted_and_without_secrets() {
    let mut sleeping = process::Command::new("sh")
        .args(["-c", "sleep 20; :", "--password=Hx4Tq8Zw"])
        .stdout(process::Stdio::null())
        .stderr(process::Stdio::null())
        .spawn()
        .unwrap();
    let command = |variables: &[(&str, &str)]| {
        let variables = [&[("TOP_PROCESSES", "1000")], variables].concat();
        let snapshot = Agent::start(&variables).login().snapshot();
        let processes = snapshot["system"]["top_memory"].as_array().unwrap();
        let own = processes.iter().find(|one| one["pid"] == sleeping.id());
        own.unwrap()["command"].clone()
    };
    assert_eq!(command(&[]), Value::Null);
    let redacted = command(&[
        ("PROCESS_COMMANDS", "true"),
        ("LOG_REDACT", r"--password=(?P<secret>\S+)"),
    ]);
    assert_eq!(redacted, "sh -c sleep 20; : --password=[redacted]");
    sleeping.kill().unwrap();
    sleeping.wait().unwrap();
}

#[test]
#[serial]
fn threads_and_open_files_of_a_process_are_counted() {
    let stop = Arc::new(Barrier::new(41));
    let threads: Vec<_> = (0..40)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || stop.wait())
        })
        .collect();
    let _files: Vec<_> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
    let agent = Agent::start(&[("TOP_PROCESSES", "1000")]);
    let snapshot = agent.login().snapshot();
    let counted = |folder: &str| fs::read_dir(folder).unwrap().count() as f64;
    let (open, running) = (counted("/proc/self/fd"), counted("/proc/self/task"));
    stop.wait();
    threads.into_iter().for_each(|one| {
        one.join().unwrap();
    });
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    let own = processes.iter().find(|one| one["pid"] == process::id());
    let own = own.unwrap();
    // The test has some files and threads more or less at the time of the reading, for example for its client.
    assert!(
        (number(&own["threads"]) - running).abs() <= 3.0 && running > 40.0,
        "{own} {running}"
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = kernel.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (version.next().unwrap(), version.next().unwrap());
    match own.get("open_files") {
        Some(ours) => assert!(
            (number(ours) - open).abs() <= 8.0 && open > 500.0,
            "{own} {open}"
        ),
        None => assert!(version < (6, 2), "{kernel}"),
    }
}

#[test]
#[serial]
fn the_memory_of_a_process_is_a_percentage_of_the_hosts_memory() {
    // The test process allocates 256 MiB, so its memory is known.
    let ballast = vec![1_u8; 256 << 20];
    let own = || kernel::rss(process::id()) / (1 << 20) as f64;
    let watch = Watch::start(own);
    let agent = Agent::start(&[("TOP_PROCESSES", "1000")]);
    let snapshot = agent.login().snapshot();
    let readings = watch.finish();
    assert_eq!(ballast.last(), Some(&1));
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    let own = processes
        .iter()
        .find(|p| p["pid"] == process::id())
        .unwrap();
    let (total, _) = kernel::memory();
    let percent = readings.iter().map(|(_, mib)| 100.0 * mib / total);
    assert!(readings.iter().all(|(_, mib)| *mib > 256.0));
    assert_between(number(&own["mem"]), percent, 0.05);
}

#[test]
#[parallel]
fn top_processes_sets_the_length_of_the_list() {
    for count in [0, 1, 7] {
        let agent = Agent::start(&[("TOP_PROCESSES", &count.to_string())]);
        let snapshot = agent.login().snapshot();
        let processes = snapshot["system"]["top_processes"].as_array().unwrap();
        assert_eq!(processes.len(), count);
    }
    let agent = Agent::start(&[]);
    let snapshot = agent.login().snapshot();
    assert_eq!(
        snapshot["system"]["top_processes"]
            .as_array()
            .unwrap()
            .len(),
        10
    );
}

#[test]
#[parallel]
fn the_host_section_matches_the_kernel() {
    let agent = Agent::start(&[]);
    let host = &agent.login().snapshot()["host"];
    assert_eq!(host["hostname"], kernel::sysctl("hostname"));
    assert_eq!(host["kernel"], kernel::sysctl("osrelease"));
    assert_eq!(host["arch"], env::consts::ARCH);
    assert_eq!(host["cpus"], kernel::cpus());
    let os = host["os"].as_str().unwrap();
    let name = kernel::os_release("NAME").unwrap();
    assert!(os.contains(&name), "{os:?} does not name {name:?}");
    let version = kernel::os_release("VERSION_ID").unwrap_or_default();
    assert!(os.contains(&version), "{os:?} does not name {version:?}");
}

#[test]
#[serial]
fn the_agent_publishes_its_own_cpu_and_memory() {
    let settings = [
        ("SYSTEM_INTERVAL", "100ms"),
        ("PUBLISH_INTERVAL", "100ms"),
        ("TOP_PROCESSES", "1000"),
    ];
    let agent = Agent::start(&settings);
    let pid = agent.pid();
    let mut client = agent.login();
    let _other = agent.login();
    client.snapshot_where("two clients", DEADLINE, |s| s["agent"]["clients"] == 2);
    let began = SystemTime::now();
    let watch = Watch::start(move || (kernel::rss(pid), kernel::cpu_seconds(pid)));
    // Skip snapshots from before the start. The agent reads processes, including itself, every 300 ms.
    client.snapshot_where("a current snapshot", DEADLINE, |snapshot| {
        collected_at(snapshot) > began + Duration::from_millis(600)
    });
    let snapshots: Vec<Value> = (0..30).map(|_| client.snapshot()).collect();
    let readings = watch.finish();
    let agents = |field: &str| -> Vec<f64> {
        let figures = snapshots
            .iter()
            .map(|snapshot| number(&snapshot["agent"][field]));
        figures.collect()
    };
    for rss in agents("memory_rss") {
        assert_between(rss, readings.iter().map(|(_, (rss, _))| *rss), 1048576.0);
    }
    let ((from, (_, then)), (to, (_, now))) = (&readings[0], &readings[readings.len() - 1]);
    let cpu = 100.0 * (now - then) / to.duration_since(*from).unwrap().as_secs_f64();
    let mean = agents("cpu_percent").iter().sum::<f64>() / snapshots.len() as f64;
    assert!(cpu > 1.0, "too little work to compare: {cpu}");
    assert_between(mean, [cpu * 0.7, cpu * 1.3], 3.0);
    for snapshot in &snapshots {
        assert_eq!(snapshot["agent"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(snapshot["agent"]["skipped"], 0);
    }
}

#[test]
#[parallel]
fn a_snapshot_has_the_times_of_its_making_and_of_its_round() {
    let before = SystemTime::now();
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h")]);
    let snapshot = agent.login().snapshot();
    // The agent's times are in milliseconds.
    let millisecond = Duration::from_millis(1);
    let (made, read) = (time(&snapshot["timestamp"]), collected_at(&snapshot));
    assert!(before <= read + millisecond, "{read:?} is before the start");
    assert!(read <= made + millisecond, "{read:?} is after {made:?}");
    assert!(made <= SystemTime::now(), "{made:?} is in the future");
    let system = &snapshot["sources"]["system"];
    assert_eq!(system["status"], "ok");
    assert!(number(&system["duration_ms"]) < 2000.0, "{system}");
}

#[test]
#[parallel]
fn without_docker_the_status_is_ok() {
    // No engine is at that address, but the agent does not use it.
    let agent = Agent::start(&[
        ("DOCKER_ENABLED", "false"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
        ("PUBLISH_INTERVAL", "100ms"),
    ]);
    let mut client = agent.login();
    for _ in 0..5 {
        let snapshot = client.snapshot();
        assert_eq!(snapshot["status"], "ok");
        assert_eq!(snapshot["sources"]["docker"]["status"], "disabled");
        assert_eq!(snapshot["sources"]["logs"]["status"], "disabled");
        assert_eq!(snapshot["containers"], Value::Array(Vec::new()));
        assert_eq!(snapshot["docker_meta"], Value::Array(Vec::new()));
        assert_eq!(snapshot["logs"], serde_json::json!({}));
    }
    for line in agent.log().all() {
        assert!(line.contains("\"INFO\""), "unexpected log message: {line}");
    }
}
