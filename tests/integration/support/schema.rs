//! Validates snapshots against the published schema. A field that the schema does not document fails the test.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// The published schema.
pub(crate) const PUBLISHED: &str = include_str!("../../../config/snapshot.schema.json");

/// Parses one JSON line as a snapshot and validates it. Fails the test with a list of all violations.
pub(crate) fn snapshot(line: &str) -> Value {
    let snapshot =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"));
    let violations = violations(&snapshot);
    assert!(
        violations.is_empty(),
        "not a valid snapshot: {violations:#?}\n{snapshot:#}"
    );
    snapshot
}

/// The violations of the schema, one text each, with the path of the value.
pub(crate) fn violations(snapshot: &Value) -> Vec<String> {
    let errors = validator().iter_errors(snapshot);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// The violations of the schema in a line of the history.
pub(crate) fn history_violations(line: &Value) -> Vec<String> {
    let mut schema: Value = serde_json::from_str(PUBLISHED).expect("the schema is not JSON");
    let line_schema = schema["$defs"]["history_line"].clone();
    let definitions = schema["$defs"].take();
    schema = line_schema;
    schema["$defs"] = definitions;
    forbid_undocumented_properties(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("the schema is not a valid schema");
    let errors = validator.iter_errors(line);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let mut schema: Value = serde_json::from_str(PUBLISHED).expect("the schema is not JSON");
        forbid_undocumented_properties(&mut schema);
        jsonschema::validator_for(&schema).expect("the schema is not a valid schema")
    })
}

/// Forbids undocumented properties in every object that lists its properties. Parts without `"type": "object"` are not changed,
/// because the conditions (`if`, `then`) list only some of the properties.
fn forbid_undocumented_properties(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            keywords
                .values_mut()
                .for_each(forbid_undocumented_properties);
            let object = keywords.get("type").is_some_and(|kind| kind == "object");
            if object && keywords.get("properties").is_some_and(Value::is_object) {
                keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(forbid_undocumented_properties),
        _ => {}
    }
}

mod tests {
    use serde_json::json;
    use serial_test::parallel;

    use super::{PUBLISHED, violations};

    /// A minimal snapshot of a host without Docker.
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
            "containers": [], "docker_meta": [], "stopped": [], "logs": {}, "events": [],
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
    fn the_published_schema_is_valid() {
        let schema = serde_json::from_str(PUBLISHED).unwrap();
        assert!(jsonschema::meta::is_valid(&schema));
        assert_eq!(violations(&snapshot()), Vec::<String>::new());
    }

    #[test]
    #[parallel]
    fn undocumented_fields_and_impossible_values_are_violations() {
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
        let mut with_dropped = snapshot();
        with_dropped["logs_dropped"] = json!({"web": 3});
        assert_eq!(violations(&with_dropped), Vec::<String>::new());
        with_dropped["logs_dropped"] = json!({"web": 0});
        assert_eq!(violations(&with_dropped).len(), 1);
        let mut undocumented = snapshot();
        undocumented["system"]["surprise"] = json!(1);
        assert_eq!(violations(&undocumented).len(), 1);
    }
}
