//! Reads and checks the values one by one, and collects all problems.
//!
//! [`Reader`] reads the formats that several variables share, such as durations. If only one variable has a format, the module
//! of the variable's type reads the format.

use std::ffi::OsString;
use std::time::Duration;

use super::raw::{RawSettings, VARIABLES};
#[cfg(feature = "otlp")]
use super::standard::VARIABLES as STANDARD_VARIABLES;
use super::{Problem, Problems};
use crate::model::MOST_HISTORY;

/// The shortest and the longest interval.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The shortest and the longest timeout.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The shortest and the longest interval of the requests for the sizes of containers. Each request makes the engine read directories
/// of all containers.
const SIZES_INTERVALS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// The shortest and the longest history. An agent keeps at most [`MOST_HISTORY`].
const HISTORIES: (Duration, Duration) = (Duration::from_secs(60), MOST_HISTORY);
/// The default length of the history.
const DEFAULT_HISTORY: Duration = Duration::from_secs(600);
/// The default of every interval.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Reads values and records the problems with them.
pub(super) struct Reader {
    vars: Vec<(String, String)>,
    /// The standard variables of OpenTelemetry.
    #[cfg(feature = "otlp")]
    standard: Vec<(&'static str, String)>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Selects the agent's variables from an environment. A variable with an empty value counts as unset, because `agent.env` has
    /// lines such as `API_KEY=`.
    pub(super) fn new(vars: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut reader = Self {
            vars: Vec::new(),
            #[cfg(feature = "otlp")]
            standard: Vec::new(),
            problems: Vec::new(),
        };
        for (name, value) in vars {
            #[cfg(feature = "otlp")]
            if let Some(&variable) = STANDARD_VARIABLES
                .iter()
                .find(|known| name.to_str() == Some(known))
            {
                reader.add_standard(variable, value);
                continue;
            }
            let Some(&variable) = VARIABLES.iter().find(|known| name.to_str() == Some(known))
            else {
                continue;
            };
            match value.into_string() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => reader.vars.push((variable.to_owned(), text)),
                Err(_) => reader.problem(variable, "not UTF-8 text; accepted: text in UTF-8"),
            }
        }
        reader
    }

    /// Returns the variables as text. A second call returns no variables.
    pub(super) fn raw(&mut self) -> RawSettings {
        // Every field is optional text, so envy never fails here.
        envy::from_iter(self.vars.drain(..)).unwrap_or_default()
    }

    #[cfg(feature = "otlp")]
    fn add_standard(&mut self, variable: &'static str, value: OsString) {
        match value.into_string() {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => self.standard.push((variable, text.trim().to_owned())),
            Err(_) => self.problem(variable, "not UTF-8 text; accepted: text in UTF-8"),
        }
    }

    /// Returns the value of a standard variable of OpenTelemetry. None if it is unset.
    #[cfg(feature = "otlp")]
    pub(super) fn standard(&self, variable: &str) -> Option<&str> {
        let found = self.standard.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| &**value)
    }

    /// Records a problem. A problem that is already recorded is not recorded again.
    pub(super) fn problem(&mut self, variable: &'static str, text: impl Into<String>) {
        let problem = Problem {
            variable,
            text: text.into(),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Returns all recorded problems, the oldest first.
    pub(super) fn finish(self) -> Problems {
        Problems(self.problems)
    }

    /// Reads a value with `parse`. Returns none if the variable is unset. Records a problem and returns none if the value is
    /// wrong.
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

    /// Reads a value with `parse`. Returns the default if the variable is unset. Records a problem and returns the default if the
    /// value is wrong.
    pub(super) fn value<T>(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.optional(variable, raw, parse).unwrap_or(default)
    }

    /// Reads a switch: `true`, `false`, `1` or `0`.
    pub(super) fn switch(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: bool,
    ) -> bool {
        self.value(variable, raw, default, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("neither true nor false; accepted: true, false, 1, 0".to_owned()),
        })
    }

    /// Reads a whole number from `least` to `most`.
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

    /// Reads an interval.
    pub(super) fn interval(&mut self, variable: &'static str, raw: &Option<String>) -> Duration {
        self.duration(variable, raw, DEFAULT_INTERVAL, INTERVALS)
    }

    /// Reads an interval without a default. None if the variable is unset.
    #[cfg(feature = "otlp")]
    pub(super) fn optional_interval(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
    ) -> Option<Duration> {
        raw.as_ref().map(|_| self.interval(variable, raw))
    }

    /// Reads the interval of the requests for the sizes of containers. None if the variable is unset or 0.
    pub(super) fn sizes_interval(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
    ) -> Option<Duration> {
        let interval = self.duration_or_zero(variable, raw, Duration::ZERO, SIZES_INTERVALS);
        (!interval.is_zero()).then_some(interval)
    }

    /// Reads the length of the history. 0 means that there is no history.
    pub(super) fn history(&mut self, variable: &'static str, raw: &Option<String>) -> Duration {
        self.duration_or_zero(variable, raw, DEFAULT_HISTORY, HISTORIES)
    }

    /// Reads a duration, or `0` without a unit.
    fn duration_or_zero(
        &mut self,
        variable: &'static str,
        raw: &Option<String>,
        default: Duration,
        limits: (Duration, Duration),
    ) -> Duration {
        match raw.as_deref().map(str::trim) {
            Some("0") => Duration::ZERO,
            _ => self.duration(variable, raw, default, limits),
        }
    }

    /// Reads a timeout. The default is in seconds.
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

/// Reads a size and returns the number of bytes. `least` and `most` must be whole numbers of KiB, MiB or GiB, because the error
/// shows them in these units.
#[cfg(any(feature = "nats", feature = "web"))]
pub(crate) fn size(text: &str, (least, most): (usize, usize)) -> Result<usize, String> {
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
    fn a_size_needs_a_unit_and_must_be_in_range() {
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
