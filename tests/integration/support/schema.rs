//! The published schema of the snapshot, closed: a field that it does not document fails the test.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// The schema as it is published.
pub(crate) const PUBLISHED: &str = include_str!("../../../config/snapshot.schema.json");

/// Parses one line as a snapshot and validates it; fails the test with every violation.
pub(crate) fn snapshot(line: &str) -> Value {
    let snapshot =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"));
    let violations = violations(&snapshot);
    assert!(
        violations.is_empty(),
        "not a snapshot: {violations:#?}\n{snapshot:#}"
    );
    snapshot
}

/// What is wrong with a snapshot: one line each, with the place.
pub(crate) fn violations(snapshot: &Value) -> Vec<String> {
    let errors = validator().iter_errors(snapshot);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let mut schema: Value = serde_json::from_str(PUBLISHED).expect("the schema is JSON");
        close(&mut schema);
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    })
}

/// Forbids, in every object that lists its properties, all others. Conditions (`if`, `then`) name only the
/// properties that they are about, and no type.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            keywords.values_mut().for_each(close);
            let object = keywords.get("type").is_some_and(|kind| kind == "object");
            if object && keywords.get("properties").is_some_and(Value::is_object) {
                keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(close),
        _ => {}
    }
}

mod tests {
    use serde_json::json;
    use serial_test::parallel;

    use super::{PUBLISHED, violations};

    /// The smallest snapshot: a host without Docker, in its first second.
    fn snapshot() -> serde_json::Value {
        let at = "2026-01-31T23:59:59.123Z";
        let off =
            json!({"status": "disabled", "collected_at": null, "duration_ms": null, "error": null});
        json!({
            "timestamp": at, "status": "ok",
            "system": {
                "cpu_percent": [12.5], "memory_used": 1.0, "memory_total": 2.0, "disk_used": 1.5, "disk_total": 2.5,
                "uptime": 1, "load_avg": {"1m": 0.5, "5m": 0.3, "15m": 0.2}, "network": [], "top_processes": []
            },
            "containers": [], "docker_meta": [], "logs": {}, "events": [],
            "sources": {
                "system": {"status": "ok", "collected_at": at, "duration_ms": 1.5, "error": null},
                "docker": off, "logs": off
            },
            "agent": {"version": "1.0.0", "seq": 1, "skipped": 0, "clients": 1, "cpu_percent": 0, "memory_rss": 1},
            "host": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "boot_time": 1}
        })
    }

    #[test]
    #[parallel]
    fn the_published_schema_is_one() {
        let schema = serde_json::from_str(PUBLISHED).unwrap();
        assert!(jsonschema::meta::is_valid(&schema));
        assert_eq!(violations(&snapshot()), Vec::<String>::new());
    }

    #[test]
    #[parallel]
    fn it_refuses_what_is_not_documented_or_not_possible() {
        let figure = |pointer: &str, value: serde_json::Value| {
            let mut snapshot = snapshot();
            *snapshot.pointer_mut(pointer).unwrap() = value;
            violations(&snapshot).len()
        };
        assert_eq!(figure("/system/cpu_percent", json!([100.0])), 0);
        assert_ne!(figure("/system/cpu_percent", json!([100.1])), 0);
        assert_ne!(figure("/system/cpu_percent", json!([1, 2])), 0);
        assert_ne!(figure("/system/uptime", json!(1.5)), 0);
        assert_ne!(figure("/system/load_avg/1m", json!(-0.1)), 0);
        assert_ne!(figure("/timestamp", json!("2026-01-31T23:59:59+00:00")), 0);
        assert_ne!(figure("/system/load_avg", json!({"1m": 1, "5m": 1})), 0);
        assert_ne!(figure("/host", json!({})), 0);
        assert_ne!(figure("/sources/system/error", json!("but it is ok")), 0);
        assert_ne!(figure("/sources/docker/status", json!("failing")), 0);
        assert_eq!(
            figure(
                "/logs",
                json!({"web": ["2026-01-31T23:59:59.1Z text", "2026-01-31T23:59:59Z "]})
            ),
            0
        );
        assert_ne!(figure("/logs", json!({"web": ["text"]})), 0);
        let mut news = snapshot();
        news["logs_dropped"] = json!({"web": 3});
        assert_eq!(violations(&news), Vec::<String>::new());
        news["logs_dropped"] = json!({"web": 0});
        assert_eq!(violations(&news).len(), 1);
        let mut undocumented = snapshot();
        undocumented["system"]["surprise"] = json!(1);
        assert_eq!(violations(&undocumented).len(), 1);
    }
}
