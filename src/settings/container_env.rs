//! `CONTAINER_ENV`: the environment variables of containers that the agent publishes.

use std::borrow::Cow;

use super::{Patterns, Redaction};

/// The text in place of a value that is redacted together with its name.
const REDACTED: &str = "[redacted]";

/// Chooses environment variables of containers by name, and redacts their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerEnv {
    names: Patterns,
    redaction: Redaction,
}

impl ContainerEnv {
    /// `redaction` are the expressions of `LOG_REDACT`. Variables often have the same secrets as log lines.
    pub(super) fn new(names: Patterns, redaction: Redaction) -> Self {
        Self { names, redaction }
    }

    /// Returns the number of patterns.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.count()
    }

    /// Redacts another text of the engine.
    #[must_use]
    pub fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.redaction.apply(Cow::Borrowed(text))
    }

    /// Returns the name and the redacted value of a variable such as `TIER=web`. None if no pattern matches its name.
    #[must_use]
    pub fn chosen<'v>(&self, variable: &'v str) -> Option<(&'v str, String)> {
        let (name, _) = variable.split_once('=')?;
        if !self.names.matches(name) {
            return None;
        }
        // An expression such as `TOKEN=\S+` needs the name as well.
        let redacted = self.redaction.apply(Cow::Borrowed(variable));
        let value = redacted.strip_prefix(name);
        let value = value.and_then(|rest| rest.strip_prefix('='));
        Some((name, value.unwrap_or(REDACTED).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerEnv, Patterns, Redaction};

    fn env(names: &str, redact: &str) -> ContainerEnv {
        ContainerEnv::new(
            Patterns::parse(names, "names").unwrap(),
            Redaction::parse(redact).unwrap(),
        )
    }

    #[test]
    fn only_variables_with_a_chosen_name_have_values() {
        let env = env("TIER,APP_*", "x{99}");
        for (variable, expected) in [
            ("TIER=web", Some(("TIER", "web"))),
            ("APP_URL=a=b", Some(("APP_URL", "a=b"))),
            ("TIER=", Some(("TIER", ""))),
            ("tier=web", None),
            ("PASSWORD=TIER=web", None),
            ("TIER", None),
            ("=web", None),
        ] {
            let chosen = env.chosen(variable);
            let expected = expected.map(|(name, value)| (name, value.to_owned()));
            assert_eq!(chosen, expected, "{variable}");
        }
        assert_eq!(ContainerEnv::default().chosen("TIER=web"), None);
    }

    #[test]
    fn a_value_is_redacted_as_log_lines_are() {
        let env = env(
            "*",
            r"(?i)token=(?P<secret>\S+) //[^:]*:(?P<secret>[^@]+)@ KEY=\S+",
        );
        for (variable, expected) in [
            ("TOKEN=abc", "[redacted]"),
            ("URL=db://user:abc@host", "db://user:[redacted]@host"),
            ("API_KEY=abc", "[redacted]"),
            ("NOTE=KEY=abc end", "[redacted] end"),
            ("PLAIN=abc", "abc"),
        ] {
            let (name, _) = variable.split_once('=').unwrap();
            let expected = Some((name, expected.to_owned()));
            assert_eq!(env.chosen(variable), expected, "{variable}");
        }
    }
}
