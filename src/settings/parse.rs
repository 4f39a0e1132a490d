//! Checking values one by one, collecting every problem on the way.

use std::ffi::OsString;
use std::time::Duration;

use super::raw::{RawSettings, VARIABLES};
use super::{Problem, Problems};

/// The shortest and longest interval of an actor.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The shortest and longest timeout.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Each actor's interval where none is set.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Reads values and takes note of what is wrong with them.
pub(super) struct Reader {
    vars: Vec<(String, String)>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Takes the agent's variables out of an environment. An empty value counts as unset, as it
    /// does in an `agent.env` where a line was left blank.
    pub(super) fn new(vars: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut reader = Self {
            vars: Vec::new(),
            problems: Vec::new(),
        };
        for (name, value) in vars {
            let Some(&variable) = VARIABLES.iter().find(|known| name.to_str() == Some(known))
            else {
                continue;
            };
            match value.into_string() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => reader.vars.push((variable.to_owned(), text)),
                Err(_) => reader.problem(variable, "not UTF-8 text"),
            }
        }
        reader
    }

    /// The variables as text.
    pub(super) fn raw(&mut self) -> RawSettings {
        // Every field is optional text, which leaves envy nothing to refuse.
        envy::from_iter(self.vars.drain(..)).unwrap_or_default()
    }

    /// Takes note of a problem.
    pub(super) fn problem(&mut self, variable: &'static str, text: impl Into<String>) {
        self.problems.push(Problem {
            variable,
            text: text.into(),
        });
    }

    /// All problems, in the order in which they were found.
    pub(super) fn finish(self) -> Problems {
        Problems(self.problems)
    }

    /// A value that `parse` understands, or nothing where the variable is unset or wrong.
    pub(super) fn optional<T>(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match raw.as_deref().map(|text| parse(text.trim())) {
            Some(Ok(value)) => Some(value),
            Some(Err(text)) => {
                self.problem(variable, text);
                None
            }
            None => None,
        }
    }

    /// A value that `parse` understands, or the default.
    pub(super) fn value<T>(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.optional(variable, raw, parse).unwrap_or(default)
    }

    /// `true`, `false`, `1` or `0`.
    pub(super) fn switch(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: bool,
    ) -> bool {
        self.value(variable, raw, default, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("neither on nor off; accepted: true, false, 1, 0".to_owned()),
        })
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: usize,
        least: usize,
        most: usize,
    ) -> usize {
        self.value(variable, raw, default, |text| match text.parse::<usize>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) => Err(format!("out of range; accepted: {least} to {most}")),
            Err(_) => Err(format!("not a whole number; accepted: {least} to {most}")),
        })
    }

    /// An actor's interval.
    pub(super) fn interval(&mut self, variable: &'static str, raw: &Option<String>) -> Duration {
        self.duration(variable, raw, DEFAULT_INTERVAL, INTERVALS)
    }

    /// A timeout, with a default in seconds.
    pub(super) fn timeout(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default_seconds: u64,
    ) -> Duration {
        self.duration(
            variable,
            raw,
            Duration::from_secs(default_seconds),
            TIMEOUTS,
        )
    }

    fn duration(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: Duration,
        (least, most): (Duration, Duration),
    ) -> Duration {
        let accepted = || {
            format!(
                "accepted: a number with its unit (ms, s, m, h), {} to {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )
        };
        self.value(
            variable,
            raw,
            default,
            |text| match humantime::parse_duration(text) {
                Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
                Ok(_) => Err(format!("out of range; {}", accepted())),
                Err(_) if text.parse::<f64>().is_ok() => Err(format!("no unit; {}", accepted())),
                Err(_) => Err(format!("not a duration; {}", accepted())),
            },
        )
    }
}

/// A size in bytes, between bounds that are whole units.
#[cfg(feature = "nats")]
pub(super) fn size(text: &str, (least, most): (usize, usize)) -> Result<usize, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let named = |bytes: usize| {
        let (unit, shift) = units
            .into_iter()
            .rfind(|(_, shift)| bytes >> shift > 0)
            .unwrap_or(units[0]);
        format!("{}{unit}", bytes >> shift)
    };
    let accepted = format!(
        "accepted: a number with its unit (KiB, MiB, GiB), {} to {}",
        named(least),
        named(most)
    );
    if text.parse::<f64>().is_ok() {
        return Err(format!("no unit; {accepted}"));
    }
    let size = units.into_iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<usize>().ok()?;
        number.checked_mul(1 << shift)
    });
    match size {
        Some(size) if (least..=most).contains(&size) => Ok(size),
        Some(_) => Err(format!("out of range; {accepted}")),
        None => Err(format!("not a size; {accepted}")),
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use super::size;

    #[test]
    fn a_size_has_a_unit_and_bounds() {
        let bounds = (64 << 10, 1 << 30);
        assert_eq!(size("64KiB", bounds), Ok(64 << 10));
        assert_eq!(size("16 MiB", bounds), Ok(16 << 20));
        assert_eq!(size("1GiB", bounds), Ok(1 << 30));
        for (text, problem) in [
            ("1024", "no unit"),
            ("1.5", "no unit"),
            ("63KiB", "out of range"),
            ("2GiB", "out of range"),
            ("99999999999999GiB", "not a size"),
            ("1.5MiB", "not a size"),
            ("-1MiB", "not a size"),
            ("1MB", "not a size"),
            ("MiB", "not a size"),
        ] {
            let error = size(text, bounds).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
            assert!(error.ends_with("(KiB, MiB, GiB), 64KiB to 1GiB"), "{error}");
        }
    }
}
