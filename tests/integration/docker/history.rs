//! The history of containers: figures of containers that came and went, and the gap while the engine does not answer.

use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::engine::PrivateEngine;
use super::snapshots::{Snapshots, docker_is_failing, healthy, shows};
use super::{INTERVAL, RECOVERY, launch};
use crate::support::{Agent, DEADLINE, KEY, schema};

const OPTIONS: &str = r#"{"sections":["containers"],"history":true}"#;

/// The history that a new client gets. It must fit in one line.
fn history(agent: &Agent) -> Value {
    let mut client = agent.connect();
    client.send(format!("{KEY} {OPTIONS}\n"));
    let line: Value = serde_json::from_str(&client.line().unwrap()).unwrap();
    assert_eq!(schema::history_violations(&line), Vec::<String>::new());
    client.line().expect("no snapshot after the history");
    line["history"].clone()
}

/// Whether each sample of a series has a figure.
fn known(column: &Value) -> Vec<bool> {
    let column = column.as_array().expect("no such series");
    column.iter().map(Value::is_number).collect()
}

#[test]
#[parallel]
fn a_container_that_came_and_went_has_figures_only_while_it_ran() {
    let agent = launch().var("HISTORY", "1m").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.take(2);
    let script = "while :; do :; done";
    let container = Container::run("history", &["--cpus", "0.2"], script);
    let name = container.name().to_owned();
    snapshots.until("the container", DEADLINE, |s| shows(s, &name));
    snapshots.take(3);
    drop(container);
    snapshots.until("the end of the container", DEADLINE, |s| !shows(s, &name));
    snapshots.take(2);
    let history = history(&agent);
    let figures = &history["containers"][&name];
    let known = known(&figures["cpu"]);
    let first = known.iter().position(|known| *known).unwrap();
    let last = known.iter().rposition(|known| *known).unwrap();
    assert!(first >= 1 && last + 2 < known.len(), "{history}");
    assert!(last - first >= 2, "{history}");
    assert!(known[first..=last].iter().all(|known| *known), "{history}");
    let cpu = figures["cpu"][last - 1].as_f64().unwrap();
    assert!((5.0..40.0).contains(&cpu), "{cpu}");
    let memory = figures["memory"][last - 1].as_f64().unwrap();
    assert!((10_000.0..100_000_000.0).contains(&memory), "{memory}");
    let times = history["times"].as_array().unwrap();
    assert_eq!(times.len(), known.len());
}

#[test]
#[parallel]
fn while_the_engine_hangs_the_history_has_a_gap_for_containers_only() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let options = ["--network", "none"];
    let container = Container::run_on(private.engine(), "gap", &options, "sleep 1000");
    let launch = launch().vars(&[("HISTORY", "1m"), ("CONTAINER_STATS", "engine")]);
    let agent = launch.var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let container = container.name();
    let up = |s: &_| healthy(s) && shows(s, container);
    snapshots.until("the container", RECOVERY, up);
    snapshots.take(2);
    let hang = private.freeze();
    // A round of figures from the engine has a deadline.
    snapshots.until("the hung engine", DEADLINE, docker_is_failing);
    // Snapshots still have the last figures of the container. The history does not.
    let of_hang = snapshots.take(3);
    assert!(of_hang.iter().any(|s| shows(s, container)), "{of_hang:#?}");
    let during = history(&agent);
    let count = during["times"].as_array().unwrap().len();
    for column in [
        &during["containers"][container]["cpu"],
        &during["host"]["containers.up"],
    ] {
        let known = known(column);
        assert!(known.contains(&true), "{during}");
        assert_eq!(known[count - 3..], [false; 3], "{during}");
    }
    assert_eq!(known(&during["host"]["cpu"])[count - 3..], [true; 3]);
    drop(hang);
    snapshots.until("the engine's answer", RECOVERY, up);
    snapshots.take(1);
    let after = history(&agent);
    let known = known(&after["containers"][container]["cpu"]);
    // Figures, a gap, and figures again.
    let changes = known.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 2 && known[known.len() - 1], "{after}");
}
