//! The figures of other programs, from the files in `TEXTFILE_DIR`. They keep their names.

use super::points::{Described, Kind, Number, Points};
use crate::model::{SamplePart, TextFamily, TextKind};

/// Adds a metric. The parts of a histogram or of a summary are metrics of their own, because a file does not have to have all of them.
pub(super) fn add(family: &TextFamily, points: &mut Points<'_>) {
    for &part in family.kind.parts() {
        let is_sum = family.kind == TextKind::Counter || part != SamplePart::Value;
        let metric = Described {
            name: &format!("{}{}", family.name, part.suffix()),
            unit: "",
            kind: match is_sum {
                true => Kind::Counter,
                false => Kind::Gauge,
            },
        };
        for sample in family.samples.iter().filter(|sample| sample.part == part) {
            for (name, value) in &sample.labels {
                points.attribute(name, value);
            }
            points.add(metric, &[], Number::Double(sample.value));
        }
    }
}
