//! Tests the option `logs: new` with a container that writes numbered log lines. The log files of the container rotate. Each log
//! line must come once and in order, and each missing log line must be counted. There are three clients: a client that reads
//! steadily, a client that pauses sometimes, and a client that reconnects every 25 s.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::agent;
use crate::common::bars::Bars;
use crate::common::engine::{remove_containers, start_containers};
use crate::plan::Plan;
use crate::server::login;

const OPTIONS: &str = r#"{"logs":"new","sections":["logs"]}"#;
/// `LOG_LINES`, the number of log lines that the agent stores. The largest burst is longer, and a slow client misses more log
/// lines. So the agent must drop and count log lines.
const LINES: &str = "1000";
/// Size of a client's receive buffer in bytes. It is small, so that a slow client soon lags.
const RECEIVE_BUFFER: usize = 4 * 1024;
/// A slow client stops reading for `SLOW_FOR` after this number of snapshots.
const SLOW_AFTER: u64 = 12;
const SLOW_FOR: Duration = Duration::from_secs(8);
/// The client that reconnects closes each connection after this time.
const CUT_OFF_AFTER: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Steady,
    Slow,
    CutOff,
}

/// The totals of one client.
#[derive(Default)]
struct Tally {
    connections: u64,
    snapshots: u64,
    skipped: u64,
    lines: u64,
    /// Log lines that came twice or out of order.
    repeated: u64,
    missing: u64,
    /// Log lines that are missing and were not counted as dropped.
    uncounted: u64,
    /// Log lines that were counted as dropped and are not missing.
    overcounted: u64,
}

#[derive(Deserialize)]
struct Snapshot {
    logs: HashMap<String, Vec<String>>,
    logs_dropped: HashMap<String, u64>,
    agent: Agent,
}

#[derive(Deserialize)]
struct Agent {
    skipped: u64,
}

/// The container that writes. Removed on drop.
struct Writer;

pub(crate) fn measure(plan: &Plan, bars: &mut Bars) {
    let minutes = plan.logs.as_secs_f64() / 60.0;
    println!("\n## `logs: new` for {minutes:.1} minutes\n");
    let name = format!("system-agent-bench-{}", std::process::id());
    let _writer = Writer::start(&name);
    let settings = [
        ("PUBLISH_INTERVAL", "1s"),
        ("LOG_INTERVAL", "1s"),
        ("LOG_LINES", LINES),
    ];
    let (_agent, first) = agent::start(&plan.agent, &settings);
    let address = first.peer_addr().unwrap();
    let end = Instant::now() + plan.logs;
    let habits = [
        ("steady", Habit::Steady),
        ("slow", Habit::Slow),
        ("cut off", Habit::CutOff),
    ];
    let tallies = thread::scope(|scope| {
        let follow = |habit| {
            let name = &name;
            scope.spawn(move || Tally::of(address, name, habit, end))
        };
        let running = habits.map(|(_, habit)| follow(habit));
        running.map(|client| {
            client
                .join()
                .expect("the thread of the client has panicked")
        })
    });
    println!(
        "| client | connections | snapshots | skipped | log lines | repeated | missing | not counted | counted too often |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for ((habit, _), tally) in habits.iter().zip(&tallies) {
        let Tally {
            connections,
            snapshots,
            skipped,
            lines,
            repeated,
            missing,
            uncounted,
            overcounted,
        } = tally;
        println!(
            "| {habit} | {connections} | {snapshots} | {skipped} | {lines} | {repeated} | {missing} | {uncounted} | {overcounted} |"
        );
        // A client that has received no log line proves nothing. Its value is NaN, which misses the bar.
        let wrong = |count: u64| if *lines > 0 { count as f64 } else { f64::NAN };
        bars.at_most(
            &format!("repeated log lines, {habit} client"),
            wrong(*repeated),
            0.0,
            "lines",
        );
        bars.at_most(
            &format!("missing log lines that are not counted, {habit} client"),
            wrong(*uncounted),
            0.0,
            "lines",
        );
    }
}

impl Writer {
    /// Starts a container that writes about 200 log lines a second, in bursts. Every tenth burst has more log lines than the
    /// agent stores.
    fn start(name: &str) -> Self {
        let filler = "x".repeat(250);
        let script = format!(
            "i=0; b=0; while :; do b=$((b+1)); n=600; [ $((b % 10)) = 0 ] && n=3000; \
             while [ $n -gt 0 ]; do echo \"$i {filler}\"; i=$((i+1)); n=$((n-1)); done; sleep 3; done"
        );
        let options = [
            "--name",
            name,
            "--log-driver",
            "json-file",
            "--log-opt",
            "max-size=1m",
            "--log-opt",
            "max-file=3",
        ];
        let writer = Self;
        start_containers(1, &options, &script);
        writer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        remove_containers();
    }
}

impl Tally {
    /// Follows a container's log until `end`.
    fn of(address: SocketAddr, container: &str, habit: Habit, end: Instant) -> Self {
        let mut tally = Self::default();
        while Instant::now() < end {
            tally.connections += 1;
            let until = match habit {
                Habit::CutOff => end.min(Instant::now() + CUT_OFF_AFTER),
                _ => end,
            };
            tally.follow(address, container, habit, until);
        }
        tally
    }

    /// Reads over one connection. The tail comes first, then each new log line once.
    fn follow(&mut self, address: SocketAddr, container: &str, habit: Habit, until: Instant) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        socket
            .connect(&address.into())
            .expect("the agent did not accept the connection");
        let mut stream = std::net::TcpStream::from(socket);
        stream.write_all(login(OPTIONS).as_bytes()).unwrap();
        let mut sequence = Sequence::default();
        let mut skipped = 0;
        for line in BufReader::new(stream).lines() {
            let snapshot: Snapshot = serde_json::from_str(&line.expect("no line from the agent"))
                .expect("expected a snapshot");
            self.snapshots += 1;
            skipped = snapshot.agent.skipped;
            let lines = snapshot.logs.get(container).map_or(&[][..], Vec::as_slice);
            let dropped = snapshot.logs_dropped.get(container).copied();
            self.note(&mut sequence, lines, dropped.unwrap_or_default());
            if Instant::now() >= until {
                break;
            }
            if habit == Habit::Slow && self.snapshots.is_multiple_of(SLOW_AFTER) {
                thread::sleep(SLOW_FOR);
            }
        }
        self.skipped += skipped;
        self.overcounted += sequence.counted;
    }

    fn note(&mut self, sequence: &mut Sequence, lines: &[String], dropped: u64) {
        sequence.counted += dropped;
        for line in lines {
            // `TIMESTAMP NUMBER …`
            let number = line
                .split(' ')
                .nth(1)
                .and_then(|number| number.parse().ok());
            let number: u64 = number.expect("expected a numbered log line");
            self.lines += 1;
            let missing = match sequence.last {
                Some(last) if number <= last => {
                    self.repeated += 1;
                    continue;
                }
                Some(last) => number - last - 1,
                None => 0,
            };
            let counted = missing.min(sequence.counted);
            self.missing += missing;
            self.uncounted += missing - counted;
            sequence.counted -= counted;
            sequence.last = Some(number);
        }
    }
}

/// The state of one connection.
#[derive(Default)]
struct Sequence {
    last: Option<u64>,
    /// Number of log lines that the agent counted as dropped. Log lines that are known to be missing are already subtracted.
    counted: u64,
}
