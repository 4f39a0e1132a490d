//! Collects the data points of one resource.

use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;

use super::wire::{self, field};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A figure whose sum over several devices has no meaning.
    Gauge,
    /// A figure that never decreases.
    Counter,
    /// A figure that can decrease, and whose sum over several devices has a meaning.
    UpDown,
}

/// A metric without its points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'n> {
    pub(super) name: &'n str,
    /// The unit, in the notation of the Unified Code for Units of Measure.
    pub(super) unit: &'n str,
    pub(super) kind: Kind,
}

/// The value of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(u64),
    Double(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

/// The data points of one resource.
pub(super) struct Points<'n> {
    metrics: Vec<OpenMetric<'n>>,
    /// The encoded attributes that every point has.
    common: Vec<u8>,
    /// The time at which the counters began, in nanoseconds since 1970.
    start: u64,
    /// The time of the figures, in nanoseconds since 1970.
    time: u64,
    count: usize,
    /// The point that is being written.
    point: Vec<u8>,
}

/// A metric, with its points as they are on the wire.
struct OpenMetric<'n> {
    described: Described<'n>,
    points: Vec<u8>,
}

impl<'n> Points<'n> {
    pub(super) fn new(common: Vec<u8>, start: u64, time: u64) -> Self {
        Self {
            metrics: Vec::with_capacity(64),
            common,
            start: start.min(time),
            time,
            count: 0,
            point: Vec::new(),
        }
    }

    /// Adds a point. If an earlier metric has the same name, the point belongs to it.
    pub(super) fn add(
        &mut self,
        metric: Described<'n>,
        attributes: &[(&str, &str)],
        value: Number,
    ) {
        self.write_point(metric.kind, attributes, value);
        self.count += 1;
        // The rows of one metric mostly follow each other, so the newest metrics are looked at first.
        let known = self.metrics.iter_mut().rev();
        let mut known = known.filter(|known| known.described.name == metric.name);
        match known.next() {
            Some(known) => wire::bytes(&mut known.points, field::DATA_POINTS, &self.point),
            None => {
                let mut points = Vec::with_capacity(self.point.len() + 8);
                wire::bytes(&mut points, field::DATA_POINTS, &self.point);
                self.metrics.push(OpenMetric {
                    described: metric,
                    points,
                });
            }
        }
    }

    fn write_point(&mut self, kind: Kind, attributes: &[(&str, &str)], value: Number) {
        let point = &mut self.point;
        point.clear();
        if kind != Kind::Gauge {
            wire::fixed(point, field::POINT_START, self.start);
        }
        wire::fixed(point, field::POINT_TIME, self.time);
        match value {
            Number::Int(value) => {
                let value = value.min(i64::MAX as u64);
                wire::fixed(point, field::POINT_INT, value);
            }
            Number::Double(value) => wire::fixed(point, field::POINT_DOUBLE, value.to_bits()),
        }
        point.extend_from_slice(&self.common);
        for (key, value) in attributes {
            match *key {
                // The only attribute of the conventions that is a number.
                "cpu.logical_number" => {
                    let number = value.parse().unwrap_or_default();
                    wire::number_attribute(point, field::POINT_ATTRIBUTES, key, number);
                }
                _ => wire::text_attribute(point, field::POINT_ATTRIBUTES, key, value),
            }
        }
    }

    /// Returns the number of points.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Appends the metrics with their points to a message of a scope.
    pub(super) fn write(&self, scope_metrics: &mut Vec<u8>) {
        let (mut metric, mut data) = (Vec::new(), Vec::new());
        for one in &self.metrics {
            let Described { name, unit, kind } = one.described;
            metric.clear();
            data.clear();
            data.extend_from_slice(&one.points);
            wire::bytes(&mut metric, field::METRIC_NAME, name.as_bytes());
            if !unit.is_empty() {
                wire::bytes(&mut metric, field::METRIC_UNIT, unit.as_bytes());
            }
            let field = match kind {
                Kind::Gauge => field::METRIC_GAUGE,
                Kind::Counter | Kind::UpDown => {
                    let temporality = AggregationTemporality::Cumulative as u64;
                    wire::varint(&mut data, field::SUM_TEMPORALITY, temporality);
                    let is_monotonic = u64::from(kind == Kind::Counter);
                    wire::varint(&mut data, field::SUM_IS_MONOTONIC, is_monotonic);
                    field::METRIC_SUM
                }
            };
            wire::bytes(&mut metric, field, &data);
            wire::bytes(scope_metrics, field::SCOPE_METRICS_METRICS, &metric);
        }
    }
}
