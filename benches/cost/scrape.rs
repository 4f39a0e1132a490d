//! What a scrape takes, from the request to the last byte of the answer: each the first one of a new snapshot, whose figures are
//! written for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::common::agent::{PATIENCE, free_port};
use crate::common::bars::Bars;
use crate::common::load::median;
use crate::plan::Plan;

/// How many scrapes.
const SCRAPES: usize = 50;
/// What one may take.
const MOST_MS: f64 = 2.0;
/// The snapshot's clients are served by then.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn print(plan: &Plan, count: usize, bars: &mut Bars) {
    let port = free_port();
    let settings = [
        ("PUBLISH_INTERVAL", "200ms"),
        ("METRICS_PORT", &port.to_string()),
    ];
    let agent = Agent::start(plan, count, &settings);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut took = Vec::new();
    let mut length = 0;
    for _ in 0..SCRAPES {
        agent.wait();
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        length = scrape(address);
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let took = median(&took);
    println!(
        "\na scrape at METRICS_PORT: {took:.2} ms, the median of {SCRAPES}; {:.0} KiB",
        length as f64 / 1024.0
    );
    bars.at_most(
        &format!("a scrape, {count} containers"),
        took,
        MOST_MS,
        "ms",
    );
}

/// Reads the figures; yields their length.
fn scrape(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).expect("METRICS_PORT listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nAccept: application/openmetrics-text\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "not scraped");
    answer.len()
}
