//! Unit tests of the metrics: the tables are complete, and the points of a recorded snapshot are right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics};

use prost::Message as _;

use super::{
    CONTAINERS, CONVERSIONS, Exporter, HOST, HostResource, NOT_SENT, NameSet, own_name, sent,
};
use crate::model::{
    Kernel, KernelFamily, KernelRow, KernelStatus, SamplePart, Snapshot, TextFamily, TextKind,
    TextSample, Textfiles,
};
use crate::publish::figures::families;
use crate::publish::on_request::ReadFigures;
use crate::settings::{OtlpSettings, OtlpSignals};

const ALL_NAMES: [NameSet; 2] = [NameSet::Conventions, NameSet::Receivers];

fn settings(names: NameSet) -> OtlpSettings {
    OtlpSettings {
        metrics: None,
        logs: None,
        signals: OtlpSignals {
            metrics: true,
            logs: false,
            events: false,
        },
        interval: None,
        names,
        point_attributes: vec!["container.name".to_owned()],
        resource: vec![("team".to_owned(), "edge".to_owned())],
        service_name: None,
        state: None,
    }
}

fn exporter(names: NameSet) -> Exporter {
    let settings = settings(names);
    let resource = HostResource::new(&settings, Some("0123".to_owned()));
    Exporter::new(&settings, Arc::new(resource), Duration::from_secs(5))
}

/// A sample of a text file: its part, labels and value.
type Sample<'s> = (SamplePart, &'s [(&'s str, &'s str)], f64);

/// The figures that are read for each export.
fn read_figures() -> ReadFigures {
    let row = |labels: Vec<(&'static str, String)>, figures: &[(&'static str, f64)]| KernelRow {
        labels,
        figures: figures
            .iter()
            .map(|(name, value)| ((*name).into(), *value))
            .collect(),
    };
    let family = |name: &'static str, row: KernelRow| KernelFamily {
        name,
        status: KernelStatus::Read,
        duration: Duration::ZERO,
        rows: vec![row],
    };
    let disk = Snapshot::recorded().system.disk_io[0].device.clone();
    let disk_figures = [
        ("reads_merged", 1.0),
        ("writes_merged", 2.0),
        ("read_time", 0.5),
        ("write_time", 1.5),
        ("io_now", 3.0),
        ("io_time_weighted", 4.5),
    ];
    let families = vec![
        family("stat", row(vec![], &[("processes", 7.0), ("ctxt", 9.0)])),
        family(
            "vmstat",
            row(
                vec![],
                &[
                    ("pgfault", 10.0),
                    ("pgmajfault", 4.0),
                    ("pswpin", 1.0),
                    ("pswpout", 2.0),
                ],
            ),
        ),
        family(
            "meminfo",
            row(vec![], &[("SReclaimable", 4096.0), ("SUnreclaim", 8192.0)]),
        ),
        family("diskstats", row(vec![("device", disk)], &disk_figures)),
    ];
    let family = |name: &str, kind, samples: &[Sample<'_>]| TextFamily {
        name: name.to_owned(),
        kind,
        help: None,
        samples: samples
            .iter()
            .map(|(part, labels, value)| TextSample {
                part: *part,
                labels: labels
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                value: *value,
            })
            .collect(),
    };
    let textfiles = Textfiles {
        families: vec![
            Arc::new(family(
                "backup_size_bytes",
                TextKind::Gauge,
                &[(SamplePart::Value, &[("job", "db")], 1.5)],
            )),
            Arc::new(family(
                "wait_seconds",
                TextKind::Histogram,
                &[
                    (SamplePart::Bucket, &[("le", "1")], 2.0),
                    (SamplePart::Bucket, &[("le", "+Inf")], 3.0),
                    (SamplePart::Sum, &[], 4.5),
                    (SamplePart::Count, &[], 3.0),
                ],
            )),
        ],
        ..Textfiles::default()
    };
    ReadFigures {
        kernel: Some(Arc::new(Kernel {
            families,
            ..Kernel::default()
        })),
        textfiles: Some(Arc::new(textfiles)),
        ended: Arc::default(),
    }
}

fn requests(names: NameSet, snapshot: &Snapshot) -> Vec<ExportMetricsServiceRequest> {
    let requests = exporter(names)
        .requests(snapshot, &read_figures())
        .into_iter();
    requests
        .map(|request| ExportMetricsServiceRequest::decode(&*request).unwrap())
        .collect()
}

fn resources(names: NameSet, snapshot: &Snapshot) -> Vec<ResourceMetrics> {
    let requests = requests(names, snapshot).into_iter();
    requests
        .flat_map(|request| request.resource_metrics)
        .collect()
}

fn metrics(resource: &ResourceMetrics) -> &[Metric] {
    &resource.scope_metrics[0].metrics
}

fn points(metric: &Metric) -> &[NumberDataPoint] {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => &gauge.data_points,
        Data::Sum(sum) => &sum.data_points,
        other => panic!("unexpected: {other:?}"),
    }
}

fn shown(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.as_ref().unwrap().value.as_ref().unwrap() {
        Attribute::StringValue(text) => text.clone(),
        Attribute::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.iter().map(|one| (one.key.clone(), text(one)));
    pairs.collect()
}

/// Returns the points of a metric, as attributes and values.
fn read(resource: &ResourceMetrics, name: &str) -> Vec<(String, f64)> {
    let metric = metrics(resource).iter().find(|metric| metric.name == name);
    let metric = metric.unwrap_or_else(|| panic!("no {name}"));
    let point = |point: &NumberDataPoint| {
        let attributes = shown(&point.attributes);
        let pairs: Vec<_> = attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let value = match point.value.unwrap() {
            Value::AsInt(value) => value as f64,
            Value::AsDouble(value) => value,
        };
        (pairs.join(","), value)
    };
    points(metric).iter().map(point).collect()
}

#[test]
fn every_family_is_sent_or_listed_with_the_reason_why_not() {
    let known: BTreeSet<&str> = families().map(|family| family.name).collect();
    let of_rows = |names: NameSet| {
        let host = HOST
            .iter()
            .filter(move |row| row.set.has(names))
            .flat_map(|row| row.families);
        let containers = CONTAINERS
            .iter()
            .filter(move |row| row.is_in(names))
            .flat_map(|row| row.families);
        host.chain(containers).copied()
    };
    for names in ALL_NAMES {
        let rows: BTreeSet<&str> = of_rows(names).collect();
        for family in families() {
            let is_listed = NOT_SENT.iter().any(|(name, _)| *name == family.name);
            let is_in_row = rows.contains(family.name);
            let is_sent = sent(family, names);
            let ways = [is_listed, is_in_row, is_sent.is_some()];
            assert_eq!(
                ways.iter().filter(|way| **way).count(),
                1,
                "{} {names:?}: {ways:?}",
                family.name
            );
            // The figures of containers belong to their own resources.
            if is_sent.is_some() {
                assert!(
                    !family.labels.contains(&"id") || family.name.contains("btrfs"),
                    "{}",
                    family.name
                );
            }
        }
        let named = rows
            .iter()
            .copied()
            .chain(NOT_SENT.iter().map(|(name, _)| *name));
        let named = named.chain(CONVERSIONS.iter().map(|one| one.family));
        let unknown: Vec<_> = named.filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "{names:?}");
    }
    assert!(NOT_SENT.iter().all(|(_, reason)| !reason.is_empty()));
}

#[test]
fn every_row_has_points_in_the_recorded_snapshot() {
    let mut snapshot = Snapshot::recorded();
    // The recorded containers have no CPU limit, and cgroup v1.
    for one in Arc::make_mut(&mut snapshot.containers) {
        one.cpu_limit = Some(1.5);
        one.pids_limit = Some(100);
        one.memory_percent = Some(1.0);
        Arc::make_mut(&mut one.exact).cpu_modes_ns = Some((1_000_000_000, 2_000_000_000));
    }
    for names in ALL_NAMES {
        let sent: Vec<_> = resources(names, &snapshot);
        let found: BTreeSet<&str> = sent
            .iter()
            .flat_map(metrics)
            .map(|metric| &*metric.name)
            .collect();
        let host = HOST
            .iter()
            .filter(|row| row.set.has(names))
            .map(|row| row.name);
        let containers = CONTAINERS
            .iter()
            .filter(|row| row.is_in(names))
            .map(|row| row.name);
        let missing: Vec<_> = host
            .chain(containers)
            .filter(|name| !found.contains(name))
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "{names:?}");
    }
}

#[test]
fn no_two_points_are_the_same_series() {
    let snapshot = Snapshot::recorded();
    for names in ALL_NAMES {
        let mut kinds = BTreeMap::new();
        for resource in resources(names, &snapshot) {
            let mut series = BTreeSet::new();
            let names: Vec<_> = metrics(&resource).iter().map(|one| &one.name).collect();
            let different: BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), different.len(), "a metric is there twice");
            for metric in metrics(&resource) {
                let is_name = |one: char| {
                    one.is_ascii_lowercase() || one.is_ascii_digit() || "._".contains(one)
                };
                assert!(metric.name.chars().all(is_name), "{metric:?}");
                let kind = (
                    metric.unit.clone(),
                    std::mem::discriminant(metric.data.as_ref().unwrap()),
                );
                let before = kinds
                    .entry(metric.name.clone())
                    .or_insert_with(|| kind.clone());
                assert_eq!(*before, kind, "{}", metric.name);
                for point in points(metric) {
                    let attributes = shown(&point.attributes);
                    assert_eq!(
                        attributes.len(),
                        point.attributes.len(),
                        "{} has an attribute twice",
                        metric.name
                    );
                    assert!(
                        series.insert((metric.name.clone(), attributes)),
                        "{}: {point:?}",
                        metric.name
                    );
                }
            }
        }
    }
}

#[test]
fn the_figures_of_the_host_have_the_names_of_the_conventions() {
    let snapshot = Snapshot::recorded();
    let all = resources(NameSet::Conventions, &snapshot);
    let host = &all[0];
    let attributes = shown(&host.resource.as_ref().unwrap().attributes);
    for (key, value) in [
        ("service.name", "system-agent"),
        ("host.name", &*snapshot.host.hostname),
        ("host.id", "0123"),
        ("os.type", "linux"),
        ("team", "edge"),
    ] {
        assert_eq!(
            attributes.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
    let cpu = read(host, "system.cpu.time");
    assert_eq!(cpu.len(), 16);
    assert!(
        cpu.contains(&("cpu.logical_number=11,cpu.mode=interrupt".to_owned(), 11.05)),
        "{cpu:?}"
    );
    assert_eq!(
        read(host, "system.memory.limit"),
        [(String::new(), 8_123_456_512.0)]
    );
    let memory = read(host, "system.memory.usage");
    assert_eq!(
        memory.iter().map(|(_, bytes)| bytes).sum::<f64>(),
        8_123_456_512.0
    );
    let disk = &snapshot.system.disk_io[0];
    let io = read(host, "system.disk.io");
    let expected = format!("disk.io.direction=write,system.device={}", disk.device);
    assert!(io.contains(&(expected, disk.write_bytes as f64)), "{io:?}");
    assert_eq!(
        read(host, "hw.temperature")[0],
        (
            "hw.id=platform_coretemp_0/temp1,hw.name=Package id 0,hw.parent=platform_coretemp_0"
                .to_owned(),
            45.125
        )
    );
    assert_eq!(
        read(host, "hw.battery.charge"),
        [("hw.id=BAT0".to_owned(), 0.81)]
    );
    assert_eq!(
        read(host, "system_agent.output.sent"),
        [("output=otlp".to_owned(), 12.0)]
    );
    let uptime = metrics(host)
        .iter()
        .find(|metric| metric.name == "system.disk.io")
        .unwrap();
    let start = points(uptime)[0].start_time_unix_nano;
    assert_eq!(start, snapshot.host.boot_time * 1_000_000_000);
}

#[test]
fn the_kernels_own_figures_and_those_of_text_files_are_sent() {
    let snapshot = Snapshot::recorded();
    let disk = &snapshot.system.disk_io[0].device;
    let conventions = &resources(NameSet::Conventions, &snapshot)[0];
    let receivers = &resources(NameSet::Receivers, &snapshot)[0];
    let point = |attributes: &str, value: f64| (attributes.to_owned(), value);
    assert_eq!(
        read(conventions, "system.paging.faults"),
        [
            point("system.paging.fault.type=major", 4.0),
            point("system.paging.fault.type=minor", 6.0)
        ]
    );
    assert_eq!(
        read(receivers, "system.processes.created"),
        [point("", 7.0)]
    );
    let merged = format!("disk.io.direction=write,system.device={disk}");
    assert!(read(conventions, "system.disk.merged").contains(&point(&merged, 2.0)));
    let pending = format!("device={disk}");
    assert_eq!(
        read(receivers, "system.disk.pending_operations"),
        [point(&pending, 3.0)]
    );
    let all = resources(NameSet::Conventions, &snapshot);
    let [.., backup, wait] = &all[..] else {
        panic!("too few resources");
    };
    assert_eq!(backup.resource, conventions.resource);
    assert_eq!(read(backup, "backup_size_bytes"), [point("job=db", 1.5)]);
    assert_eq!(
        read(wait, "wait_seconds_bucket"),
        [point("le=1", 2.0), point("le=+Inf", 3.0)]
    );
    assert_eq!(read(wait, "wait_seconds_sum"), [point("", 4.5)]);
}

#[test]
fn each_container_is_a_resource_and_its_points_have_its_name() {
    let snapshot = Snapshot::recorded();
    let all = resources(NameSet::Conventions, &snapshot);
    // The host, the containers, and two metrics of text files.
    assert_eq!(all.len(), 1 + snapshot.containers.len() + 2);
    for (resource, one) in all[1..].iter().zip(snapshot.containers.iter()) {
        let attributes = shown(&resource.resource.as_ref().unwrap().attributes);
        let name = one.name.trim_start_matches('/');
        assert_eq!(attributes["container.name"], name);
        assert!(
            attributes["container.id"].starts_with(&*one.id)
                && attributes["container.id"].len() == 64
        );
        let expected = one.cpu_usage_ns.unwrap() as f64 / 1e9;
        assert_eq!(
            read(resource, "container.cpu.time"),
            [(format!("container.name={name}"), expected)]
        );
    }
    let receivers = resources(NameSet::Receivers, &snapshot);
    let total = read(&receivers[1], "container.cpu.usage.total");
    assert_eq!(
        total[0].1,
        snapshot.containers[0].cpu_usage_ns.unwrap() as f64
    );
    let cpu = read(&receivers[0], "system.cpu.time");
    assert!(
        cpu.contains(&("cpu=cpu0,state=wait".to_owned(), 0.04)),
        "{cpu:?}"
    );
}

#[test]
fn requests_are_split_between_resources() {
    let mut snapshot = Snapshot::recorded();
    let one = snapshot.containers[0].clone();
    snapshot.containers = Arc::new(vec![one; 400]);
    let requests = requests(NameSet::Conventions, &snapshot);
    assert!(requests.len() > 1);
    let mut count = 0;
    for request in &requests {
        let of_request: usize = request
            .resource_metrics
            .iter()
            .flat_map(metrics)
            .map(|metric| points(metric).len())
            .sum();
        assert!(of_request <= super::MAX_POINTS);
        count += request.resource_metrics.len();
    }
    assert_eq!(count, 1 + 400 + 2);
}

#[test]
fn a_name_that_the_conventions_do_not_have_is_the_agents_own() {
    for (family, expected) in [
        (
            "node_pressure_cpu_waiting_seconds",
            "system_agent.pressure.cpu_waiting",
        ),
        ("system_agent_source_up", "system_agent.source.up"),
        ("node_zfs_arc_size", "system_agent.zfs.arc_size"),
        ("system_agent_up", "system_agent.up"),
    ] {
        assert_eq!(own_name(family), expected);
    }
}
