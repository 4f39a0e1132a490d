//! Compares the kind of virtualization with `systemd-detect-virt`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use serial_test::parallel;

use crate::support::{CONTAINER, Launch};

/// The output of a command, without the white space at its end.
fn output(command: &[&str]) -> String {
    let done = Command::new(command[0])
        .args(&command[1..])
        .stderr(Stdio::inherit())
        .output();
    let done = done.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// `host.virtualization` of an agent with this launcher and `HOST_ROOT`.
fn virtualization(launcher: &[&str], host_root: &str) -> Value {
    let launch = Launch::new().launched_by(launcher).args(["snapshot"]);
    let finished = launch.var("HOST_ROOT", host_root).run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let snapshot: Value = serde_json::from_str(&finished.stdout.concat()).unwrap();
    snapshot["host"]["virtualization"].clone()
}

#[test]
#[parallel]
fn the_virtualization_is_that_of_systemd_detect_virt() {
    let folder = tempfile::tempdir().unwrap();
    let other_root = folder.path().to_str().unwrap();
    let machine = output(&["systemd-detect-virt", "--vm"]);
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    if namespace == Path::new("pid:[4026531836]") {
        // This machine can have files of a container, if it was made from an image. They do not count.
        assert_eq!(virtualization(&["env"], "/"), machine);
        assert_eq!(virtualization(&["env"], other_root), machine);
        let marked = "mount -t tmpfs none /run; mkdir /run/systemd; echo lxc >/run/systemd/container; exec \"$@\"";
        let marked = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            marked,
            "sh",
        ];
        assert_eq!(virtualization(&marked, "/"), machine);
    }
    for mark in [
        "true",
        "mkdir /run/systemd; echo lxc >/run/systemd/container",
        "mkdir /run/host; echo systemd-nspawn >/run/host/container-manager",
        "touch /run/.containerenv",
    ] {
        // systemd-detect-virt reads no file in /run/systemd if it is process 1 itself. So it is not.
        let script = format!("mount -t tmpfs none /run; {mark}; \"$@\"; exit $?");
        let launcher = [&CONTAINER[..], &["sh", "-ec", &script, "sh"]].concat();
        let expected = output(&[&launcher[..], &["systemd-detect-virt"]].concat());
        assert_eq!(virtualization(&launcher, "/"), expected, "{mark}");
        // The agent measures the host outside of its container.
        assert_eq!(virtualization(&launcher, other_root), machine, "{mark}");
    }
    // The host is itself a container. `HOST_ROOT` is its root directory.
    fs::create_dir_all(folder.path().join("run/systemd")).unwrap();
    fs::write(folder.path().join("run/systemd/container"), "lxc\n").unwrap();
    assert_eq!(virtualization(&CONTAINER, other_root), "lxc");
}
