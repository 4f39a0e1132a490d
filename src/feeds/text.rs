//! Formats figures for the screen, and removes control characters from text of hosts and containers.

use std::time::{Duration, SystemTime};

use crate::model::StoppedContainer;

/// The rating of a figure. The rating decides the colour of the figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    Plain,
    Good,
    Dim,
    Warn,
    Bad,
}

impl Level {
    /// The rating of a share, in percent, of something that can run out.
    pub(crate) fn of_share(percent: f64) -> Self {
        match percent {
            90.0.. => Self::Bad,
            75.0.. => Self::Warn,
            _ => Self::Plain,
        }
    }
}

/// Formats bytes as `1023B`, `1.0K` or `12.3M`, with up to six characters.
pub(crate) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    let mut value = bytes.max(0.0);
    let mut unit = 0;
    // A value that would be rounded up to 1024 gets the next unit.
    while value >= 1023.5 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 99.95);
    format!("{value:.decimals$}{}", UNITS[unit])
}

/// Formats MiB as [`bytes()`] does.
pub(crate) fn mib(mib: f64) -> String {
    bytes(mib * 1024.0 * 1024.0)
}

/// Formats GiB as [`bytes()`] does.
pub(crate) fn gib(gib: f64) -> String {
    mib(gib * 1024.0)
}

/// Formats seconds as `12s`, `3m`, `4h 05m` or `6d 7h`, with up to two units.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Tells how a container ended: its exit code, and whether it was killed because of too little memory. If the container was never
/// started, it is the engine's word for the state.
pub(crate) fn ending(container: &StoppedContainer) -> String {
    match (container.exit_code, container.oom_killed) {
        (Some(code), Some(true)) => format!("{code}, OOM"),
        (Some(code), _) => format!("exit {code}"),
        (None, _) => plain(&container.state),
    }
}

/// Formats an age as `0.4 s` or `12 s`. An age of a minute or more has the format of [`span`].
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        0..10 => format!("{:.1} s", age.as_secs_f64()),
        10..60 => format!("{} s", age.as_secs()),
        seconds => span(seconds),
    }
}

/// Formats the time of day in UTC, as `12:00:05Z`.
pub(crate) fn time_of_day(moment: SystemTime) -> String {
    let whole = humantime::format_rfc3339_seconds(moment).to_string();
    whole
        .split_once('T')
        .map_or(String::new(), |(_, time)| time.to_owned())
}

/// Returns one bar for each value. A bar has one of eight heights. A value of `highest` or more has the full height.
pub(crate) fn bars(values: impl Iterator<Item = f64>, highest: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    values
        .map(|value| {
            let height = (value / highest.max(f64::MIN_POSITIVE) * 8.0).ceil();
            // The result can be NaN, for example infinity divided by infinity. NaN becomes the lowest bar.
            BARS[(height as usize).clamp(1, BARS.len()) - 1]
        })
        .collect()
}

/// Removes control characters and escape sequences from a text, because a terminal can take them for commands. Replaces tabs with
/// spaces.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut characters),
            '\t' => plain.push_str("    "),
            // These characters change the direction of all following text in the line.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {}
            control if control.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Skips what follows an escape character: `[` with parameters and a letter, or a text that ends with the bell, or a single
/// character.
fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            while characters
                .next()
                .is_some_and(|one| !('@'..='~').contains(&one))
            {}
        }
        Some(']' | 'P' | '_' | '^') => {
            while characters
                .next()
                .is_some_and(|one| !matches!(one, '\u{7}' | '\\' | '\u{9c}'))
            {}
        }
        // Sequences such as `ESC ( B` end with the first character outside this range.
        Some(' '..='/') => {
            while characters
                .next()
                .is_some_and(|one| (' '..='/').contains(&one))
            {}
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{age, bars, bytes, plain, span};

    #[test]
    fn figures_have_a_short_form() {
        let all = [
            0.0,
            1023.0,
            1023.6,
            10_240.0,
            104_857_600.0,
            1e9,
            5e12,
            -3.0,
        ];
        let written = all.map(bytes);
        assert_eq!(
            written,
            ["0B", "1023B", "1.0K", "10.0K", "100M", "954M", "4.5T", "0B"]
        );
        let spans = [5, 65, 3_700, 90_000, 9_000_000].map(span);
        assert_eq!(spans, ["5s", "1m", "1h 01m", "1d 1h", "104d 4h"]);
        assert_eq!(age(Duration::from_millis(450)), "0.5 s");
        assert_eq!(age(Duration::from_secs(61)), "1m");
        assert_eq!(bars([0.0, 50.0, 100.0, 200.0].into_iter(), 100.0), "▁▄██");
        assert_eq!(bars([0.0].into_iter(), 0.0), "▁");
        let beyond = [f64::INFINITY, f64::NAN, -1.0];
        assert_eq!(bars(beyond.into_iter(), f64::INFINITY), "▁▁▁");
        assert_eq!(bars(beyond.into_iter(), 1.0), "█▁▁");
    }

    #[test]
    fn escape_sequences_are_removed() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m\tx\r\u{7}"), "red    x");
        assert_eq!(plain("\u{1b}]0;title\u{7}rest"), "rest");
        assert_eq!(plain("\u{1b}"), "");
        assert_eq!(plain("\u{1b}(Bx\u{202e}y\u{2066}z"), "xyz");
        assert_eq!(plain("häß 💩"), "häß 💩");
    }

    proptest! {
        #[test]
        fn no_control_character_remains(text: String) {
            prop_assert!(!plain(&text).chars().any(char::is_control));
        }

        #[test]
        fn bytes_have_up_to_six_characters(value in 0.0..1e18_f64) {
            prop_assert!(bytes(value).len() <= 6, "{}", bytes(value));
        }
    }
}
