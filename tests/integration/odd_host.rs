//! Tests of hosts with unusual names, and of hosts that change while the agent runs.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use serial_test::parallel;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{Agent, DEADLINE, Launch, Namespace, schema};

const INTERVALS: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "300ms"), ("PUBLISH_INTERVAL", "300ms")];

/// The series of a scrape that start with `prefix`.
fn series(agent: &Agent, prefix: &str) -> Vec<String> {
    let text = get(metrics_of(agent), "/metrics", &[]).body;
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

/// Three sensors have the same parent device, two sensors have the same name and label, and one sensor has unusual bytes in its
/// name.
#[test]
#[parallel]
fn sensors_with_the_same_names_are_listed_separately() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("class/hwmon");
    let make = |number: u32, parent: &str, files: &[(&str, &[u8])]| {
        let parent = folder.path().join("devices").join(parent);
        let own = parent.join(format!("hwmon{number}"));
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(&class).unwrap();
        for (file, text) in files {
            fs::write(own.join(file), text).unwrap();
        }
        std::os::unix::fs::symlink(&parent, own.join("device")).unwrap();
        std::os::unix::fs::symlink(&own, class.join(format!("hwmon{number}"))).unwrap();
    };
    for number in 0..3 {
        let name = format!("mt7996_phy0_{number}");
        let celsius = format!("{}", 50_000 + number * 5000);
        let files: [(&str, &[u8]); 2] = [
            ("name", name.as_bytes()),
            ("temp1_input", celsius.as_bytes()),
        ];
        make(number, "ieee80211/phy0", &files);
    }
    for number in 0..2 {
        let files: [(&str, &[u8]); 3] = [
            ("name", b"coretemp"),
            ("temp2_input", b"41000"),
            ("temp2_label", b"Core 0"),
        ];
        make(10 + number, &format!("platform/coretemp.{number}"), &files);
    }
    let odd: [(&str, &[u8]); 3] = [
        ("name", b"odd\xffname"),
        ("temp1_input", b" 33000"),
        ("temp1_label", b"La\"bel\\\xe9"),
    ];
    make(20, "platform/odd", &odd);
    let script = format!(
        "mount -t tmpfs none /sys/class
         mkdir /sys/class/hwmon
         cp -a {}/. /sys/class/hwmon/",
        class.display()
    );
    let namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new()
        .launched_by(namespace.enter())
        .vars(&INTERVALS)
        .var("METRICS_PORT", "0")
        .start();
    let snapshot = agent.login().snapshot();
    let shown = snapshot["system"]["temperatures"].as_array().unwrap();
    assert_eq!(shown.len(), 6, "{shown:#?}");
    let different: BTreeSet<String> = shown.iter().map(Value::to_string).collect();
    assert_eq!(different.len(), 6, "{shown:#?}");
    let keys: BTreeSet<String> = shown
        .iter()
        .map(|one| format!("{} {}", one["chip"], one["input"]))
        .collect();
    assert_eq!(keys.len(), 6, "{shown:#?}");
    let series = series(&agent, "node_hwmon_temp_celsius{");
    for chip in [
        "ieee80211_phy0_mt7996_phy0_0",
        "ieee80211_phy0_mt7996_phy0_1",
        "ieee80211_phy0_mt7996_phy0_2",
        "platform_coretemp_0",
        "platform_coretemp_1",
        "platform_odd",
    ] {
        let with = series
            .iter()
            .filter(|one| one.contains(&format!("chip=\"{chip}\"")));
        assert_eq!(with.count(), 1, "{chip} in {series:#?}");
    }
    assert_eq!(series.len(), 6, "{series:#?}");
}

/// The clock is set and the operating system is upgraded while the agent runs.
#[test]
#[parallel]
fn the_boot_time_and_the_version_are_current() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let booted = |at: &str| {
        let line = |line: &str| match line.strip_prefix("btime ") {
            Some(_) => format!("btime {at}\n"),
            None => format!("{line}\n"),
        };
        fs::write(path("stat"), stat.lines().map(line).collect::<String>()).unwrap();
    };
    booted("1000");
    for folder in ["host/etc/static", "host/nix/store"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    fs::write(path("host/nix/store/old"), "NAME=NixOS\nVERSION_ID=23.11\n").unwrap();
    fs::write(path("host/nix/store/new"), "NAME=NixOS\nVERSION_ID=24.05\n").unwrap();
    let link = |target: &str, at: &str| std::os::unix::fs::symlink(target, path(at)).unwrap();
    link("/nix/store/old", "host/etc/static/os-release");
    link("/etc/static/os-release", "host/etc/os-release");
    fs::write(path("host/nix/store/passwd"), "captain:x:0:0:::\n").unwrap();
    link("/nix/store/passwd", "host/etc/passwd");
    let script = format!("mount --bind {} /proc/stat", path("stat").display());
    let namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new()
        .launched_by(namespace.enter())
        .vars(&INTERVALS)
        .vars(&[("METRICS_PORT", "0"), ("TOP_PROCESSES", "1000")])
        .var("HOST_ROOT", path("host"))
        .start();
    let mut client = agent.login();
    let host = |snapshot: &Value| {
        (
            snapshot["host"]["boot_time"].clone(),
            snapshot["host"]["os"].clone(),
        )
    };
    let first = client.snapshot();
    assert_eq!(host(&first), (json!(1000), json!("NixOS 23.11")));
    let users = |snapshot: &Value| -> BTreeSet<String> {
        let list = snapshot["system"]["top_memory"].as_array().unwrap().iter();
        list.filter_map(|one| Some(one["user"].as_str()?.to_owned()))
            .collect()
    };
    assert!(users(&first).contains("captain"), "{:?}", users(&first));
    booted("1795818000");
    fs::remove_file(path("host/etc/static/os-release")).unwrap();
    link("/nix/store/new", "host/etc/static/os-release");
    fs::write(path("host/nix/store/passwd"), "admiral:x:0:0:::\n").unwrap();
    client.snapshot_where("the new boot time, version and user", DEADLINE, |s| {
        host(s) == (json!(1_795_818_000), json!("NixOS 24.05")) && users(s).contains("admiral")
    });
    let text = get(metrics_of(&agent), "/metrics", &[]).body;
    assert!(
        text.contains("\nnode_boot_time_seconds 1795818000"),
        "{text}"
    );
    assert!(text.contains("pretty_name=\"NixOS 24.05\""), "{text}");
}

/// Only the two ends of a veth pair have the kind `veth`. All interfaces have different names.
#[test]
#[parallel]
fn tunnels_are_not_veths_and_odd_names_stay_distinct() {
    let namespace = Namespace::start(
        &["net", "mount"],
        "mount -t sysfs sys /sys
         ip link set lo up
         ip link add base type ifb
         ip link add pair0 type veth peer name pair1
         ip link add \"$(printf 'x\\351')\" type ifb
         ip link add \"$(printf 'x\\350')\" type ifb
         ip address add 192.0.2.1/24 dev pair0
         ip link set pair0 up
         ip link add mac0 link pair0 type macvlan
         ip link add vx0 type vxlan id 5 dstport 0 dev pair0
         for kind in ipip gre sit vti gretap geneve; do
             # Some kernels do not have all of these kinds.
             ip link add $kind-7 type $kind local 192.0.2.1 remote 192.0.2.2 dev pair0 || true
         done 2>/dev/null",
    );
    let finished = Launch::new()
        .launched_by(namespace.enter())
        .args(["snapshot"])
        .run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let snapshot = schema::snapshot(&finished.stdout[0]);
    let network = snapshot["system"]["network"].as_array().unwrap();
    let names: BTreeSet<&str> = network
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), network.len(), "{names:?}");
    assert!(
        names.contains("x\u{fffd} (x\\xe8)") && names.contains("x\u{fffd} (x\\xe9)"),
        "{names:?}"
    );
    let veths: BTreeSet<&str> = network
        .iter()
        .filter(|one| one["kind"] == "veth")
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(veths, BTreeSet::from(["pair0", "pair1"]), "{network:#?}");
}
