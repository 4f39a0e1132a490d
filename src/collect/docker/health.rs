//! Reads the result of a container's health check from the engine's answer to an inspection.

use std::sync::Arc;

use super::json::Json;
use crate::settings::ContainerEnv;

/// Maximum length of the output of a health check, in bytes. The rest is cut.
const MAX_OUTPUT: usize = 1024;

/// The result of a health check.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Health {
    /// None if the container has no health check.
    pub(crate) status: Option<String>,
    /// What the newest check has printed, redacted. None unless the container is unhealthy, and if the check has printed nothing.
    pub(crate) output: Option<Arc<str>>,
}

impl Health {
    /// Reads the value of `State.Health`. `env` has the expressions of `LOG_REDACT`.
    pub(super) fn read(health: &Json, env: &ContainerEnv) -> Self {
        // `none` means that the container has no health check.
        let status = health.get("Status").non_empty_text();
        let status = status.filter(|status| status != "none");
        let is_unhealthy = status.as_deref() == Some("unhealthy");
        let output = health.get("Log").items().last().filter(|_| is_unhealthy);
        let output = output.and_then(|check| check.get("Output").text());
        Self {
            status,
            output: output.and_then(|output| shown(&env.redacted(&output))),
        }
    }
}

/// Removes control characters except line feeds and tabs, and shortens the text. None if nothing is left.
fn shown(output: &str) -> Option<Arc<str>> {
    let is_shown = |one: &char| !one.is_control() || matches!(one, '\n' | '\t');
    let plain: String = output.chars().filter(is_shown).collect();
    let plain = plain.trim();
    let cut = plain[..plain.floor_char_boundary(MAX_OUTPUT)].trim_end();
    (!cut.is_empty()).then(|| cut.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Health, MAX_OUTPUT};
    use crate::collect::docker::json::Json;
    use crate::settings::CollectSettings;

    fn read(health: &Value) -> Health {
        let variables = [("LOG_REDACT".into(), r"token=\S+".into())];
        let settings = CollectSettings::from_env(variables.into_iter()).unwrap();
        let health = Json::parse(health.to_string().as_bytes()).unwrap();
        Health::read(&health, &settings.container_env)
    }

    fn output(status: &str, log: &Value) -> Option<String> {
        let health = read(&json!({"Status": status, "Log": log}));
        assert_eq!(health.status.as_deref(), Some(status));
        health.output.map(|output| output.to_string())
    }

    #[test]
    fn an_unhealthy_container_has_the_output_of_its_newest_check() {
        let log = json!([{"Output": "before"}, {"Output": "  refused\r\n\u{1b}[31mtoken=abc\ttwice\u{0}\n", "ExitCode": 1}]);
        let shown = "refused\n[31m[redacted]\ttwice";
        assert_eq!(output("unhealthy", &log).as_deref(), Some(shown));
        for status in ["healthy", "starting", "weird"] {
            assert_eq!(output(status, &log), None, "{status}");
        }
        let long = json!([{"Output": "ä".repeat(4000)}]);
        assert_eq!(output("unhealthy", &long).unwrap().len(), MAX_OUTPUT);
        for odd in [
            json!(null),
            json!([]),
            json!([7]),
            json!([{"Output": " \n"}]),
            json!([{"Output": []}]),
        ] {
            assert_eq!(output("unhealthy", &odd), None, "{odd}");
        }
    }

    #[test]
    fn a_container_without_a_health_check_has_no_status() {
        for health in [json!(null), json!({}), json!({"Status": "none"})] {
            assert_eq!(read(&health), Health::default(), "{health}");
        }
    }
}
