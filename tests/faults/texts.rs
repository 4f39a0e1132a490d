//! Odd texts of containers and engines, and a container that logs as fast as it can.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker::container::Container;
use crate::docker::stand_in::{Answer, StandIn};
use crate::engines::docker_is_well;
use crate::trial::{Report, Trial, launch};

/// Log lines with characters of every used Unicode plane, all control characters, quotes, and bytes that are not UTF-8. Each log
/// line comes with its expected text in the snapshot.
fn odd_lines() -> Vec<(Vec<u8>, String)> {
    let mut lines: Vec<(Vec<u8>, String)> = Vec::new();
    for plane in (0..=16_u32).filter(|plane| !(4..=13).contains(plane)) {
        let from = (plane << 16) + 0x100;
        let text: String = (from..from + 256).filter_map(char::from_u32).collect();
        lines.push((text.clone().into_bytes(), text));
    }
    let controls: String = (0..0x20_u8)
        .filter(|byte| !b"\r\n".contains(byte))
        .map(char::from)
        .collect();
    lines.push((controls.clone().into_bytes(), controls));
    let quotes = r#"" ' \ \\ \" {"json": ["in", null]} </script> \u0000 \n"#.to_owned();
    lines.push((quotes.clone().into_bytes(), quotes));
    lines.push((
        b"no text: \xff\xfe\xc3\x28".to_vec(),
        "no text: \u{fffd}\u{fffd}\u{fffd}(".to_owned(),
    ));
    lines
}

/// Runs a trial with odd log lines and an odd label of a real container.
fn of_a_container() -> Report {
    let folder = TempDir::new().unwrap();
    let lines = odd_lines();
    let mut file: Vec<u8> = Vec::new();
    for (bytes, _) in &lines {
        file.extend_from_slice(bytes);
        file.push(b'\n');
    }
    file.extend_from_slice(&vec![b'x'; 1 << 20]);
    file.extend_from_slice(b"\nthe end\n");
    fs::write(folder.path().join("text"), file).unwrap();
    let mount = format!("{}:/odd:ro", folder.path().display());
    let label = format!("odd=\u{1}\"'\\\u{10ffff}{}", "y".repeat(64 * 1024));
    let options = ["--volume", &mount, "--label", &label];
    let container = Container::run("odd", &options, "cat /odd/text; sleep 1000");
    container.wait_for_line("the end");

    let launch = launch().vars(&[("DOCKER_ENABLED", "true"), ("CONTAINER_LABELS", "odd")]);
    let mut trial = Trial::start("odd log lines and labels", launch);
    let name = container.name().to_owned();
    let shown = |snapshot: &Value| -> Vec<String> {
        let lines = snapshot["logs"][&name]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text = |line: Value| {
            line.as_str()
                .and_then(|line| line.split_once(' '))
                .map(|(_, text)| text.to_owned())
        };
        lines.into_iter().filter_map(text).collect()
    };
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), |snapshot| {
            !shown(snapshot).is_empty()
        });
    trial.within("log seen after", seen, 30.0);
    let (shown, label_shown) = trial
        .client
        .newest(|line| {
            let all = line.snapshot["containers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ours = all
                .iter()
                .find(|container| container["name"] == format!("/{name}"))
                .cloned();
            (
                shown(&line.snapshot),
                ours.unwrap_or_default()["labels"]["odd"].clone(),
            )
        })
        .unwrap();
    let expected = lines.iter().map(|(_, text)| text);
    let right = shown
        .iter()
        .zip(expected)
        .filter(|(shown, expected)| shown == expected)
        .count();
    trial.check(
        right == lines.len(),
        format!("{right} of {} log lines unchanged", lines.len()),
    );
    let cut = &shown[lines.len()];
    trial.check(
        cut.ends_with("[line cut at 16 KiB]") && cut.len() < 17_000,
        format!("log line of 1 MiB: {} bytes in the snapshot", cut.len()),
    );
    let same = label_shown
        .as_str()
        .is_some_and(|shown| label.strip_prefix("odd=") == Some(shown));
    trial.check(same, "label unchanged");
    trial.end()
}

/// Runs a trial with a fake engine. The engine's containers have odd names, images and labels, which a real engine would refuse.
fn of_an_engine() -> Report {
    let odd: String = odd_lines().into_iter().map(|(_, text)| text).collect();
    let long = "z".repeat(1 << 20);
    let id = "ab".repeat(32);
    let list = json!([{
        "Id": id, "Names": [format!("/{odd}")], "Image": long, "ImageID": odd, "Command": odd, "Created": 1, "Ports": [],
        "Labels": {odd.clone(): odd, "long": long}, "State": "running", "Status": odd, "HostConfig": {"NetworkMode": odd},
        "NetworkSettings": {"Networks": {}}, "Mounts": []
    }]);
    let list: Arc<str> = list.to_string().into();
    let inspection: Arc<str> = json!({
        "Id": id, "Created": odd, "Name": odd, "RestartCount": 0, "LogPath": "", "Image": odd,
        "State": {"Status": "running", "Running": true, "Pid": 0, "StartedAt": odd},
        "Config": {"Tty": false, "Labels": {odd.clone(): odd}, "Image": long},
        "HostConfig": {"LogConfig": {"Type": odd, "Config": {}}, "NetworkMode": odd},
        "NetworkSettings": {"Networks": {}}
    })
    .to_string()
    .into();
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let _engine = StandIn::at(&socket, move |path| match path {
        path if path.contains("/containers/json") => Answer::Body(Arc::clone(&list)),
        path if path.contains("/containers/") && path.ends_with("/json") => {
            Answer::Body(Arc::clone(&inspection))
        }
        path if path.contains("/events") => Answer::Silence,
        path if path.contains("/stats") || path.contains("/logs") => {
            Answer::Json("500 Odd", r#"{"message":"\u0007"}"#)
        }
        _ => Answer::Engine,
    });
    let host = format!("unix://{}", socket.display());
    let variables = [
        ("DOCKER_ENABLED", "true"),
        ("DOCKER_HOST", &host),
        ("CONTAINER_LABELS", "*"),
    ];
    let mut trial = Trial::start("odd names and images", launch().vars(&variables));
    let listed = trial
        .client
        .wait_until(Duration::from_secs(30), |snapshot| {
            snapshot["docker_meta"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
        });
    trial.within("listed after", listed, 30.0);
    let longest = trial
        .client
        .since(0, |lines| lines.iter().map(|line| line.length).max())
        .unwrap_or_default();
    trial.at_most(
        "longest snapshot",
        longest as f64 / f64::from(1 << 20),
        8.0,
        "MiB",
    );
    trial.end()
}

pub(crate) fn of_every_kind() -> Vec<Report> {
    vec![of_a_container(), of_an_engine()]
}

/// The age of a container's newest log line in a snapshot.
fn age(snapshot: &Value, name: &str) -> Option<Duration> {
    let time = |text: &str| humantime::parse_rfc3339(text).ok();
    let newest = snapshot["logs"][name]
        .as_array()?
        .last()?
        .as_str()?
        .split_once(' ')?
        .0;
    let composed: SystemTime = time(snapshot["timestamp"].as_str()?)?;
    Some(composed.duration_since(time(newest)?).unwrap_or_default())
}

/// The bytes that a process has written so far.
fn written(pid: u64) -> u64 {
    let io =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|line| line.parse().ok()).unwrap_or_default()
}

pub(crate) fn flood() -> Vec<Report> {
    const SECONDS: u32 = 60;
    let options = ["--log-opt", "max-size=20m", "--log-opt", "max-file=2"];
    let quiet = Container::run("quiet", &[], "while :; do echo here; sleep 0.2; done");
    quiet.wait_for_line("here");
    let launch = launch().var("DOCKER_ENABLED", "true");
    let mut trial = Trial::start("one container that logs as fast as it can", launch);
    let seen = trial
        .client
        .wait_until(Duration::from_secs(30), |snapshot| {
            age(snapshot, quiet.name()).is_some()
        });
    trial.within("the quiet container was seen after", seen, 30.0);
    let loud = Container::run("loud", &options, &format!("exec yes {}", "w".repeat(1000)));
    let pid = loud.inspect()["State"]["Pid"].as_u64().unwrap();
    thread::sleep(Duration::from_secs(10));
    let (first, before, settled) = (trial.client.count(), written(pid), trial.usage().rss_mib);
    thread::sleep(Duration::from_secs(SECONDS.into()));
    let rate = (written(pid) - before) as f64 / 1e6 / f64::from(SECONDS);
    let growth = trial.usage().rss_mib - settled;
    let oldest = trial.client.since(first, |lines| {
        lines
            .iter()
            .filter_map(|line| age(&line.snapshot, quiet.name()))
            .max()
    });
    trial.check(rate > 0.0, format!("the container wrote {rate:.0} MB/s"));
    trial.within(
        "maximum age of the quiet container's newest log line",
        oldest,
        2.5,
    );
    trial.at_most("memory grew by", growth, 2.0, "MiB");
    let well = trial
        .client
        .newest(|line| docker_is_well(&line.snapshot))
        .unwrap_or_default();
    trial.check(well, "source docker ok");
    drop(loud);
    vec![trial.end()]
}
