//! Tests of the disk space of containers: the size of their log files, and the file systems of their volumes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;

use super::container::{Container, unique_name};
use super::engine::Engine;
use super::snapshots::{Snapshots, metadata};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;
use crate::support::prometheus::{get, metrics_of};

/// Runs a command. Returns its output without the line end.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{command} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The files of a container's log.
fn log_files(container: &Container<'_>) -> Vec<PathBuf> {
    let path = container.inspect()["LogPath"].as_str().unwrap().to_owned();
    let files = fs::read_dir(Path::new(&path).parent().unwrap()).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|file| file.to_str().unwrap().starts_with(&path))
        .collect()
}

/// The size of files, in bytes, as `du -b` counts it.
fn du(files: &[PathBuf]) -> u64 {
    let files = files.iter().map(|file| file.to_str().unwrap());
    let all = output("du", &[&["-cb"], &files.collect::<Vec<_>>()[..]].concat());
    let total = all.lines().last().unwrap();
    total.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[parallel]
fn the_size_of_a_log_includes_rotated_files() {
    let script = "lines() { seq -w $1 | sed 's/$/ aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/'; }; lines 300; echo first; \
        until [ -e /tmp/go ]; do sleep 0.1; done; lines 4000; echo last; sleep 1000";
    let rotation = ["--log-opt", "max-size=100k", "--log-opt", "max-file=3"];
    let container = Container::run("log-size", &rotation, script);
    container.wait_for_line("first");
    let agent = launch().var("METRICS_PORT", "0").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let size = |snapshot: &Value| metadata(snapshot, container.name())?["log_bytes"].as_u64();
    let mut until_all_is_counted = |files: usize| {
        let all = log_files(&container);
        assert_eq!(all.len(), files, "{all:?}");
        let expected = du(&all);
        snapshots.until("the size of the log", DEADLINE, |snapshot| {
            size(snapshot) == Some(expected)
        });
        expected
    };
    let before = until_all_is_counted(1);
    container.exec("touch /tmp/go");
    container.wait_for_line("last");
    let after = until_all_is_counted(3);
    assert!(before < 50_000 && after > 200_000, "{before} {after}");

    let scraped = get(metrics_of(&agent), "/metrics", &[]).body;
    let id = format!("id=\"{}\"", container.short_id());
    let series = scraped
        .lines()
        .find(|line| line.starts_with("system_agent_container_log_bytes{") && line.contains(&id));
    let value = series.unwrap().rsplit_once(' ').unwrap().1;
    assert_eq!(value.parse::<f64>().unwrap(), after as f64);
}

/// A loop device with an ext4 file system. Removed on drop.
struct LoopDevice {
    device: String,
    /// Where the file system is mounted.
    point: Option<PathBuf>,
    folder: TempDir,
}

impl LoopDevice {
    fn new() -> Self {
        let folder = TempDir::new_in("/var/tmp").unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let image = image.to_str().unwrap();
        output("mkfs.ext4", &["-q", image]);
        Self {
            device: output("losetup", &["--find", "--show", image]),
            point: None,
            folder,
        }
    }

    fn mounted() -> Self {
        let mut this = Self::new();
        let point = this.folder.path().join("point");
        fs::create_dir(&point).unwrap();
        output("mount", &[&this.device, point.to_str().unwrap()]);
        this.point = Some(point);
        this
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Some(point) = &self.point {
            let _ = Command::new("umount").arg(point).status();
        }
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A volume of the engine. Removed on drop.
struct EngineVolume(String);

impl EngineVolume {
    fn on(device: &str) -> Self {
        let name = unique_name("volume");
        let device = format!("device={device}");
        let options = ["--opt", "type=ext4", "--opt", &device, &name];
        Engine::local().docker([&["volume", "create"], &options[..]].concat());
        Self(name)
    }
}

impl Drop for EngineVolume {
    fn drop(&mut self) {
        let _ = Engine::local().try_docker(["volume", "rm", &self.0]);
    }
}

#[test]
#[parallel]
fn volumes_with_a_file_system_of_their_own_are_listed_with_their_mount_points() {
    let (bound, own) = (LoopDevice::mounted(), LoopDevice::new());
    let volume = EngineVolume::on(&own.device);
    let point = bound.point.clone().unwrap();
    let source = point.join("sub");
    fs::create_dir(&source).unwrap();
    let same = TempDir::new_in("/var/tmp").unwrap();
    let options = [
        format!("--volume={}:/bound", source.display()),
        format!("--volume={}:/own", volume.0),
        format!("--volume={}:/same", same.path().display()),
        "--volume=/plain".to_owned(),
        "--tmpfs=/memory".to_owned(),
    ];
    let options = options.each_ref().map(String::as_str);
    // The list must change while the agent runs.
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.next();
    let container = Container::run("volumes", &options, "sleep 1000");
    let name = container.name().to_owned();
    let listed = |snapshot: &Value| {
        let volumes = metadata(snapshot, &name)?["volumes"].as_array()?;
        let mut volumes = volumes.clone();
        volumes.sort_by_key(|one| one["destination"].as_str().unwrap().to_owned());
        Some(volumes)
    };
    let has_both = |snapshot: &Value| listed(snapshot).is_some();
    let snapshot = snapshots.until("the volumes", DEADLINE, has_both);
    let inspected = container.inspect();
    let mounts = inspected["Mounts"].as_array().unwrap();
    let source_of = |destination: &str| {
        let mount = mounts.iter().find(|one| one["Destination"] == destination);
        mount.unwrap()["Source"].clone()
    };
    let expected = [
        json!({"source": source, "destination": "/bound", "mount": point}),
        json!({"name": volume.0, "source": source_of("/own"), "destination": "/own", "mount": source_of("/own")}),
    ];
    assert_eq!(listed(&snapshot).unwrap(), expected);
    for one in &expected {
        let disks = snapshot["system"]["disks"].as_array().unwrap();
        let disk = disks.iter().find(|disk| disk["mount"] == one["mount"]);
        let disk = disk.unwrap_or_else(|| panic!("not in {disks:?}"));
        let df = [
            "--block-size=1",
            "--output=size",
            one["mount"].as_str().unwrap(),
        ];
        let df = output("df", &df);
        let size: f64 = df.lines().last().unwrap().trim().parse().unwrap();
        let total = disk["total"].as_f64().unwrap();
        assert!((total - size / f64::from(1 << 30)).abs() < 0.001, "{disk}");
    }
    // The engine unmounts the volume before the device is removed.
    drop(container);
    let gone = |snapshot: &Value| listed(snapshot).is_none();
    snapshots.until("the end of the container", DEADLINE, gone);
}
