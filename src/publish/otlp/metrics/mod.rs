//! Turns a snapshot into metrics of OpenTelemetry.
//!
//! The figures of the host come from the table [`crate::publish::figures`], with the names in `host`. The figures of containers have a table
//! of their own, `containers`, because each container is a resource. A test checks that both tables together have every family of
//! Prometheus, and `page` writes the documentation from them.

mod containers;
mod host;
#[cfg(test)]
mod page;
mod points;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::scope;
use super::resource::HostResource;
use crate::model::Snapshot;
use crate::publish::figures::{FigureFamily, FigureSource, MetricKind, families};
use crate::settings::{OtlpNames, OtlpSettings};
use containers::{CONTAINERS, ContainerRow};
use host::{CONVERSIONS, Conversion, HOST, HostRow, NOT_SENT, attribute, own_name};
use points::{Described, Kind, Number, Points};

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
            interval,
        }
    }

    /// Returns the requests with all figures of a snapshot.
    pub(super) fn requests(&self, snapshot: &Snapshot) -> Vec<ExportMetricsServiceRequest> {
        let source = FigureSource {
            snapshot,
            kernel: None,
            ended: &[],
            interval: self.interval,
        };
        let mut requests = Vec::new();
        let mut open = ExportMetricsServiceRequest::default();
        let mut count = 0;
        let hosts = std::iter::once_with(|| self.host(&source));
        let containers = (snapshot.containers.iter()).map(|one| self.container(&source, one));
        for (resource, points) in hosts.chain(containers) {
            if count > 0 && count + points > MAX_POINTS {
                requests.push(std::mem::take(&mut open));
                count = 0;
            }
            open.resource_metrics.push(resource);
            count += points;
        }
        requests.push(open);
        requests
    }

    /// Returns the figures of the host and the agent, and the number of points.
    fn host(&self, source: &FigureSource<'_>) -> (ResourceMetrics, usize) {
        let snapshot = source.snapshot;
        let boot = snapshot.host.boot_time.saturating_mul(1_000_000_000);
        let mut points = Points::new(&[], boot, time_of(snapshot));
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
        let count = points.count();
        let resource = self.resource.of_host(&snapshot.host);
        (resource_metrics(resource, points.finish()), count)
    }

    fn container(
        &self,
        source: &FigureSource<'_>,
        one: &crate::model::Container,
    ) -> (ResourceMetrics, usize) {
        let snapshot = source.snapshot;
        let resource = self.resource.of_figures(&snapshot.host, one);
        let is_copied = |one: &&KeyValue| self.point_attributes.contains(&one.key);
        let common: Vec<KeyValue> = resource
            .attributes
            .iter()
            .filter(is_copied)
            .cloned()
            .collect();
        let time = time_of(snapshot);
        let mut points = Points::new(&common, containers::start(one).unwrap_or(time), time);
        for row in &self.container_rows {
            row.values(source, one, &mut |attributes, value| {
                points.add(row.described(), attributes, value);
            });
        }
        let count = points.count();
        (resource_metrics(resource, points.finish()), count)
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
        unit: conversion.map_or(family.unit, |one| one.unit),
        kind: match (conversion, family.kind) {
            (Some(conversion), _) => conversion.kind,
            (None, MetricKind::Counter) => Kind::Counter,
            (None, MetricKind::Gauge | MetricKind::Unknown) => Kind::Gauge,
        },
        conversion,
    })
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

fn resource_metrics(resource: Resource, metrics: Vec<Metric>) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(scope()),
            metrics,
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    }
}

/// Returns the time of a snapshot, in nanoseconds since 1970.
fn time_of(snapshot: &Snapshot) -> u64 {
    let since_1970 = snapshot.timestamp.0.duration_since(UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
