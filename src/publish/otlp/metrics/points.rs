//! Collects the data points of one resource.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum,
};

use super::super::attributes::{number, text};

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
pub(super) struct Points<'p> {
    metrics: Vec<Metric>,
    /// The attributes that every point has.
    common: &'p [KeyValue],
    /// The time at which the counters began, in nanoseconds since 1970.
    start: u64,
    /// The time of the figures, in nanoseconds since 1970.
    time: u64,
    count: usize,
}

impl<'p> Points<'p> {
    pub(super) fn new(common: &'p [KeyValue], start: u64, time: u64) -> Self {
        Self {
            metrics: Vec::with_capacity(64),
            common,
            start: start.min(time),
            time,
            count: 0,
        }
    }

    /// Adds a point. If an earlier metric has the same name, the point belongs to it.
    pub(super) fn add(
        &mut self,
        metric: Described<'_>,
        attributes: &[(&str, &str)],
        value: Number,
    ) {
        let mut all = Vec::with_capacity(self.common.len() + attributes.len());
        all.extend_from_slice(self.common);
        all.extend(attributes.iter().map(|(key, value)| match *key {
            // The only attribute of the conventions that is a number.
            "cpu.logical_number" => number(key, value.parse().unwrap_or_default()),
            _ => text(key, *value),
        }));
        let point = NumberDataPoint {
            attributes: all,
            start_time_unix_nano: match metric.kind {
                Kind::Gauge => 0,
                Kind::Counter | Kind::UpDown => self.start,
            },
            time_unix_nano: self.time,
            value: Some(match value {
                Number::Int(value) => Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
                Number::Double(value) => Value::AsDouble(value),
            }),
            ..NumberDataPoint::default()
        };
        self.count += 1;
        // The rows of one metric mostly follow each other, so the newest metrics are looked at first.
        let known = self.metrics.iter_mut().rev();
        let mut known = known.filter(|known| known.name == metric.name);
        let points = known.next().and_then(|known| match &mut known.data {
            Some(Data::Gauge(gauge)) => Some(&mut gauge.data_points),
            Some(Data::Sum(sum)) => Some(&mut sum.data_points),
            _ => None,
        });
        match points {
            Some(points) => points.push(point),
            None => self.metrics.push(begin(metric, point)),
        }
    }

    /// Returns the number of points.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the metrics with their points.
    pub(super) fn finish(self) -> Vec<Metric> {
        self.metrics
    }
}

fn begin(metric: Described<'_>, point: NumberDataPoint) -> Metric {
    let data_points = vec![point];
    let data = match metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points }),
        kind => Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: kind == Kind::Counter,
        }),
    };
    Metric {
        name: metric.name.to_owned(),
        unit: metric.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}
