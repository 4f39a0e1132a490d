//! Measures the time of a scrape, from the request to the final byte of the answer. Each scrape is the first one after a new
//! snapshot, so the agent must encode the figures for each scrape.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::common::agent::{TIMEOUT, free_port};
use crate::common::bars::Bars;
use crate::common::load::median;
use crate::plan::Plan;

/// The number of scrapes.
const SCRAPES: usize = 50;
/// Limit for the median time of a scrape, in milliseconds.
const MAX_MS: f64 = 2.0;
/// After this pause the agent has sent the snapshot to its clients.
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
        "\na scrape of METRICS_PORT: {took:.2} ms (median of {SCRAPES}), {:.0} KiB",
        length as f64 / 1024.0
    );
    bars.at_most(&format!("a scrape, {count} containers"), took, MAX_MS, "ms");
}

/// Reads the metrics. Returns the length of the answer in bytes.
fn scrape(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).expect("nothing listens on METRICS_PORT");
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nAccept: application/openmetrics-text\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "the scrape fails");
    answer.len()
}
