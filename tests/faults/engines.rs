//! Faults of an engine.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker::container::Container;
use crate::docker::engine::PrivateEngine;
use crate::docker::oddities::{self, OddEngine};
use crate::docker::stand_in::{Answer, StandIn};
use crate::support::Launch;
use crate::trial::{INTERVAL, Report, Trial, launch};

/// After an engine returns, the agent must find the engine within this time, in seconds.
const RECOVERY: f64 = 15.0;
/// Limit of the growth of the agent's memory with an odd engine, in MiB.
const GROWTH: f64 = 20.0;
/// Snapshots must show a fault within this time, in seconds. The time covers the deadline of a call to the engine (5 s) and two
/// rounds.
const NOTICE: f64 = 10.0;

fn with_engine(host: &str) -> Launch {
    launch()
        .var("DOCKER_ENABLED", "true")
        .var("DOCKER_HOST", host)
}

pub(crate) fn docker_is_well(snapshot: &Value) -> bool {
    snapshot["sources"]["docker"]["status"] == "ok"
}

fn docker_is_failing(snapshot: &Value) -> bool {
    snapshot["sources"]["docker"]["status"] == "failing"
}

fn shows(snapshot: &Value, containers: usize) -> bool {
    docker_is_well(snapshot)
        && snapshot["containers"]
            .as_array()
            .is_some_and(|all| all.len() == containers)
}

/// Starts a private engine with three containers, and the trial of an agent that measures this engine.
fn private(name: &str) -> (PrivateEngine, Trial) {
    let mut engine = PrivateEngine::prepare();
    engine.start_with_image();
    run_containers(&engine);
    let mut trial = Trial::start(name, with_engine(engine.engine().host()));
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), |snapshot| shows(snapshot, 3));
    trial.within("containers seen after", seen, 30.0);
    (engine, trial)
}

fn run_containers(engine: &PrivateEngine) {
    for _ in 0..3 {
        let options = ["--network", "none", "--restart", "always"];
        let container = Container::run_on(
            engine.engine(),
            "faulty",
            &options,
            "while :; do echo line; sleep 1; done",
        );
        container.keep();
    }
}

/// Returns the time until all containers of the engine are in a snapshot again.
fn recovery(trial: &Trial) -> Option<Duration> {
    trial
        .client
        .wait_until(Duration::from_secs(60), |snapshot| shows(snapshot, 3))
}

pub(crate) fn killed() -> Vec<Report> {
    let (mut engine, mut trial) = private("engine killed by SIGKILL");
    engine.kill();
    let noticed = trial
        .client
        .wait_until(Duration::from_secs(30), docker_is_failing);
    trial.within("noticed after", noticed, NOTICE);
    // The containers continue to run after the engine is killed.
    let first = trial.client.count();
    thread::sleep(Duration::from_secs(10));
    check_fresh(&mut trial, first, 3);
    engine.start();
    let recovered = recovery(&trial);
    trial.within("recovered after", recovered, RECOVERY);
    vec![trial.end()]
}

pub(crate) fn stopped() -> Vec<Report> {
    let (engine, mut trial) = private("engine stopped for 60 s");
    let frozen = engine.freeze();
    let noticed = trial
        .client
        .wait_until(Duration::from_secs(30), docker_is_failing);
    trial.within("noticed after", noticed, NOTICE);
    let first = trial.client.count();
    thread::sleep(Duration::from_secs(60));
    check_fresh(&mut trial, first, 3);
    drop(frozen);
    let recovered = recovery(&trial);
    trial.within("recovered after", recovered, RECOVERY);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    vec![trial.end()]
}

/// The maximum age of a source's figures in the snapshots from number `first` on, in seconds.
fn oldest(trial: &Trial, first: usize, source: &str) -> f64 {
    let moment = |value: &Value| humantime::parse_rfc3339(value.as_str()?).ok();
    let age = |snapshot: &Value| {
        let read = moment(&snapshot["sources"][source]["collected_at"])?;
        let age = moment(&snapshot["timestamp"])?.duration_since(read);
        Some(age.unwrap_or_default().as_secs_f64())
    };
    trial.client.since(first, |lines| {
        let ages = lines.iter().map(|line| age(&line.snapshot));
        ages.fold(0.0, |oldest: f64, age| {
            oldest.max(age.unwrap_or(f64::INFINITY))
        })
    })
}

/// Checks that all snapshots from number `first` on have fresh figures and logs of at least this number of containers.
fn check_fresh(trial: &mut Trial, first: usize, containers: usize) {
    for source in ["docker", "logs"] {
        let oldest = oldest(trial, first, source);
        let limit = 2.0 * INTERVAL.as_secs_f64();
        trial.at_most(
            &format!("{source}: maximum age of the figures"),
            oldest,
            limit,
            "s",
        );
    }
    let fewest = trial.client.since(first, |lines| {
        let shown = |snapshot: &Value| {
            let count = |section: &str| snapshot[section].as_array().map_or(0, Vec::len);
            let logs = snapshot["logs"].as_object().map_or(0, serde_json::Map::len);
            count("containers").min(count("docker_meta")).min(logs)
        };
        lines.iter().map(|line| shown(&line.snapshot)).min()
    });
    let fewest = fewest.unwrap_or_default();
    trial.check(
        fewest >= containers,
        format!("at least {fewest} containers in each snapshot (of {containers})"),
    );
}

/// The time that the engine is frozen.
fn freeze_time() -> Duration {
    let seconds = std::env::var("FREEZE_SECONDS").map_or(300, |text| {
        text.parse().expect("FREEZE_SECONDS is not a number")
    });
    Duration::from_secs(seconds)
}

pub(crate) fn frozen() -> Vec<Report> {
    const CONTAINERS: usize = 50;
    const KILLED: usize = 5;
    /// If a container ends and the engine does not report it, snapshots must show the end within this time, in seconds.
    const EXIT: f64 = 5.0;
    let mut engine = PrivateEngine::prepare();
    engine.start_with_image();
    let script = "while :; do echo line; sleep 1; done";
    let run = || Container::run_on(engine.engine(), "frozen", &["--network", "none"], script);
    let pids: Vec<i32> = (0..CONTAINERS)
        .map(|_| {
            let container = run();
            let pid = container.inspect()["State"]["Pid"].as_i64();
            container.keep();
            i32::try_from(pid.expect("expected a number")).expect("the process id is invalid")
        })
        .collect();
    let time = freeze_time();
    let name = format!("engine with 50 containers frozen for {} s", time.as_secs());
    let mut trial = Trial::start(&name, with_engine(engine.engine().host()));
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), |snapshot| {
            shows(snapshot, CONTAINERS)
        });
    trial.within("containers seen after", seen, 30.0);

    let first = trial.client.count();
    let frozen = engine.freeze();
    let noticed = trial
        .client
        .wait_until(Duration::from_secs(30), docker_is_failing);
    trial.within("noticed after", noticed, NOTICE);
    let half = time / 2;
    thread::sleep(half);
    check_fresh(&mut trial, first, CONTAINERS);
    for pid in &pids[..KILLED] {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("the process has ended");
    }
    let left = |snapshot: &Value| {
        ["containers", "docker_meta"].iter().all(|section| {
            let all = snapshot[*section].as_array();
            all.is_some_and(|all| all.len() == CONTAINERS - KILLED)
        })
    };
    let exits = trial.client.wait_until(Duration::from_secs(30), left);
    trial.within("exits noticed after", exits, EXIT);
    thread::sleep(half);
    check_fresh(&mut trial, first, CONTAINERS - KILLED);
    drop(frozen);
    let recovered = trial
        .client
        .wait_until(Duration::from_secs(60), |snapshot| {
            shows(snapshot, CONTAINERS - KILLED)
        });
    trial.within("recovered after", recovered, RECOVERY);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    vec![trial.end()]
}

pub(crate) fn restarted() -> Vec<Report> {
    let (mut engine, mut trial) = private("engine restarted 20 times");
    let mut longest = Some(Duration::ZERO);
    for _ in 0..20 {
        engine.stop();
        let noticed = trial
            .client
            .wait_until(Duration::from_secs(30), docker_is_failing);
        engine.start();
        let recovered = noticed.and_then(|_| recovery(&trial));
        longest = longest
            .zip(recovered)
            .map(|(longest, recovered)| longest.max(recovered));
    }
    trial.within("recovered each time, after at most", longest, RECOVERY);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    vec![trial.end()]
}

/// Runs a trial with an engine that works, then gives this answer to every request, and then works again.
fn with_answer(name: &str, answer: Answer) -> Report {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let well = StandIn::at(&socket, |_| Answer::Engine);
    let mut trial = Trial::start(name, with_engine(&format!("unix://{}", socket.display())));
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), docker_is_well);
    trial.within("source ok after", seen, 30.0);
    drop(well);
    let unwell = StandIn::at(&socket, move |_| answer.clone());
    let noticed = trial
        .client
        .wait_until(Duration::from_secs(60), docker_is_failing);
    trial.within("noticed after", noticed, NOTICE);
    thread::sleep(Duration::from_secs(10));
    drop(unwell);
    let _well = StandIn::at(&socket, |_| Answer::Engine);
    let recovered = trial
        .client
        .wait_until(Duration::from_secs(60), docker_is_well);
    trial.within("recovered after", recovered, RECOVERY);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    trial.end()
}

pub(crate) fn odd() -> Vec<Report> {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n";
    let drip = Answer::Stream(Arc::new(|client| {
        client.write_all(HEAD)?;
        loop {
            client.write_all(b"[")?;
            thread::sleep(Duration::from_secs(1));
        }
    }));
    let gigabyte = Answer::Stream(Arc::new(|client| {
        client.write_all(HEAD)?;
        (0..1 << 14).try_for_each(|_| client.write_all(&[b' '; 1 << 16]))
    }));
    let truncated = Answer::Bytes(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[{\"Id\":",
    );
    vec![
        with_answer("engine that answers a byte a second", drip),
        with_answer("engine that never answers", Answer::Silence),
        with_answer(
            "engine that answers garbage",
            Answer::Bytes(b"\x16\x03\x01\xff\xfe\0garbage\r\n\r\n\xff"),
        ),
        with_answer("engine whose answers end too early", truncated),
        with_answer(
            "engine that answers with status 500",
            Answer::Json("500 Internal Server Error", r#"{"message":"out of order"}"#),
        ),
        with_answer("engine that answers with 1 GiB", gigabyte),
    ]
}

/// Tries all odd values of the container list, of inspections and of statistics, one after another. The engine also has twenty
/// good containers.
pub(crate) fn odd_values() -> Vec<Report> {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let engine = OddEngine::at(&socket);
    let host = format!("unix://{}", socket.display());
    let launch = with_engine(&host)
        .var("CONTAINER_STATS", "engine")
        .var("DOCKER_INTERVAL", "200ms");
    let mut trial = Trial::start("odd values in an engine with 20 good containers", launch);
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), oddities::shows_all_good);
    trial.within("containers seen after", seen, 30.0);
    let first = trial.client.count();
    let mut wrong = Vec::new();
    let all = [
        oddities::of_lists(),
        oddities::of_inspections(),
        oddities::of_statistics(),
    ]
    .concat();
    for oddity in &all {
        engine.show(oddity);
        oddities::wait_until_listed(&engine, Duration::from_secs(30));
        let id = engine.odd_id();
        // Until the agent reads the list again, snapshots show the previous odd container.
        let shown = trial
            .client
            .wait_until(Duration::from_secs(10), |snapshot| {
                oddities::is_well_or_names_it(snapshot)
                    && oddities::lists(snapshot, &id) == oddity.is_listed
            });
        if shown.is_none() {
            wrong.push(oddity.name.as_str());
        }
    }
    let lacking = trial.client.since(first, |lines| {
        let lacks = |line: &&crate::client::Line| !oddities::shows_all_good(&line.snapshot);
        lines.iter().filter(lacks).count()
    });
    trial.check(
        wrong.is_empty(),
        format!("{} values, not shown or not reported: {wrong:?}", all.len()),
    );
    trial.check(
        lacking == 0,
        format!("{lacking} snapshots without a good container"),
    );
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    vec![trial.end()]
}

/// The engine's container list, with the containers of these numbers.
fn list(numbers: impl Iterator<Item = u64>) -> Arc<str> {
    let created = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
    let list: Vec<Value> = numbers
        .map(|number| {
            json!({
                "Id": id(number), "Names": [format!("/odd-{number}")], "Image": "odd", "ImageID": "sha256:00",
                "Command": "sh", "Created": 1_700_000_000, "Ports": [], "Labels": {"made": created}, "State": "running",
                "Status": "Up 3 minutes", "HostConfig": {"NetworkMode": "default"}, "NetworkSettings": {"Networks": {}},
                "Mounts": []
            })
        })
        .collect();
    serde_json::to_string(&list).unwrap().into()
}

fn id(number: u64) -> String {
    format!("{number:064x}")
}

/// The inspection of a container. The container has no process on this host.
fn inspection(path: &str) -> Arc<str> {
    let id = path.split('/').nth_back(1).unwrap_or_default();
    let inspection = json!({
        "Id": id, "Created": "2026-01-01T00:00:00Z", "Name": "/odd", "RestartCount": 0, "LogPath": "",
        "State": {"Status": "running", "Running": true, "Pid": 0, "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Tty": false, "Labels": {}, "Image": "odd"},
        "HostConfig": {"LogConfig": {"Type": "none", "Config": {}}, "NetworkMode": "default"},
        "NetworkSettings": {"Networks": {}}
    });
    inspection.to_string().into()
}

pub(crate) fn twenty_thousand() -> Vec<Report> {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let well = StandIn::at(&socket, |_| Answer::Engine);
    let host = format!("unix://{}", socket.display());
    let mut trial = Trial::start("a list of 20,000 containers", with_engine(&host));
    drop(well);
    let all = list(0..20_000);
    let many = StandIn::at(&socket, move |path| match path {
        path if path.contains("/containers/json") => Answer::Body(Arc::clone(&all)),
        path if path.ends_with("/json") && path.contains("/containers/") => {
            Answer::Body(inspection(path))
        }
        path if path.contains("/events") => Answer::Silence,
        path if path.contains("/stats") || path.contains("/logs") => {
            Answer::Json("409 Conflict", r#"{"message":"no"}"#)
        }
        _ => Answer::Engine,
    });
    thread::sleep(Duration::from_secs(30));
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    drop(many);
    let _well = StandIn::at(&socket, |_| Answer::Engine);
    let recovered = trial
        .client
        .wait_until(Duration::from_secs(90), |snapshot| {
            docker_is_well(snapshot)
                && snapshot["containers"]
                    .as_array()
                    .is_some_and(|all| all.len() < 1000)
        });
    trial.within("recovered after", recovered, RECOVERY);
    vec![trial.end()]
}

/// A fake engine that starts a hundred containers every second, and removes the hundred containers of the previous second.
fn churning(socket: &std::path::Path) -> StandIn {
    const EACH: u64 = 100;
    let began = Instant::now();
    let generation = move || began.elapsed().as_secs();
    StandIn::at(socket, move |path| match path {
        path if path.contains("/containers/json") => {
            let now = generation();
            Answer::Body(list(now * EACH..(now + 1) * EACH))
        }
        path if path.ends_with("/json") && path.contains("/containers/") => {
            Answer::Body(inspection(path))
        }
        path if path.contains("/events") => Answer::Stream(Arc::new(move |client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
            let mut last = generation();
            loop {
                thread::sleep(Duration::from_millis(20));
                let now = generation();
                if now == last {
                    continue;
                }
                let of = |generation: u64, action: &'static str| {
                    (generation * EACH..(generation + 1) * EACH).map(move |number| (number, action))
                };
                let events = of(last, "die")
                    .chain(of(last, "destroy"))
                    .chain(of(now, "create"))
                    .chain(of(now, "start"));
                for (number, action) in events {
                    let time = std::time::UNIX_EPOCH.elapsed().unwrap();
                    let event = json!({
                        "Type": "container", "Action": action, "scope": "local", "time": time.as_secs(),
                        "timeNano": time.as_nanos() as u64,
                        "Actor": {"ID": id(number), "Attributes": {"name": format!("odd-{number}"), "image": "odd", "exitCode": "0"}}
                    });
                    writeln!(client, "{event}")?;
                }
                last = now;
            }
        })),
        path if path.contains("/stats") || path.contains("/logs") => {
            Answer::Json("409 Conflict", r#"{"message":"no"}"#)
        }
        _ => Answer::Engine,
    })
}

pub(crate) fn churn() -> Vec<Report> {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let churning = churning(&socket);
    let host = format!("unix://{}", socket.display());
    let mut trial = Trial::start(
        "100 containers started and removed each second",
        with_engine(&host),
    );
    // After this time, the agent's caches do not grow any more.
    thread::sleep(Duration::from_secs(30));
    let before = trial.usage();
    thread::sleep(Duration::from_secs(120));
    let after = trial.usage();
    trial.at_most(
        "memory grew within two minutes by",
        after.rss_mib - before.rss_mib,
        1.0,
        "MiB",
    );
    trial.at_most(
        "further open files",
        after.files as f64 - before.files as f64,
        8.0,
        "",
    );
    trial.at_most(
        "further threads",
        after.threads as f64 - before.threads as f64,
        1.0,
        "",
    );
    let published = trial.client.since(0, |lines| {
        lines
            .iter()
            .map(|line| line.snapshot["events"].as_array().map_or(0, Vec::len))
            .sum::<usize>()
    });
    trial.check(
        published > 1000,
        format!("{published} events in the snapshots"),
    );
    let report = trial.end();
    drop(churning);
    vec![report]
}
