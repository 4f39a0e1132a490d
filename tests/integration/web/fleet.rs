//! The page with the hosts of a NATS server.

use serde_json::Value;
use serial_test::parallel;

use super::browser::PageServer;
use crate::support::nats::{NatsServer, host};
use crate::support::{DEADLINE, Launch, wait};

#[test]
#[parallel]
fn a_host_of_a_fleet_has_figures_and_a_history() {
    let mut nats = NatsServer::start("");
    let agent = Launch::new()
        .var("NATS_URL", nats.url())
        .var("PUBLISH_INTERVAL", "1s")
        .start();
    let server = PageServer::start(&["--nats", &nats.url()], &[]);
    let row = |state: &str| {
        wait::until(&format!("the host is {state}"), DEADLINE, || {
            let row = server.json("/api/v1/hosts")["hosts"][0].clone();
            (row["state"] == state && row["cpu"].is_number()).then_some(row)
        })
    };
    let live = row("live");
    assert_eq!(live["name"], host());
    let id = live["id"].as_str().unwrap();
    wait::until("figures of the past", DEADLINE, || {
        let history = server.json(&format!("/api/v1/hosts/{id}/history?series=cpu"));
        let figures = history["series"]["cpu"].as_array()?;
        (figures.iter().filter(|one| one.is_number()).count() >= 2).then_some(())
    });
    let shown = server.json(&format!("/api/v1/hosts/{id}"));
    assert!(shown["snapshot"]["system"]["cpu_cores"].is_array());
    // Without the server of NATS the host is away, and keeps its figures.
    nats.kill();
    let away = row("away");
    assert_ne!(away["error"], Value::Null);
    nats.run();
    row("live");
    drop(agent);
}
