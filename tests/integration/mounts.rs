//! Tests of unusual mounts. The tests use FUSE, because without privileges a test can mount only FUSE and tmpfs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use serial_test::parallel;

use crate::support::fuse::{Fuse, GIB, mounted};
use crate::support::prometheus::{get, metrics_of};
use crate::support::{DEADLINE, Launch, Namespace};

const FAST: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "300ms"), ("PUBLISH_INTERVAL", "300ms")];

fn agent_in(namespace: &Namespace) -> Launch {
    Launch::new().launched_by(namespace.enter()).vars(&FAST)
}

/// The series of a scrape for file systems that do not answer.
fn failed(scraped: &str) -> Vec<&str> {
    let lines = scraped.lines();
    lines
        .filter(|line| line.starts_with("node_filesystem_device_error{"))
        .filter(|line| value(line) != 0.0)
        .collect()
}

fn value(line: &str) -> f64 {
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The file systems whose mount points start with `beginning`.
fn disks(snapshot: &Value, beginning: &Path) -> Vec<Value> {
    let beginning = beginning.to_str().unwrap();
    let all = snapshot["system"]["disks"].as_array().unwrap().iter();
    all.filter(|disk| disk["mount"].as_str().unwrap().starts_with(beginning))
        .cloned()
        .collect()
}

fn fuse<'f>(folder: &Path, name: &str, source: &'f str, gib: u32) -> Fuse<'f> {
    Fuse {
        point: folder.join(name).display().to_string(),
        kind: "fuse.test",
        source,
        blocks: (gib * GIB, GIB / 2),
        delay: 0.0,
    }
}

/// Three mount points are not UTF-8. Two of these mount points look the same when invalid bytes are replaced.
#[test]
#[parallel]
fn mount_points_that_are_not_utf_8_have_figures() {
    let folder = tempfile::tempdir().unwrap();
    let all = [
        (r"m/cass\xe9", 1),
        (r"m/cass\xe8", 2),
        (r"m/\xff\x09tab", 3),
    ];
    let all = all.map(|(name, gib)| fuse(folder.path(), name, "odd", gib));
    let namespace = mounted(folder.path(), &all, "");
    let agent = agent_in(&namespace).var("METRICS_PORT", "0").start();
    let snapshot = agent.login().snapshot();
    let shown = disks(&snapshot, &folder.path().join("m"));
    let mut sizes: Vec<f64> = shown
        .iter()
        .map(|disk| disk["total"].as_f64().unwrap())
        .collect();
    sizes.sort_by(f64::total_cmp);
    assert_eq!(sizes, [1.0, 2.0, 3.0], "{shown:#?}");
    let mut names: Vec<&str> = shown
        .iter()
        .map(|disk| disk["mount"].as_str().unwrap())
        .collect();
    names.dedup();
    assert_eq!(names.len(), 3, "{names:?}");
    let replaced = |name: &&str| name.contains('\u{fffd}');
    assert!(names.iter().all(replaced), "{names:?}");
    let scraped = get(metrics_of(&agent), "/metrics", &[]).body;
    let series = |name: &str| {
        scraped
            .lines()
            .filter(|line| line.starts_with(name) && line.contains('\u{fffd}'))
            .count()
    };
    assert_eq!(series("node_filesystem_size_bytes"), 3);
    assert_eq!(failed(&scraped), [""; 0]);
}

/// As in `df`, a mount over a parent directory hides a file system, even if the new mount has the same directory.
#[test]
#[parallel]
fn a_hidden_mount_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    let all = [
        fuse(&top, "a", "hidden-a", 1),
        fuse(&top, "b", "hidden-b", 2),
        fuse(folder.path(), "same", "hidden-same", 3),
        fuse(folder.path(), "topmost", "beside", 4),
    ];
    let script = format!(
        "mount -t tmpfs over {top}
         mkdir {top}/a
         mount -t tmpfs over {same}",
        top = top.display(),
        same = folder.path().join("same").display(),
    );
    let namespace = mounted(folder.path(), &all, &script);
    let agent = agent_in(&namespace).start();
    let snapshot = agent.login().snapshot();
    let shown = disks(&snapshot, folder.path());
    let devices: Vec<&Value> = shown.iter().map(|disk| &disk["device"]).collect();
    assert_eq!(devices, ["beside"], "{shown:#?}");
    assert_eq!(snapshot["sources"]["system"]["status"], "ok");
}

/// A file system is not listed while another mount hides it.
#[test]
#[parallel]
fn a_mount_never_has_the_figures_of_another_mount() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let namespace = mounted(
        folder.path(),
        &[fuse(folder.path(), "home", "homes", 5)],
        "",
    );
    let agent = agent_in(&namespace).start();
    let mut client = agent.login();
    let total = |snapshot: &Value| {
        disks(snapshot, &home)
            .first()
            .map(|disk| disk["total"].clone())
    };
    assert_eq!(total(&client.snapshot()), Some(json!(5.0)));
    let run = |arguments: &[&str]| {
        let enter = namespace.enter();
        let done = std::process::Command::new(&enter[0])
            .args(&enter[1..])
            .args(arguments)
            .arg(&home)
            .status();
        assert!(done.unwrap().success(), "{arguments:?}");
    };
    for _ in 0..3 {
        run(&["mount", "-t", "tmpfs", "-o", "size=1m", "protection"]);
        client.snapshot_where("a hidden file system", DEADLINE, |s| {
            let total = total(s);
            assert!(total.is_none() || total == Some(json!(5.0)), "{total:?}");
            total.is_none()
        });
        run(&["umount"]);
        client.snapshot_where("a visible file system", DEADLINE, |s| {
            total(s) == Some(json!(5.0))
        });
    }
}

/// FUSE programs choose the source name freely, for example `/dev/fuse`, and they need no subtype.
#[test]
#[parallel]
fn fuse_file_systems_are_listed_separately() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, kind: &'static str, source: &'static str, gib: u32| Fuse {
        kind,
        ..fuse(folder.path(), &format!("m/{name}"), source, gib)
    };
    let all = [
        of("davfs", "fuse", "https://dav.example/", 1),
        of("keybase", "fuse", "/dev/fuse", 2),
        of("other", "fuse", "/dev/fuse", 3),
        of("rclone", "fuse.rclone", "gdrive:Media", 4),
        of("rclone2", "fuse.rclone", "gdrive:Media", 5),
        of("silent", "fuse", "portal", 0),
        of("sshfs", "fuse.sshfs", "/dev/fuse", 6),
    ];
    let namespace = mounted(folder.path(), &all, "");
    let agent = agent_in(&namespace).var("METRICS_PORT", "0").start();
    let snapshot = agent.login().snapshot();
    let shown = disks(&snapshot, &folder.path().join("m"));
    let totals: Vec<&Value> = shown.iter().map(|disk| &disk["total"]).collect();
    let expected = [
        json!(1.0),
        json!(2.0),
        json!(3.0),
        json!(4.0),
        json!(5.0),
        Value::Null,
        json!(6.0),
    ];
    assert_eq!(totals, expected.iter().collect::<Vec<_>>(), "{shown:#?}");
    // The file system without figures does not count as an error.
    let silent = &shown[5];
    assert_eq!(silent["error"], "the file system reports no figures");
    assert!(
        silent.get("used").is_none() && silent.get("stuck").is_none(),
        "{silent}"
    );
    let scraped = get(metrics_of(&agent), "/metrics", &[]).body;
    assert_eq!(failed(&scraped), [""; 0]);
}

/// The agent's user may not search the parent directory of the mount. The directories of the engine are like this.
#[test]
#[parallel]
fn a_mount_without_permission_does_not_degrade_the_status() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let namespace = mounted(folder.path(), &[fuse(&closed, "volume", "volume", 1)], "");
    // The agent enters only the mount namespace, as an unprivileged user of the host.
    let enter = namespace.enter();
    let target = enter
        .iter()
        .find(|word| word.starts_with("--target="))
        .unwrap();
    let agent = Launch::new()
        .launched_by([
            "nsenter",
            target,
            "--mount",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .vars(&FAST)
        .var("METRICS_PORT", "0")
        .start();
    let snapshot = agent.login().snapshot();
    let shown = disks(&snapshot, &closed);
    assert_eq!(shown.len(), 1, "{snapshot}");
    assert!(
        shown[0]["error"]
            .as_str()
            .unwrap()
            .contains("Permission denied"),
        "{shown:?}"
    );
    assert!(
        shown[0].get("stuck").is_none() && shown[0].get("total").is_none(),
        "{shown:?}"
    );
    assert_eq!(snapshot["status"], "ok");
    let scraped = get(metrics_of(&agent), "/metrics", &[]).body;
    let of_it =
        |line: &&str| line.starts_with("node_filesystem_device_error{") && line.contains("volume");
    assert_eq!(value(scraped.lines().find(of_it).unwrap()), 0.0);
    assert_eq!(failed(&scraped), [""; 0]);
}

/// Ten file systems answer immediately, and ten need 0.3 s each. One after another, the slow file systems would take longer than
/// a round waits.
#[test]
#[parallel]
fn many_slow_file_systems_are_measured_in_parallel_and_delay_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Fuse<'_>> = (0..20)
        .map(|number| Fuse {
            // The slow file systems come first.
            delay: if number < 10 { 0.3 } else { 0.0 },
            ..fuse(
                folder.path(),
                &format!("m/{number:02}"),
                "one of many",
                number + 1,
            )
        })
        .collect();
    let namespace = mounted(folder.path(), &all, "");
    let agent = agent_in(&namespace).start();
    let mut client = agent.login();
    let measured = |snapshot: &Value, wanted: std::ops::RangeInclusive<u32>| {
        let shown = disks(snapshot, &folder.path().join("m"));
        let mut wanted = wanted.map(f64::from);
        wanted.all(|gib| shown.iter().any(|disk| disk["total"].as_f64() == Some(gib)))
    };
    client.snapshot_where("all file systems", DEADLINE, |s| measured(s, 1..=20));
    // From now on every snapshot has the fast file systems, and each slow file system is in some of the snapshots.
    let snapshots: Vec<Value> = (0..10).map(|_| client.snapshot()).collect();
    for snapshot in &snapshots {
        assert!(
            measured(snapshot, 11..=20),
            "{}",
            snapshot["system"]["disks"]
        );
    }
    for gib in 1..=10 {
        assert!(
            snapshots.iter().any(|one| measured(one, gib..=gib)),
            "{gib} GiB"
        );
    }
}
