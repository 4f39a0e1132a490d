//! The snapshots of one simulated agent: a recorded snapshot with a name of its own, the current time and random figures.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::common::recording::{number_of_containers, record as record_line};
use crate::plan::Plan;

/// The options that the server sends to an agent.
const OPTIONS: &str = r#"{"sections":["system","containers","docker_meta","stopped","events"]}"#;
/// Numbers that do not change on a real host.
const CONSTANT: [&str; 7] = [
    "memory_total",
    "memory_limit",
    "swap_total",
    "disk_total",
    "total",
    "cpu_limit",
    "restart_count",
];
/// Whole numbers that change in both directions.
const AMOUNTS: [&str; 4] = [
    "memory_usage",
    "memory_rss",
    "memory_cache",
    "memory_kernel",
];
/// The recorded containers are idle, so many of their figures are 0. The benchmark replaces a 0 by a random figure, which is at most this number.
const IDLE: f64 = 5.0;
/// On average, one snapshot in this number has an event.
const SNAPSHOTS_PER_EVENT: u32 = 60;

/// Records a snapshot of this host, with containers.
pub(crate) fn record(plan: &Plan) -> Arc<Value> {
    let line = record_line(&plan.binary, OPTIONS, plan.containers);
    let snapshot: Value = serde_json::from_str(&line).unwrap();
    println!(
        "a snapshot has {} containers and {} bytes",
        number_of_containers(&snapshot),
        line.len()
    );
    Arc::new(snapshot)
}

/// The state of one agent.
pub(crate) struct Figures {
    recorded: Arc<Value>,
    current: Value,
    seq: u64,
}

impl Figures {
    pub(crate) fn new(recorded: &Arc<Value>, name: &str) -> Self {
        let mut current = Value::clone(recorded);
        current["host"]["hostname"] = name.into();
        current["agent"]["run"] = format!("{:016x}", fastrand::u64(..)).into();
        Self {
            recorded: Arc::clone(recorded),
            current,
            seq: 0,
        }
    }

    /// The JSON line of the next snapshot.
    pub(crate) fn next(&mut self) -> Bytes {
        self.seq += 1;
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        for (section, idle) in [("system", 0.0), ("containers", IDLE)] {
            let (recorded, current) = (&self.recorded[section], &mut self.current[section]);
            vary(recorded, current, "", idle);
        }
        self.current["timestamp"] = now.as_str().into();
        self.current["agent"]["seq"] = self.seq.into();
        let sources = self.current["sources"].as_object_mut();
        for source in sources.into_iter().flat_map(|sources| sources.values_mut()) {
            if source["collected_at"].is_string() {
                source["collected_at"] = now.as_str().into();
            }
        }
        self.current["events"] = match fastrand::u32(..SNAPSHOTS_PER_EVENT) {
            0 => json!([self.event(&now)]),
            _ => json!([]),
        };
        let mut line = serde_json::to_vec(&self.current).unwrap();
        line.push(b'\n');
        line.into()
    }

    /// The end of one of the containers.
    fn event(&self, now: &str) -> Value {
        let containers = self.recorded["containers"].as_array().unwrap();
        let container = &containers[fastrand::usize(..containers.len())];
        let name = container["name"].as_str().unwrap().trim_start_matches('/');
        json!({
            "time": now,
            "action": "die",
            "container": name,
            "id": container["id"],
            "image": container["image"],
            "exit_code": 1,
        })
    }
}

/// Gives each changing number a random value, 0.8 to 1 times the recorded one. `idle` stands for a recorded figure of 0.
fn vary(recorded: &Value, current: &mut Value, key: &str, idle: f64) {
    match (recorded, current) {
        (Value::Object(recorded), Value::Object(current)) => {
            for ((key, recorded), current) in recorded.iter().zip(current.values_mut()) {
                vary(recorded, current, key, idle);
            }
        }
        (Value::Array(recorded), Value::Array(current)) => {
            for (recorded, current) in recorded.iter().zip(current) {
                vary(recorded, current, key, idle);
            }
        }
        (Value::Number(_), _) if CONSTANT.contains(&key) => {}
        (Value::Number(number), current) => {
            let share = 0.8 + 0.2 * fastrand::f64();
            if let Some(whole) = number.as_u64() {
                if AMOUNTS.contains(&key) {
                    *current = ((whole as f64 * share) as u64).into();
                }
            } else if let Some(number) = number.as_f64() {
                let base = if number == 0.0 { idle } else { number };
                *current = ((base * share * 100.0).round() / 100.0).into();
            }
        }
        _ => {}
    }
}
