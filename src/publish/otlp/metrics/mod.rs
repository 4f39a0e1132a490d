//! Turns a snapshot into metrics of OpenTelemetry.
//!
//! The figures of the host come from the table [`crate::publish::figures`], with the names in `host`. The figures of containers have a table
//! of their own, `containers`, because each container is a resource. `points` and `wire` write the messages. A test checks that both tables together have every family of
//! Prometheus, and `page` writes the documentation from them.

mod containers;
mod host;
#[cfg(test)]
mod page;
mod points;
mod textfile;
mod wire;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::attributes::scope;
use super::resource::HostResource;
use crate::model::{Container, Snapshot};
use crate::publish::figures::collectors::{Choice, TEXTFILE};
use crate::publish::figures::{FigureFamily, FigureSource, MetricKind, families};
use crate::publish::on_request::ReadFigures;
use crate::settings::{OtlpNames, OtlpSettings};
use containers::{CONTAINERS, ContainerRow};
use host::{
    CONVERSIONS, Conversion, HOST, HostRow, KERNEL_FAMILIES, NOT_SENT, attribute, own_name,
};
use points::{Common, Described, Kind, Number, Points};
use wire::{Message, field};

/// Limit on the points of a request, if it has more than one resource. With usual names, a request is then shorter than 1 MiB.
const MAX_POINTS: usize = 8000;

/// The names in use.
type NameSet = OtlpNames;

impl NameSet {
    /// Returns the place of the names in pairs: first the conventions, then the receivers.
    fn place(self) -> usize {
        match self {
            Self::Conventions => 0,
            Self::Receivers => 1,
        }
    }
}

/// With which names a row is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Both,
    Conventions,
    Receivers,
}

impl Set {
    fn has(self, names: NameSet) -> bool {
        match self {
            Self::Both => true,
            Self::Conventions => names == NameSet::Conventions,
            Self::Receivers => names == NameSet::Receivers,
        }
    }
}

/// A family of Prometheus, as it is sent.
struct SentFamily {
    family: &'static FigureFamily,
    name: String,
    unit: &'static str,
    kind: Kind,
    conversion: Option<&'static Conversion>,
}

/// A figure of the host or the agent: a row of [`HOST`] or a family of Prometheus.
enum HostFigure {
    Row(&'static HostRow),
    Family(SentFamily),
}

impl HostFigure {
    fn described(&self) -> Described<'_> {
        match self {
            Self::Row(row) => Described {
                name: row.name,
                unit: row.unit,
                kind: row.kind,
            },
            Self::Family(sent) => Described {
                name: &sent.name,
                unit: sent.unit,
                kind: sent.kind,
            },
        }
    }
}

/// Turns snapshots into requests.
pub(super) struct Exporter {
    names: NameSet,
    /// The figures of the host and the agent. Those with the same name follow each other.
    host_figures: Vec<HostFigure>,
    container_rows: Vec<&'static ContainerRow>,
    resource: Arc<HostResource>,
    /// `OTLP_POINT_ATTRIBUTES`.
    point_attributes: Vec<String>,
    /// The encoded scope of all metrics.
    scope: Vec<u8>,
    /// The time between two snapshots.
    interval: Duration,
    /// The length of the newest request.
    length: usize,
}

impl Exporter {
    pub(super) fn new(
        settings: &OtlpSettings,
        resource: Arc<HostResource>,
        interval: Duration,
    ) -> Self {
        let names = settings.names;
        let container_rows: Vec<_> = CONTAINERS.iter().filter(|row| row.is_in(names)).collect();
        Self {
            names,
            host_figures: host_figures(names),
            container_rows,
            resource,
            point_attributes: settings.point_attributes.clone(),
            scope: scope().encode_to_vec(),
            interval,
            length: 0,
        }
    }

    /// Returns which figures must be read for each export, because they are not in a snapshot.
    pub(super) fn choice() -> Choice {
        let names = KERNEL_FAMILIES.iter().copied().chain([TEXTFILE]);
        Choice::Only(names.map(str::to_owned).collect())
    }

    /// Returns the encoded requests with all figures of a snapshot. `read` has the figures that are not in the snapshot.
    pub(super) fn requests(&mut self, snapshot: &Snapshot, read: &ReadFigures) -> Vec<Vec<u8>> {
        let source = FigureSource {
            snapshot,
            kernel: read.kernel.as_deref(),
            ended: &[],
            interval: self.interval,
        };
        // A little more than last time, so that the request rarely moves while it grows.
        let mut requests = Requests::with_capacity(self.length + self.length / 8);
        let host = self.resource.of_host(&snapshot.host);
        requests.add(|out| self.write_host(out, &host, &source));
        for one in snapshot.containers.iter() {
            requests.add(|out| self.write_container(out, &source, one));
        }
        // Each metric of another program is a resource of its own, although the host is the same. So many of them do not make the request
        // with the host's figures too large.
        for family in read.textfiles.iter().flat_map(|files| &files.families) {
            requests.add(|out| {
                self.write(out, &host, of_host(snapshot), |points| {
                    textfile::add(family, points);
                })
            });
        }
        let requests = requests.finish();
        self.length = requests.first().map_or(0, Vec::len);
        requests
    }

    /// Appends the figures of the host and the agent. Returns the number of points.
    fn write_host(
        &self,
        out: &mut Vec<u8>,
        resource: &Resource,
        source: &FigureSource<'_>,
    ) -> usize {
        self.write(out, resource, of_host(source.snapshot), |points| {
            for figure in &self.host_figures {
                let metric = figure.described();
                match figure {
                    HostFigure::Row(row) => {
                        row.values(source, self.names, &mut |attributes, value| {
                            points.add(metric, attributes, value);
                        });
                    }
                    HostFigure::Family(sent) => sent.add(source, self.names, points),
                }
            }
        })
    }

    /// Appends the figures of a container. Returns the number of points.
    fn write_container(
        &self,
        out: &mut Vec<u8>,
        source: &FigureSource<'_>,
        one: &Container,
    ) -> usize {
        let snapshot = source.snapshot;
        let resource = self.resource.of_figures(&snapshot.host, one);
        let is_copied = |one: &&KeyValue| self.point_attributes.contains(&one.key);
        let mut attributes = Vec::new();
        for attribute in resource.attributes.iter().filter(is_copied) {
            let attribute = attribute.encode_to_vec();
            wire::bytes(&mut attributes, field::POINT_ATTRIBUTES, &attribute);
        }
        let time = time_of(snapshot);
        let common = Common {
            attributes,
            start: containers::start(one).unwrap_or(time),
            time,
        };
        self.write(out, &resource, common, |points| {
            for row in &self.container_rows {
                row.values(source, one, &mut |attributes, value| {
                    points.add(row.described(), attributes, value);
                });
            }
        })
    }

    /// Appends a resource with the metrics that `add` adds. Returns the number of points.
    fn write(
        &self,
        out: &mut Vec<u8>,
        resource: &Resource,
        common: Common,
        add: impl FnOnce(&mut Points<'_>),
    ) -> usize {
        let all = Message::open(out, field::REQUEST_RESOURCE_METRICS);
        let resource = resource.encode_to_vec();
        wire::bytes(out, field::RESOURCE_METRICS_RESOURCE, &resource);
        let scope_metrics = Message::open(out, field::RESOURCE_METRICS_SCOPE_METRICS);
        wire::bytes(out, field::SCOPE_METRICS_SCOPE, &self.scope);
        let mut points = Points::new(out, common);
        add(&mut points);
        let count = points.finish();
        scope_metrics.close(out);
        all.close(out);
        count
    }
}

/// Requests that are being written. A resource is not divided between requests.
struct Requests {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    /// The number of points in `open`.
    points: usize,
}

impl Requests {
    fn with_capacity(length: usize) -> Self {
        Self {
            full: Vec::new(),
            open: Vec::with_capacity(length),
            points: 0,
        }
    }

    /// Adds the resource that `write` appends. It returns the number of points.
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>) -> usize) {
        let begin = self.open.len();
        let points = write(&mut self.open);
        if begin > 0 && self.points + points > MAX_POINTS {
            let next = self.open.split_off(begin);
            self.full.push(std::mem::replace(&mut self.open, next));
            self.points = 0;
        }
        self.points += points;
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        self.full.push(self.open);
        self.full
    }
}

/// Returns the figures of the host and the agent. Those with the same name follow each other.
fn host_figures(names: NameSet) -> Vec<HostFigure> {
    let rows = HOST.iter().filter(|row| row.set.has(names));
    let families = families().filter_map(|family| sent(family, names));
    let all = rows
        .map(HostFigure::Row)
        .chain(families.map(HostFigure::Family));
    let mut all: Vec<_> = all.collect();
    let order: Vec<String> = all
        .iter()
        .map(|one| one.described().name.to_owned())
        .collect();
    all.sort_by_cached_key(|one| order.iter().position(|name| name == one.described().name));
    all
}

/// Returns how a family of Prometheus is sent. None if the family is not sent, or if another row has its figures.
fn sent(family: &'static FigureFamily, names: NameSet) -> Option<SentFamily> {
    let is_in = |families: &[&str]| families.contains(&family.name);
    let has_row = HOST
        .iter()
        .any(|row| row.set.has(names) && is_in(row.families))
        || CONTAINERS
            .iter()
            .any(|row| row.is_in(names) && is_in(row.families));
    if has_row || NOT_SENT.iter().any(|(name, _)| *name == family.name) {
        return None;
    }
    let conversion = CONVERSIONS.iter().find(|one| one.family == family.name);
    let name = conversion.map_or("", |one| one.names[names.place()]);
    Some(SentFamily {
        family,
        name: match name {
            "" => own_name(family.name),
            name => name.to_owned(),
        },
        unit: conversion.map_or_else(|| own_unit(family), |one| one.unit),
        kind: match (conversion, family.kind) {
            (Some(conversion), _) => conversion.kind,
            (None, MetricKind::Counter) => Kind::Counter,
            (None, MetricKind::Gauge | MetricKind::Unknown) => Kind::Gauge,
        },
        conversion,
    })
}

/// Returns the unit of a family that the conventions do not have. A state has no unit: Prometheus would take the unit `1` for a ratio, and
/// append this word to the name.
fn own_unit(family: &'static FigureFamily) -> &'static str {
    match family.unit {
        "1" if !family.name.ends_with("_ratio") => "",
        unit => unit,
    }
}

impl SentFamily {
    /// Adds the samples of the family.
    fn add(&self, source: &FigureSource<'_>, names: NameSet, points: &mut Points<'_>) {
        let metric = Described {
            name: &self.name,
            unit: self.unit,
            kind: self.kind,
        };
        self.family.samples(source, &mut |labels, value| {
            match self.conversion {
                Some(conversion) => {
                    conversion.attributes(labels, names, &mut |name, value| {
                        points.attribute(name, value);
                    });
                }
                None => {
                    for (label, value) in labels {
                        points.attribute(attribute(label, names), value);
                    }
                }
            }
            let scale = self.conversion.map_or(1.0, |one| one.scale);
            points.add(metric, &[], self.number(value * scale));
        });
    }

    /// Returns a value. Bytes and counts are whole numbers.
    fn number(&self, value: f64) -> Number {
        let is_count = self.unit == "By" || self.unit.starts_with('{');
        let is_average = self.kind == Kind::Gauge && self.unit != "By";
        match is_count && !is_average && value >= 0.0 {
            true => Number::Int(value.round() as u64),
            false => Number::Double(value),
        }
    }
}

/// Returns what all points of the host have in common. The counters begin at the boot.
fn of_host(snapshot: &Snapshot) -> Common {
    Common {
        attributes: Vec::new(),
        start: snapshot.host.boot_time.saturating_mul(1_000_000_000),
        time: time_of(snapshot),
    }
}

/// Returns the time of a snapshot, in nanoseconds since 1970.
fn time_of(snapshot: &Snapshot) -> u64 {
    let since_1970 = snapshot.timestamp.0.duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
