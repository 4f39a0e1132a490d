//! Writes the metrics of one resource into a request, in one pass and without copies.

use std::ops::Range;

use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;

use super::wire::{self, Message, field};

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

/// What all points of a resource have in common.
pub(super) struct Common {
    /// The encoded attributes that every point has.
    pub(super) attributes: Vec<u8>,
    /// The time at which the counters began, in nanoseconds since 1970.
    pub(super) start: u64,
    /// The time of the figures, in nanoseconds since 1970.
    pub(super) time: u64,
}

/// Writes the metrics of one resource. The points of a metric must follow each other.
pub(super) struct Points<'o> {
    out: &'o mut Vec<u8>,
    common: Common,
    open: Option<OpenMetric>,
    count: usize,
    /// The encoded attributes of the next point.
    attributes: Vec<u8>,
}

/// The metric whose points are being written.
struct OpenMetric {
    /// The place of the name in the request.
    name: Range<usize>,
    kind: Kind,
    metric: Message,
    data: Message,
}

impl<'o> Points<'o> {
    /// Begins to append metrics to `out`, which is the message of a scope.
    pub(super) fn new(out: &'o mut Vec<u8>, common: Common) -> Self {
        let start = common.start.min(common.time);
        Self {
            out,
            common: Common { start, ..common },
            open: None,
            count: 0,
            attributes: Vec::new(),
        }
    }

    /// Adds an attribute to the next point.
    pub(super) fn attribute(&mut self, key: &str, value: &str) {
        let out = &mut self.attributes;
        match key {
            // The only attribute of the conventions that is a number.
            "cpu.logical_number" => {
                let number = value.parse().unwrap_or_default();
                wire::number_attribute(out, field::POINT_ATTRIBUTES, key, number);
            }
            _ => wire::text_attribute(out, field::POINT_ATTRIBUTES, key, value),
        }
    }

    /// Adds a point with these attributes, in addition to those of [`Self::attribute`].
    pub(super) fn add(
        &mut self,
        metric: Described<'_>,
        attributes: &[(&str, &str)],
        value: Number,
    ) {
        for (key, value) in attributes {
            self.attribute(key, value);
        }
        let name = self.open.as_ref().map(|open| &self.out[open.name.clone()]);
        if name != Some(metric.name.as_bytes()) {
            self.close();
            self.open(metric);
        }
        let is_sum = metric.kind != Kind::Gauge;
        let numbers = wire::FIXED_LENGTH * if is_sum { 3 } else { 2 };
        let length = numbers + self.common.attributes.len() + self.attributes.len();
        let out = &mut *self.out;
        wire::head(out, field::DATA_POINTS, length);
        if is_sum {
            wire::fixed(out, field::POINT_START, self.common.start);
        }
        wire::fixed(out, field::POINT_TIME, self.common.time);
        match value {
            Number::Int(value) => wire::fixed(out, field::POINT_INT, value.min(i64::MAX as u64)),
            Number::Double(value) => wire::fixed(out, field::POINT_DOUBLE, value.to_bits()),
        }
        out.extend_from_slice(&self.common.attributes);
        out.extend_from_slice(&self.attributes);
        self.attributes.clear();
        self.count += 1;
    }

    fn open(&mut self, Described { name, unit, kind }: Described<'_>) {
        let metric = Message::open(self.out, field::SCOPE_METRICS_METRICS);
        wire::bytes(self.out, field::METRIC_NAME, name.as_bytes());
        let name = self.out.len() - name.len()..self.out.len();
        if !unit.is_empty() {
            wire::bytes(self.out, field::METRIC_UNIT, unit.as_bytes());
        }
        let field = match kind {
            Kind::Gauge => field::METRIC_GAUGE,
            Kind::Counter | Kind::UpDown => field::METRIC_SUM,
        };
        let data = Message::open(self.out, field);
        self.open = Some(OpenMetric {
            name,
            kind,
            metric,
            data,
        });
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.kind != Kind::Gauge {
            let temporality = AggregationTemporality::Cumulative as u64;
            wire::varint(self.out, field::SUM_TEMPORALITY, temporality);
            let is_monotonic = u64::from(open.kind == Kind::Counter);
            wire::varint(self.out, field::SUM_IS_MONOTONIC, is_monotonic);
        }
        open.data.close(self.out);
        open.metric.close(self.out);
    }

    /// Finishes the last metric, and returns the number of points.
    pub(super) fn finish(mut self) -> usize {
        self.close();
        self.count
    }
}
