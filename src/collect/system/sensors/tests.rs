use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use std::path::Path;

use super::{PLAUSIBLE, Sensors, celsius};
use crate::model::{SensorChip, SensorKind, SensorLabel, Temperature};

#[test]
fn every_working_temperature_sensor_is_read() {
    let class = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = class.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("hwmon1/name", "coretemp\n");
    write("hwmon1/temp10_input", "41000\n");
    write("hwmon1/temp2_input", "45500\n");
    write("hwmon1/temp2_label", "Core 0\n");
    write("hwmon1/temp2_crit", "100000\n");
    write("hwmon1/temp3_input", "-128000\n");
    write("hwmon1/temp4_input", "nonsense\n");
    write("hwmon1/tempx_input", "1000\n");
    write("hwmon1/fan1_input", "1200\n");
    write("hwmon1/fan2_input", "broken\n");
    write("hwmon1/in0_input", "792\n");
    write("hwmon1/in0_label", "Vcore\n");
    write("hwmon1/power1_input", "50000000\n");
    write("hwmon1/power1_average", "45500000\n");
    write("hwmon0/name", "nvme\n");
    write("hwmon0/temp1_input", "-5250\n");
    write("hwmon0/temp1_crit", "0\n");
    // Another device has the same name. The paths of the two devices differ.
    write("devices/pci0/nvme/nvme1/model", "x\n");
    write("hwmon2/name", "nvme\n");
    write("hwmon2/temp1_input", "30000\n");
    symlink(
        class.path().join("devices/pci0/nvme/nvme1"),
        class.path().join("hwmon2/device"),
    )
    .unwrap();
    let sensor = |device: &str, sensor: &str, exact: f64, critical, names: [&str; 2]| Temperature {
        device: device.to_owned(),
        sensor: sensor.to_owned(),
        chip: names[0].to_owned(),
        input: names[1].to_owned(),
        celsius: super::rounded(exact),
        critical,
        exact,
    };
    let expected = [
        sensor(
            "coretemp",
            "Core 0",
            45.5,
            Some(100.0),
            ["coretemp", "temp2"],
        ),
        sensor("coretemp", "temp10", 41.0, None, ["coretemp", "temp10"]),
        sensor("nvme", "temp1", -5.25, None, ["nvme", "temp1"]),
        sensor("nvme", "temp1", 30.0, None, ["nvme_nvme1", "temp1"]),
    ];
    let mut sensors = Sensors::new(class.path());
    let (temperatures, others) = sensors.shown();
    assert_eq!(temperatures, expected);
    let others: Vec<_> = others
        .iter()
        .map(|one| {
            (
                &*one.device,
                &*one.input,
                &*one.sensor,
                &one.kind,
                one.value,
            )
        })
        .collect();
    let expected = [
        ("coretemp", "fan1", "fan1", &SensorKind::Fan, 1200.0),
        ("coretemp", "in0", "Vcore", &SensorKind::Voltage, 0.792),
        (
            "coretemp",
            "power1",
            "power1",
            &SensorKind::AveragePower,
            45.5,
        ),
        ("coretemp", "power1", "power1", &SensorKind::Power, 50.0),
    ];
    assert_eq!(others, expected);
    write("hwmon1/temp10_input", "43000\n");
    assert_eq!(sensors.shown().0[1].celsius, 43.0);
    let none = Sensors::new(&class.path().join("none")).shown();
    assert!(none.0.is_empty() && none.1.is_empty());
}

/// Unpacks a directory tree from node_exporter's archive of test data.
fn unpack(archive: &str, into: &Path) {
    let mut lines = archive.lines();
    while let Some(line) = lines.next() {
        if let Some(folder) = line.strip_prefix("Directory: ") {
            fs::create_dir_all(into.join(folder)).unwrap();
        } else if let Some(path) = line.strip_prefix("Path: ") {
            let path = into.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let next = lines.next().unwrap();
            if let Some(target) = next.strip_prefix("SymlinkTo: ") {
                symlink(target, path).unwrap();
            } else {
                let count: usize = next.strip_prefix("Lines: ").unwrap().parse().unwrap();
                let text: Vec<_> = lines.by_ref().take(count).collect();
                fs::write(path, text.join("\n").replace("EOF", "") + "\n").unwrap();
            }
        }
    }
}

#[test]
fn devices_have_the_same_names_as_in_node_exporter() {
    let tree = tempfile::tempdir().unwrap();
    let archive = include_str!("../../../../tests/fixtures/node-exporter-hwmon.ttar");
    unpack(archive, tree.path());
    let mut sensors = Sensors::new(&tree.path().join("sys/class/hwmon"));
    let expected = include_str!("../../../../tests/fixtures/node-exporter-hwmon.txt");
    let lines = |prefix: &str| -> Vec<String> {
        let lines = expected
            .lines()
            .filter_map(|line| line.strip_prefix(prefix));
        lines.map(str::to_owned).collect()
    };
    let (temperatures, others) = sensors.shown();
    for (kind, prefix) in [
        (SensorKind::Fan, "node_hwmon_fan_rpm"),
        (SensorKind::Voltage, "node_hwmon_in_volts"),
    ] {
        let of_kind = others.iter().filter(|one| one.kind == kind);
        let of_kind = of_kind.map(|one| {
            format!(
                "{{chip=\"{}\",sensor=\"{}\"}} {}",
                one.chip, one.input, one.value
            )
        });
        let mut of_kind: Vec<String> = of_kind.collect();
        of_kind.sort();
        assert_eq!(of_kind, lines(prefix));
    }
    let temperatures = temperatures.into_iter().map(|one| {
        let Temperature {
            chip, input, exact, ..
        } = one;
        format!("{{chip=\"{chip}\",sensor=\"{input}\"}} {exact}")
    });
    let mut temperatures: Vec<String> = temperatures.collect();
    temperatures.sort();
    assert_eq!(temperatures, lines("node_hwmon_temp_celsius"));
    let named = sensors.named();
    let chips = named
        .chips
        .iter()
        .map(|SensorChip { chip, device }| format!("{{chip=\"{chip}\",chip_name=\"{device}\"}} 1"));
    let mut chips: Vec<String> = chips.collect();
    chips.sort();
    assert_eq!(chips, lines("node_hwmon_chip_names"));
    let labels = named.labels.iter().map(|one| {
        let SensorLabel {
            chip,
            sensor,
            label,
        } = one;
        format!("{{chip=\"{chip}\",label=\"{label}\",sensor=\"{sensor}\"}} 1")
    });
    let mut labels: Vec<String> = labels.collect();
    labels.sort();
    assert_eq!(labels, lines("node_hwmon_sensor_label"));
}

#[test]
fn every_sensor_has_a_unique_name() {
    let tree = tempfile::tempdir().unwrap();
    let class = tree.path().join("class");
    let make = |parent: &str, number: u32, name: &[u8]| {
        let folder = class.join(format!("hwmon{number}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), name).unwrap();
        for input in 1..=2 {
            fs::write(folder.join(format!("temp{input}_input")), " 33000\n").unwrap();
            fs::write(folder.join(format!("temp{input}_label")), b"\xe9\n").unwrap();
        }
        let parent = tree.path().join("devices").join(parent);
        fs::create_dir_all(&parent).unwrap();
        symlink(parent, folder.join("device")).unwrap();
    };
    // One parent with three pairs of devices: same name, no usable name, and names that are equal after `clean`.
    make("platform/a", 0, b"x");
    make("platform/a", 1, b"x");
    make("platform/a", 2, b"");
    make("platform/a", 3, b"\xff");
    make("platform/a", 4, b"y\xe8");
    make("platform/a", 5, b"y\xe9");
    make("platform/a", 6, b"own");
    // Other parents, whose names equal the longer name of a device above.
    make("platform/a_own", 7, b"own");
    make("platform/a-own", 8, b"own");
    let read = Sensors::new(&class).shown().0;
    assert_eq!(read.len(), 18);
    let mut names: Vec<_> = read.iter().map(|one| (&one.chip, &one.input)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 18, "{read:#?}");
}

proptest! {
    #[test]
    fn a_parsed_temperature_is_always_plausible(text in "\\PC*|-?[0-9]{1,20}", thousandths in -70_000..260_000_i64) {
        for text in [text, format!("{thousandths}")] {
            prop_assert!(celsius(&text).is_none_or(|celsius| PLAUSIBLE.contains(&celsius)));
        }
    }
}

/// To read a sensor of a GPU wakes the GPU.
#[test]
fn the_sensors_of_a_sleeping_gpu_are_not_read() {
    let class = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = class.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (number, name) in [(0, "amdgpu"), (1, "nvme")] {
        write(&format!("hwmon{number}/name"), &format!("{name}\n"));
        write(&format!("hwmon{number}/temp1_input"), "41000\n");
        write(
            &format!("hwmon{number}/device/power/runtime_status"),
            "suspended\n",
        );
    }
    let mut sensors = Sensors::new(class.path());
    let mut read = || -> Vec<_> {
        let (temperatures, _) = sensors.shown();
        temperatures.into_iter().map(|one| one.device).collect()
    };
    assert_eq!(read(), ["nvme"]);
    write("hwmon0/device/power/runtime_status", "active\n");
    assert_eq!(read(), ["amdgpu", "nvme"]);
    write("hwmon0/device/power/runtime_status", "suspending\n");
    assert_eq!(read(), ["nvme"]);
}
