//! Parses the kernel's pressure stall information (PSI). Does not open or read the files.

use crate::model::{Pressure, Pressures, Stalls, figure};

/// The resources that the kernel has pressure figures of.
pub(super) const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Calls `text_of` for each resource of [`RESOURCES`]. Returns none if no resource has a pressure. Kernels before 4.20 do not have the pressure
/// files. With the kernel option `psi=0`, the files can exist, but they cannot be read.
pub(super) fn of_each(mut text_of: impl FnMut(&str) -> Option<Pressure>) -> Option<Pressures> {
    let pressures = Pressures {
        cpu: text_of(RESOURCES[0]),
        memory: text_of(RESOURCES[1]),
        io: text_of(RESOURCES[2]),
    };
    (pressures != Pressures::default()).then_some(pressures)
}

/// Parses a text with the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and a similar line `full`. For the CPU, kernels
/// before 5.13 have no line `full`.
pub(super) fn parse(text: &str) -> Option<Pressure> {
    let stalls = |kind: &str| {
        let mut fields = text
            .lines()
            .find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?
            .split(' ');
        let mut field = |name: &str| fields.next()?.strip_prefix(name);
        let average = |text: &str| Some(figure(text.parse().ok()?, 2).min(100.0));
        Some(Stalls {
            avg10: average(field("avg10=")?)?,
            avg60: average(field("avg60=")?)?,
            avg300: average(field("avg300=")?)?,
            total_us: field("total=")?.trim_end().parse().ok()?,
        })
    };
    Some(Pressure {
        some: stalls("some")?,
        full: stalls("full"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Pressure, Stalls, parse};

    #[test]
    fn the_line_full_is_optional() {
        let some = "some avg10=1.36 avg60=1.31 avg300=2.10 total=2621119293\n";
        let full = "full avg10=0.00 avg60=0.50 avg300=100.00 total=5\n";
        let stalls = |avg10, avg60, avg300, total_us| Stalls {
            avg10,
            avg60,
            avg300,
            total_us,
        };
        let expected = Pressure {
            some: stalls(1.36, 1.31, 2.1, 2_621_119_293),
            full: Some(stalls(0.0, 0.5, 100.0, 5)),
        };
        assert_eq!(parse(&format!("{some}{full}")), Some(expected));
        let alone = Pressure {
            full: None,
            ..expected
        };
        assert_eq!(parse(some), Some(alone));
        for text in [
            "",
            full,
            "some avg10=x",
            "some avg10=1.0 avg300=1.0",
            "some avg10=1.0 avg60=1.0 avg300=1.0 total=x",
        ] {
            assert_eq!(parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn figures_of_any_text_are_between_0_and_100(text in "\\PC*", value: f64) {
            let _ = parse(&text);
            let text = format!("some avg10={value} avg60=NaN avg300=inf total=0");
            if let Some(Pressure { some, .. }) = parse(&text) {
                for figure in [some.avg10, some.avg60, some.avg300] {
                    prop_assert!((0.0..=100.0).contains(&figure), "{figure}");
                }
            }
        }
    }

    #[test]
    fn fuzz_pressure() {
        let seed = b"some avg10=1.36 avg60=1.31 avg300=2.10 total=2621119293\nfull avg10=0.00 avg60=0.50 avg300=100.00 total=5\n";
        crate::fuzzing::run("pressure", &[seed], |bytes| {
            if let Some(Pressure { some, .. }) = parse(&String::from_utf8_lossy(bytes)) {
                assert!(
                    [some.avg10, some.avg60, some.avg300]
                        .iter()
                        .all(|avg| avg.is_finite())
                );
            }
        });
    }
}
