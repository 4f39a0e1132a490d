//! A consumer of all snapshots. The consumer decodes each snapshot, as a program that stores snapshots would.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_nats::{ConnectOptions, Event};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use system_agent::model::Snapshot;
use tokio::runtime::Builder;

use crate::hosts::answer;

/// A snapshot is late if it is read more than this time after it was composed.
const LATE: Duration = Duration::from_secs(1);
/// Maximum number of snapshots that wait to be read. The client misses further snapshots.
const MAX_WAITING: usize = 8192;

/// The totals since the previous report.
#[derive(Default, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    /// Bytes of the messages as they were sent, without subjects and headers.
    pub(crate) bytes: u64,
    pub(crate) late: u64,
    /// Number of snapshots that did not arrive. Gaps in the sequence numbers show them.
    pub(crate) missed: u64,
    /// The times between composing and reading in milliseconds, sorted.
    pub(crate) delays: Vec<u32>,
}

impl Report {
    /// The delay in milliseconds that this percentage of the snapshots does not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> u32 {
        let place = (self.delays.len() * percent / 100).min(self.delays.len().saturating_sub(1));
        self.delays.get(place).copied().unwrap_or(u32::MAX)
    }
}

pub(crate) fn run(server: &str) {
    let report = Arc::new(Mutex::new(Report::default()));
    let written = Arc::clone(&report);
    let server = server.to_owned();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.spawn(async move { consume(&server, &written).await });
    answer(|| {
        let mut report = std::mem::take(&mut *report.lock().unwrap());
        report.delays.sort_unstable();
        report
    });
}

async fn consume(server: &str, report: &Mutex<Report>) {
    let options = ConnectOptions::new()
        .subscription_capacity(MAX_WAITING)
        .event_callback(|event| async move {
            if let Event::SlowConsumer(_) | Event::Disconnected = event {
                eprintln!("the consumer: {event}");
            }
        });
    let client = options
        .connect(server)
        .await
        .expect("cannot connect to the server");
    let mut snapshots = client.subscribe("agents.*.snapshot").await.unwrap();
    let mut newest: HashMap<String, u64> = HashMap::new();
    while let Some(message) = snapshots.next().await {
        let encoding = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Content-Encoding"));
        let snapshot: Snapshot = match encoding {
            Some(_) => {
                serde_json::from_slice(&zstd::decode_all(&message.payload[..]).unwrap()).unwrap()
            }
            None => serde_json::from_slice(&message.payload).unwrap(),
        };
        let delay = SystemTime::now()
            .duration_since(snapshot.timestamp.0)
            .unwrap_or_default();
        let seq = snapshot.agent.seq;
        let before = newest.insert(snapshot.host.hostname.clone(), seq);
        let mut report = report.lock().unwrap();
        report.messages += 1;
        report.bytes += message.payload.len() as u64;
        report.late += u64::from(delay > LATE);
        report.missed += before.map_or(0, |before| seq - before - 1);
        report
            .delays
            .push(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX));
    }
}
