//! Compares the host's figures (cores, file systems, devices, interfaces, pressure, processes) with other sources.
//! This file is long: it has one test for each metric family.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use serial_test::{parallel, serial};

use crate::support::{Agent, Busy, Client, DEADLINE, Launch, Namespace, Watch, schema};

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

fn collected_at(snapshot: &Value) -> SystemTime {
    let at = snapshot["sources"]["system"]["collected_at"].as_str();
    humantime::parse_rfc3339(at.unwrap()).unwrap()
}

/// The next snapshot with a newer round of the system collector.
fn after(client: &mut Client, earlier: &Value) -> Value {
    let at = collected_at(earlier);
    client.snapshot_where("a later round", DEADLINE, |s| collected_at(s) > at)
}

fn entry<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let mut entries = list.as_array().unwrap().iter();
    let found = entries.find(|entry| entry[field] == value);
    found.unwrap_or_else(|| panic!("no {field} {value} in {list:#}"))
}

#[track_caller]
fn assert_near(figure: &Value, expected: f64, tolerance: f64) {
    let figure = number(figure);
    let range = expected - tolerance..=expected + tolerance;
    assert!(range.contains(&figure), "{figure} is not within {range:?}");
}

fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The CPU times in `/proc/stat`, by the name of the line.
fn times() -> BTreeMap<String, Vec<f64>> {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let cpus = stat.lines().filter(|line| line.starts_with("cpu"));
    cpus.map(|line| {
        let (name, times) = line.split_once(' ').unwrap();
        let times = times.split_whitespace().take(8);
        (
            name.to_owned(),
            times.map(|time| time.parse().unwrap()).collect(),
        )
    })
    .collect()
}

#[test]
#[serial]
fn cores_and_cpu_shares_match_proc_stat() {
    let busy = Busy::start();
    run("taskset", &["-pc", "0", &busy.pid().to_string()]);
    let watch = Watch::start(times);
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "2s"), ("PUBLISH_INTERVAL", "200ms")]);
    let mut client = agent.login();
    let first = client.snapshot();
    let earlier = after(&mut client, &first);
    let later = after(&mut client, &earlier);
    let readings = watch.finish();
    let at = |moment: SystemTime| {
        let distance = |(at, _): &&(SystemTime, _)| {
            let before = moment.duration_since(*at);
            before.unwrap_or_else(|error| error.duration())
        };
        &readings.iter().min_by_key(distance).unwrap().1
    };
    let (before, now) = (at(collected_at(&earlier)), at(collected_at(&later)));
    // The columns: user nice system idle iowait irq softirq steal.
    let percent = |cpu: &str, parts: &[usize]| {
        let passed = |part: usize| now[cpu][part] - before[cpu][part];
        let all: f64 = (0..8).map(passed).sum();
        parts.iter().copied().map(passed).sum::<f64>() / all * 100.0
    };
    let system = &later["system"];
    let shares = &system["cpu_times"];
    for (name, parts) in [
        ("user", &[0, 1][..]),
        ("system", &[2]),
        ("iowait", &[4]),
        ("steal", &[7]),
        ("irq", &[5, 6]),
    ] {
        assert_near(&shares[name], percent("cpu", parts), 3.0);
    }
    let cores = system["cpu_cores"].as_array().unwrap();
    assert_eq!(cores.len() + 1, now.len());
    for (core, figure) in cores.iter().enumerate() {
        let busy = percent(&format!("cpu{core}"), &[0, 1, 2, 5, 6, 7]);
        assert_near(figure, busy, 4.0);
    }
    assert!(number(&cores[0]) > 90.0, "{cores:?}");
}

#[test]
#[serial]
fn memory_and_swap_match_free() {
    let watch = Watch::start(|| run("free", &["-w", "-k"]));
    let agent = Agent::start(&[]);
    let system = agent.login().snapshot()["system"].clone();
    // The columns of `Mem:` are total used free shared buffers cache available. The columns of `Swap:` are total used free.
    let row = |text: &str, row: usize| -> Vec<f64> {
        let columns = text.lines().nth(row).unwrap().split_whitespace().skip(1);
        columns
            .map(|column| column.parse::<f64>().unwrap() / 1024.0)
            .collect()
    };
    let readings = watch.finish();
    let among = |figure: &Value, column: usize| {
        let figure = number(figure);
        let mut kernel = readings.iter().map(|(_, text)| row(text, 1)[column]);
        assert!(
            kernel.any(|kernel| (kernel - figure).abs() < 8.0),
            "{figure} was never in column {column} of {readings:?}"
        );
    };
    among(&system["memory_cached"], 5);
    among(&system["memory_available"], 6);
    let swap = row(&readings[0].1, 2);
    if swap[0] > 0.0 {
        assert_near(&system["swap_total"], swap[0], 0.01);
        assert_near(&system["swap_used"], swap[1], 8.0);
    } else {
        assert!(system.get("swap_total").is_none() && system.get("swap_used").is_none());
    }
}

#[test]
#[serial]
fn file_systems_match_df() {
    let folder = tempfile::tempdir().unwrap();
    let [again, memory] = ["again and again", "memory"].map(|name| folder.path().join(name));
    for point in [&again, &memory] {
        fs::create_dir(point).unwrap();
    }
    // Mount the root file system a second time, and a tmpfs, which stores no data.
    let script = format!(
        "mount --bind {folder} '{}'\nmount -t tmpfs none '{}'",
        again.display(),
        memory.display(),
        folder = folder.path().display(),
    );
    let namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new().launched_by(namespace.enter()).start();
    let system = agent.login().snapshot()["system"].clone();
    let disks = system["disks"].as_array().unwrap();
    let mut devices: Vec<&str> = disks
        .iter()
        .map(|d| d["device"].as_str().unwrap())
        .collect();
    let all = devices.len();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), all, "a device is listed twice: {disks:#?}");
    assert!(
        disks
            .iter()
            .all(|disk| disk["mount"] != memory.to_str().unwrap())
    );
    entry(&system["disks"], "mount", "/");
    for disk in disks {
        let mount = disk["mount"].as_str().unwrap();
        let columns = "--output=fstype,size,used,itotal,iused";
        let text = run("df", &["-B1", columns, mount]);
        let columns: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(disk["type"], columns[0], "{mount}");
        let gib = |column: &str| column.parse::<f64>().unwrap() / (1 << 30) as f64;
        assert_near(&disk["total"], gib(columns[1]), 0.001);
        assert_near(&disk["used"], gib(columns[2]), 0.1);
        if columns[3] == "0" || columns[3] == "-" {
            assert!(disk.get("inodes_total").is_none(), "{mount}");
        } else {
            assert_near(&disk["inodes_total"], columns[3].parse().unwrap(), 0.0);
            assert_near(&disk["inodes_used"], columns[4].parse().unwrap(), 2000.0);
        }
        assert!(disk.get("stuck").is_none(), "{mount}");
    }
}

/// A FUSE file system that never answers.
#[test]
#[serial]
fn a_file_system_that_hangs_is_marked_stuck_and_blocks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().display();
    let script = format!(
        "exec 3<>/dev/fuse\n\
         mount -i -t fuse.hang -o fd=3,rootmode=40000,user_id=0,group_id=0 silent {point}"
    );
    let mut namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new()
        .launched_by(namespace.enter())
        .vars(&[("SYSTEM_INTERVAL", "500ms"), ("PUBLISH_INTERVAL", "500ms")])
        .start();
    let mut client = agent.login();
    let point = folder.path().to_str().unwrap();
    let disk = |snapshot: &Value| {
        let disks = snapshot["system"]["disks"].as_array().unwrap();
        disks.iter().find(|disk| disk["mount"] == point).cloned()
    };
    let stuck = json!({"mount": point, "device": "silent", "type": "fuse.hang", "stuck": true});
    client.snapshot_where("a stuck file system", DEADLINE, |s| {
        disk(s).as_ref() == Some(&stuck)
    });
    // The agent has started a new thread for the other file systems.
    let snapshot = client.snapshot();
    let _ = after(&mut client, &snapshot);
    // From now on the stuck file system delays no round and needs no more threads.
    let threads = || {
        fs::read_dir(format!("/proc/{}/task", agent.pid()))
            .unwrap()
            .count()
    };
    let (before, mut last) = (threads(), client.snapshot());
    let mut gaps = Vec::new();
    for _ in 0..8 {
        let next = client.snapshot();
        assert_eq!(disk(&next).as_ref(), Some(&stuck));
        gaps.push(
            collected_at(&next)
                .duration_since(collected_at(&last))
                .unwrap(),
        );
        let duration = &next["sources"]["system"]["duration_ms"];
        assert!(number(duration) < 100.0, "{duration} ms");
        assert_eq!(next["status"], "ok");
        entry(&next["system"]["disks"], "mount", "/");
        last = next;
    }
    // A stuck file system would delay every round. A busy host can delay one or two rounds.
    gaps.sort_unstable();
    assert!(gaps[5] < Duration::from_millis(750), "{gaps:?}");
    assert_eq!(threads(), before);
    // When the program ends, the kernel answers with an error.
    namespace.end();
    client.snapshot_where("an error of the file system", DEADLINE, |s| {
        disk(s).is_some_and(|disk| disk.get("stuck").is_none() && disk.get("used").is_none())
    });
}

/// Bytes written to a whole device, from its count of sectors.
fn bytes_written(device: &str) -> u64 {
    let stat = fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    fields[6] * 512
}

#[test]
#[serial]
fn disk_traffic_matches_the_kernels_counters() {
    const WRITTEN: usize = 32 << 20;
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "1s"), ("PUBLISH_INTERVAL", "200ms")]);
    let mut client = agent.login();
    let before = client.snapshot();
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(&vec![7; WRITTEN]).unwrap();
    file.as_file().sync_all().unwrap();
    let written_at = SystemTime::now();
    let devices = before["system"]["disk_io"].as_array().unwrap();
    assert!(!devices.is_empty(), "this host has no disks");
    let whole = fs::read_dir("/sys/block").unwrap();
    let mut whole: Vec<String> = whole
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !["loop", "ram", "zram", "fd"]
                .iter()
                .any(|none| name.starts_with(none))
        })
        .collect();
    whole.sort_unstable();
    let mut names: Vec<&str> = devices
        .iter()
        .map(|d| d["device"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, whole);

    // The test adds up rate times duration for all snapshots, up to the first snapshot after the write. The sum must equal the
    // number of written bytes.
    let mut last = before.clone();
    let mut by_rate: BTreeMap<String, f64> = BTreeMap::new();
    let mut busiest: f64 = 0.0;
    while collected_at(&last) < written_at {
        let kernel: Vec<u64> = names.iter().map(|name| bytes_written(name)).collect();
        let next = after(&mut client, &last);
        let seconds = collected_at(&next)
            .duration_since(collected_at(&last))
            .unwrap();
        for (name, at_least) in names.iter().zip(kernel) {
            let device = entry(&next["system"]["disk_io"], "device", name);
            let written = device["write_bytes"].as_u64().unwrap();
            assert!(
                (at_least..=bytes_written(name)).contains(&written),
                "{name}"
            );
            let rate = number(&device["write_bytes_per_second"]);
            *by_rate.entry((*name).to_owned()).or_default() += rate * seconds.as_secs_f64();
            busiest = busiest.max(number(&device["busy_percent"]));
        }
        last = next;
    }
    let written = |snapshot: &Value, name: &str| {
        number(&entry(&snapshot["system"]["disk_io"], "device", name)["write_bytes"])
    };
    let mut most: f64 = 0.0;
    for name in names {
        let difference = written(&last, name) - written(&before, name);
        let by_rate = by_rate[name];
        assert!(
            (difference - by_rate).abs() <= difference * 0.02 + 8192.0,
            "{name}: {by_rate} by rate, {difference} by counter"
        );
        most = most.max(difference);
    }
    assert!(most >= WRITTEN as f64, "only {most} bytes were written");
    assert!(busiest > 0.0);
}

#[test]
#[serial]
fn network_rates_match_the_counters() {
    let agent = Agent::start(&[("SYSTEM_INTERVAL", "500ms"), ("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.login();
    let mut last = client.snapshot();
    let traffic = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let end = Instant::now() + Duration::from_millis(1500);
        let reader = thread::spawn(move || std::io::copy(&mut receiver, &mut std::io::sink()));
        while Instant::now() < end {
            sender.write_all(&[0; 64 * 1024]).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        drop(sender);
        reader.join().unwrap().unwrap();
    };
    let traffic = thread::spawn(traffic);
    for _ in 0..3 {
        let next = after(&mut client, &last);
        let seconds = collected_at(&next)
            .duration_since(collected_at(&last))
            .unwrap();
        let of = |snapshot: &Value| entry(&snapshot["system"]["network"], "name", "lo").clone();
        let (before, now) = (of(&last), of(&next));
        for counter in ["bytes_sent", "bytes_recv", "packets_sent", "packets_recv"] {
            let difference = number(&now[counter]) - number(&before[counter]);
            let rate = difference / seconds.as_secs_f64();
            // `collected_at` is the end of the round. The agent read the counters a little earlier.
            assert_near(
                &now[format!("{counter}_per_second")],
                rate,
                rate * 0.04 + 5.0,
            );
        }
        assert!(number(&now["bytes_sent_per_second"]) > 1e6);
        last = next;
    }
    traffic.join().unwrap();
}

/// The test makes each kind of interface in a network namespace, so that the host does not change.
#[test]
#[parallel]
fn each_interface_has_its_kind_and_state() {
    let namespace = Namespace::start(
        &["net", "mount"],
        "mount -t sysfs sys /sys
         ip link set lo up
         ip link add br0 type bridge
         ip link add pair0 type veth peer name pair1
         ip link set pair0 up
         ip link set pair1 up
         ip link add off0 type veth peer name off1
         ip link add vx0 type vxlan id 5 dstport 0
         ip tuntap add tun0 mode tun",
    );
    let finished = Launch::new()
        .launched_by(namespace.enter())
        .args(["snapshot"])
        .run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let snapshot = schema::snapshot(&finished.stdout[0]);
    let network = &snapshot["system"]["network"];
    for (name, kind, up) in [
        ("lo", "loopback", true),
        ("br0", "bridge", false),
        ("pair0", "veth", true),
        ("pair1", "veth", true),
        ("off0", "veth", false),
        ("vx0", "virtual", false),
        ("tun0", "virtual", false),
    ] {
        let interface = entry(network, "name", name);
        assert_eq!(
            (&interface["kind"], &interface["up"]),
            (&json!(kind), &json!(up)),
            "{name}"
        );
        for absent in ["speed", "container"] {
            assert!(interface.get(absent).is_none(), "{name}");
        }
        for zero in ["errors_sent", "errors_recv", "drops_recv"] {
            assert_eq!(interface[zero], 0, "{name}");
        }
    }
    let counters = fs::read_to_string("/proc/net/dev").unwrap();
    let here = Launch::new().args(["snapshot"]).run();
    let here = schema::snapshot(&here.stdout[0]);
    for interface in here["system"]["network"].as_array().unwrap() {
        let name = interface["name"].as_str().unwrap();
        let sys = format!("/sys/class/net/{name}");
        let device = fs::exists(format!("{sys}/device")).unwrap();
        assert_eq!(interface["kind"] == "physical", device, "{name}");
        let speed = fs::read_to_string(format!("{sys}/speed")).unwrap_or_default();
        let speed = speed
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|speed| device && *speed > 0);
        assert_eq!(
            interface.get("speed").and_then(Value::as_u64),
            speed,
            "{name}"
        );
        let line = counters
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{name}:")));
        let Some(line) = line else { continue };
        let line: Vec<&str> = line.split_once(':').unwrap().1.split_whitespace().collect();
        for (field, column) in [("errors_recv", 2), ("errors_sent", 10), ("drops_sent", 11)] {
            let before: u64 = line[column].parse().unwrap();
            assert!(
                interface[field].as_u64().unwrap() >= before,
                "{name} {field}"
            );
        }
    }
}

#[test]
#[serial]
fn pressure_matches_the_kernel() {
    let read = |resource: &str| fs::read_to_string(format!("/proc/pressure/{resource}")).ok();
    // Three processes wait for each other on two cores. On more cores there are more processes.
    let cores = thread::available_parallelism().unwrap().get();
    let _busy: Vec<Busy> = (0..=cores).map(|_| Busy::in_background()).collect();
    thread::sleep(Duration::from_secs(3));
    let resources = ["cpu", "memory", "io"];
    let watch = Watch::start(move || resources.map(read));
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1s")]);
    let mut client = agent.login();
    // On a host with many processes the first snapshot can have no figures yet.
    let snapshot = client.snapshot_where("a round of the system collector", DEADLINE, |s| {
        !s["sources"]["system"]["collected_at"].is_null()
    });
    let system = snapshot["system"].clone();
    let readings = watch.finish();
    if readings[0].1.iter().all(Option::is_none) {
        assert!(system.get("pressure").is_none());
        return;
    }
    for (place, resource) in resources.into_iter().enumerate() {
        for kind in ["some", "full"] {
            let stalls = &system["pressure"][resource][kind];
            let averages = |text: &Option<String>| {
                let line = text
                    .as_ref()?
                    .lines()
                    .find(|line| line.starts_with(kind))?
                    .to_owned();
                let average = |name: &str| {
                    let value = line.split(' ').find_map(|field| field.strip_prefix(name));
                    value.unwrap().parse::<f64>().unwrap()
                };
                Some(["avg10=", "avg60=", "avg300="].map(average))
            };
            let mut kernel = readings.iter().map(|(_, texts)| averages(&texts[place]));
            let agents = stalls
                .is_object()
                .then(|| ["avg10", "avg60", "avg300"].map(|average| number(&stalls[average])));
            assert!(
                kernel.any(|kernel| kernel == agents),
                "{resource} {kind}: {agents:?}"
            );
        }
    }
    assert!(number(&system["pressure"]["cpu"]["some"]["avg10"]) > 0.0);
}

#[test]
#[serial]
fn process_counts_by_state_match_ps() {
    // Start a stopped process and a zombie.
    let mut stopped = Command::new("sleep").arg("600").spawn().unwrap();
    run("kill", &["-STOP", &stopped.id().to_string()]);
    let mut zombie = Command::new("true").spawn().unwrap();
    let watch = Watch::start(|| run("ps", &["-eo", "stat=,nlwp="]));
    let agent = Agent::start(&[]);
    let counts = agent.login().snapshot()["system"]["processes"].clone();
    let readings = watch.finish();
    let of = |text: &str, states: &str| {
        let states = |line: &&str| states.contains(&line.trim_start()[..1]);
        text.lines().filter(states).count() as f64
    };
    let least = |states: &str| {
        readings
            .iter()
            .map(|(_, text)| of(text, states))
            .fold(f64::MAX, f64::min)
    };
    let most = |states: &str| {
        readings
            .iter()
            .map(|(_, text)| of(text, states))
            .fold(0.0, f64::max)
    };
    let between = |field: &str, states: &str, slack: f64| {
        let count = number(&counts[field]);
        let range = least(states) - slack..=most(states) + slack;
        assert!(range.contains(&count), "{count} {field}: {range:?}");
    };
    // ps counts itself as a running process.
    between("total", "RSDTtZI", 5.0);
    between("sleeping", "SI", 5.0);
    between("blocked", "D", 2.0);
    between("stopped", "Tt", 0.0);
    between("zombie", "Z", 2.0);
    assert!(number(&counts["stopped"]) >= 1.0 && number(&counts["zombie"]) >= 1.0);
    let threads = |text: &str| -> f64 {
        let threads = text
            .lines()
            .map(|line| line.split_whitespace().nth(1).unwrap());
        threads.map(|threads| threads.parse::<f64>().unwrap()).sum()
    };
    let kernel = threads(&readings.last().unwrap().1);
    assert_near(&counts["threads"], kernel, 40.0);
    let states = ["running", "sleeping", "blocked", "stopped", "zombie"];
    let sum: f64 = states.iter().map(|state| number(&counts[state])).sum();
    assert_eq!(number(&counts["total"]), sum);
    stopped.kill().unwrap();
    stopped.wait().unwrap();
    zombie.wait().unwrap();
}

#[test]
#[serial]
fn the_largest_processes_are_listed_with_their_users() {
    const SIZE: u64 = 300 << 20;
    // bash holds a string of this size in memory until its input ends.
    let script = format!("x=$(head -c {SIZE} /dev/zero | tr '\\0' x); echo ready; read line");
    let mut large = Command::new("bash");
    large
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut large = large.spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(large.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let agent = Agent::start(&[("TOP_PROCESSES", "5")]);
    let system = agent.login().snapshot()["system"].clone();
    let list = system["top_memory"].as_array().unwrap();
    assert_eq!(list.len(), 5);
    let sizes: Vec<u64> = list
        .iter()
        .map(|p| p["memory_rss"].as_u64().unwrap())
        .collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let pid = large.id();
    let found = list.iter().find(|process| process["pid"] == pid);
    let found = found.unwrap_or_else(|| panic!("not in {list:#?}"));
    let rss = crate::support::kernel::rss(pid);
    assert_near(&found["memory_rss"], rss, rss * 0.02);
    assert!(rss > SIZE as f64);
    assert!(found.get("container").is_none());
    for process in list
        .iter()
        .chain(system["top_processes"].as_array().unwrap())
    {
        let pid = process["pid"].to_string();
        let output = Command::new("ps")
            .args(["-o", "euser:40=", "-p", &pid])
            .output()
            .unwrap();
        let user = String::from_utf8(output.stdout).unwrap();
        // Skip a process that has ended after the snapshot.
        if !user.trim().is_empty() {
            assert_eq!(process["user"], user.trim(), "{process}");
        }
    }
    drop(large.stdin.take());
    large.wait().unwrap();
}

#[test]
#[parallel]
fn with_top_processes_zero_the_list_is_empty() {
    let agent = Agent::start(&[("TOP_PROCESSES", "0")]);
    let system = agent.login().snapshot()["system"].clone();
    assert_eq!(system["top_processes"], json!([]));
    assert!(system.get("top_memory").is_none());
    assert!(number(&system["processes"]["total"]) > 0.0);
}
