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
mod wire;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::attributes::scope;
use super::resource::HostResource;
use crate::model::{Container, Snapshot};
use crate::publish::figures::{FigureFamily, FigureSource, MetricKind, families};
use crate::settings::{OtlpNames, OtlpSettings};
use containers::{CONTAINERS, ContainerRow};
use host::{CONVERSIONS, Conversion, HOST, HostRow, NOT_SENT, attribute, own_name};
use points::{Described, Kind, Number, Points};
use wire::field;

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

/// Turns snapshots into requests.
pub(super) struct Exporter {
    names: NameSet,
    families: Vec<SentFamily>,
    host_rows: Vec<&'static HostRow>,
    container_rows: Vec<&'static ContainerRow>,
    resource: Arc<HostResource>,
    /// `OTLP_POINT_ATTRIBUTES`.
    point_attributes: Vec<String>,
    /// The encoded scope of all metrics.
    scope: Vec<u8>,
    /// The time between two snapshots.
    interval: Duration,
}

impl Exporter {
    pub(super) fn new(
        settings: &OtlpSettings,
        resource: Arc<HostResource>,
        interval: Duration,
    ) -> Self {
        let names = settings.names;
        let host_rows: Vec<_> = HOST.iter().filter(|row| row.set.has(names)).collect();
        let container_rows: Vec<_> = CONTAINERS.iter().filter(|row| row.is_in(names)).collect();
        Self {
            names,
            families: families()
                .filter_map(|family| sent(family, names))
                .collect(),
            host_rows,
            container_rows,
            resource,
            point_attributes: settings.point_attributes.clone(),
            scope: scope().encode_to_vec(),
            interval,
        }
    }

    /// Returns the encoded requests with all figures of a snapshot.
    pub(super) fn requests(&self, snapshot: &Snapshot) -> Vec<Vec<u8>> {
        let source = FigureSource {
            snapshot,
            kernel: None,
            ended: &[],
            interval: self.interval,
        };
        let mut requests = Vec::new();
        let (mut open, mut count) = (Vec::new(), 0);
        let hosts = std::iter::once_with(|| self.host(&source));
        let containers = (snapshot.containers.iter()).map(|one| self.container(&source, one));
        for (resource, points) in hosts.chain(containers) {
            if count > 0 && count + points > MAX_POINTS {
                requests.push(std::mem::take(&mut open));
                count = 0;
            }
            wire::bytes(&mut open, field::REQUEST_RESOURCE_METRICS, &resource);
            count += points;
        }
        requests.push(open);
        requests
    }

    /// Returns the encoded figures of the host and the agent, and the number of points.
    fn host(&self, source: &FigureSource<'_>) -> (Vec<u8>, usize) {
        let snapshot = source.snapshot;
        let boot = snapshot.host.boot_time.saturating_mul(1_000_000_000);
        let mut points = Points::new(Vec::new(), boot, time_of(snapshot));
        for row in &self.host_rows {
            let metric = Described {
                name: row.name,
                unit: row.unit,
                kind: row.kind,
            };
            row.values(source, self.names, &mut |attributes, value| {
                points.add(metric, attributes, value);
            });
        }
        for sent in &self.families {
            sent.add(source, self.names, &mut points);
        }
        let resource = self.resource.of_host(&snapshot.host);
        (self.resource_metrics(&resource, &points), points.count())
    }

    /// Returns the encoded figures of a container, and the number of points.
    fn container(&self, source: &FigureSource<'_>, one: &Container) -> (Vec<u8>, usize) {
        let snapshot = source.snapshot;
        let resource = self.resource.of_figures(&snapshot.host, one);
        let is_copied = |one: &&KeyValue| self.point_attributes.contains(&one.key);
        let mut common = Vec::new();
        for attribute in resource.attributes.iter().filter(is_copied) {
            let attribute = attribute.encode_to_vec();
            wire::bytes(&mut common, field::POINT_ATTRIBUTES, &attribute);
        }
        let time = time_of(snapshot);
        let mut points = Points::new(common, containers::start(one).unwrap_or(time), time);
        for row in &self.container_rows {
            row.values(source, one, &mut |attributes, value| {
                points.add(row.described(), attributes, value);
            });
        }
        (self.resource_metrics(&resource, &points), points.count())
    }

    fn resource_metrics(&self, resource: &Resource, points: &Points<'_>) -> Vec<u8> {
        let mut scope_metrics = Vec::with_capacity(8192);
        wire::bytes(&mut scope_metrics, field::SCOPE_METRICS_SCOPE, &self.scope);
        points.write(&mut scope_metrics);
        let mut all = Vec::with_capacity(scope_metrics.len() + 1024);
        let resource = resource.encode_to_vec();
        wire::bytes(&mut all, field::RESOURCE_METRICS_RESOURCE, &resource);
        wire::bytes(
            &mut all,
            field::RESOURCE_METRICS_SCOPE_METRICS,
            &scope_metrics,
        );
        all
    }
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
    fn add<'n>(&'n self, source: &FigureSource<'_>, names: NameSet, points: &mut Points<'n>) {
        let metric = Described {
            name: &self.name,
            unit: self.unit,
            kind: self.kind,
        };
        self.family.samples(source, &mut |labels, value| {
            let mut attributes: Vec<(String, String)> = Vec::with_capacity(labels.len() + 1);
            let mut push = |name: &str, value: &str| {
                attributes.push((name.to_owned(), value.to_owned()));
            };
            match self.conversion {
                Some(conversion) => conversion.attributes(labels, names, &mut push),
                None => {
                    for (label, value) in labels {
                        push(attribute(label, names), value);
                    }
                }
            }
            let attributes: Vec<_> = attributes
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            let scale = self.conversion.map_or(1.0, |one| one.scale);
            points.add(metric, &attributes, self.number(value * scale));
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

/// Returns the time of a snapshot, in nanoseconds since 1970.
fn time_of(snapshot: &Snapshot) -> u64 {
    let since_1970 = snapshot.timestamp.0.duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
