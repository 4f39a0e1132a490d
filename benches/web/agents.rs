//! Simulated agents in this process. Each one listens on a port of its own and speaks the agent's protocol.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{self, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::common::agent::KEY;
use crate::figures::Figures;
use crate::plan::Plan;

/// The maximum length of the first line of a client, in bytes, as in the agent.
const LONGEST_LINE: u64 = 96 * 1024;

/// Agents that run until they are dropped.
pub(crate) struct Agents {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) counts: Arc<Counts>,
    _runtime: Runtime,
}

/// What all agents sent, and what their clients asked for.
#[derive(Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    connections: AtomicU64,
    connections_with_logs: AtomicU64,
    /// The different options of clients.
    options: Mutex<BTreeSet<String>>,
}

impl Counts {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The number of connections whose clients asked for log lines.
    pub(crate) fn connections_with_logs(&self) -> u64 {
        self.connections_with_logs.load(Ordering::Relaxed)
    }

    pub(crate) fn options(&self) -> Vec<String> {
        self.options.lock().unwrap().iter().cloned().collect()
    }

    fn count(&self, options: &str) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if asks_for_logs(options) {
            self.connections_with_logs.fetch_add(1, Ordering::Relaxed);
        }
        // A client that connects again also sends a cursor, so its options differ each time.
        let mut known = self.options.lock().unwrap();
        if known.len() < 10 {
            known.insert(options.to_owned());
        }
    }
}

impl Agents {
    pub(crate) fn start(plan: &Plan, recorded: &Arc<Value>, count: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let counts = Arc::new(Counts::default());
        let start_one = |number: usize| {
            let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
            let listener = listener.expect("cannot listen");
            let address = listener.local_addr().unwrap();
            let mut figures = Figures::new(recorded, &format!("web-bench-{number}"));
            let (newest, snapshots) = watch::channel(figures.next());
            // The agents of real hosts do not send at the same moment.
            let phase = plan.interval * number as u32 / count as u32;
            let every = plan.interval;
            runtime.spawn(async move { publish(figures, newest, phase, every).await });
            runtime.spawn(serve(listener, snapshots, Arc::clone(&counts)));
            address
        };
        let addresses = (0..count).map(start_one).collect();
        Self {
            addresses,
            counts,
            _runtime: runtime,
        }
    }
}

/// Whether a client with these options gets log lines. Without a list of sections, it does.
fn asks_for_logs(options: &str) -> bool {
    let options: Value = serde_json::from_str(options).unwrap_or_default();
    let sections = options["sections"].as_array();
    let has_section = |sections: &Vec<Value>| sections.iter().any(|section| section == "logs");
    options.get("logs").is_some() || sections.is_none_or(has_section)
}

async fn publish(
    mut figures: Figures,
    newest: watch::Sender<Bytes>,
    phase: Duration,
    every: Duration,
) {
    sleep(phase).await;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        newest.send_replace(figures.next());
    }
}

async fn serve(listener: TcpListener, snapshots: watch::Receiver<Bytes>, counts: Arc<Counts>) {
    loop {
        let (stream, _) = listener.accept().await.expect("cannot accept a connection");
        let (snapshots, counts) = (snapshots.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            // A client that disconnects does not affect the other clients.
            let _ = feed(stream, snapshots, &counts).await;
        });
    }
}

/// Reads the client's first line, and sends each snapshot from then on.
async fn feed(
    mut stream: TcpStream,
    mut snapshots: watch::Receiver<Bytes>,
    counts: &Counts,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST_LINE))
        .read_line(&mut line)
        .await?;
    let (key, options) = line.trim_end().split_once(' ').unwrap_or((&line, ""));
    if key.trim_end() != KEY {
        return writer.write_all(b"Unauthorized\n").await;
    }
    counts.count(options);
    snapshots.mark_changed();
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        writer.write_all(&snapshot).await?;
        counts.sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
