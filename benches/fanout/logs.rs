//! `logs: new` against a writer of numbered lines whose files rotate: each line comes once, in order, to a client that
//! reads, to one that is slow now and then, and within each connection of one that is cut off again and again. What does
//! not come is counted.

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
/// Fewer than the writer writes now and then between two readings, and than a slow client misses.
const LINES: &str = "1000";
/// The room of a client's socket: little, so that a slow one is soon behind.
const ROOM: usize = 4 * 1024;
/// After so many snapshots a slow client reads nothing for so long.
const SLOW_AFTER: u64 = 12;
const SLOW_FOR: Duration = Duration::from_secs(8);
/// How long a connection of the one lasts that is cut off.
const CUT_OFF_AFTER: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Steady,
    Slow,
    CutOff,
}

/// What one client has been sent.
#[derive(Default)]
struct Tally {
    connections: u64,
    snapshots: u64,
    skipped: u64,
    lines: u64,
    /// Lines that came again, or after a later one.
    again: u64,
    missing: u64,
    /// Lines that are missing and were not said to be.
    unsaid: u64,
    /// Lines that were said to be missing and are not.
    said_too_many: u64,
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
        running.map(|client| client.join().expect("a tally"))
    });
    println!(
        "| client | connections | snapshots | skipped | lines | again | missing | not said | said too many |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for ((habit, _), tally) in habits.iter().zip(&tallies) {
        let Tally {
            connections,
            snapshots,
            skipped,
            lines,
            again,
            missing,
            unsaid,
            said_too_many,
        } = tally;
        println!(
            "| {habit} | {connections} | {snapshots} | {skipped} | {lines} | {again} | {missing} | {unsaid} | {said_too_many} |"
        );
        // Who has seen nothing has shown nothing.
        let wrong = |count: u64| if *lines > 0 { count as f64 } else { f64::NAN };
        bars.at_most(
            &format!("log lines sent again, {habit} client"),
            wrong(*again),
            0.0,
            "lines",
        );
        bars.at_most(
            &format!("log lines missing without a word, {habit} client"),
            wrong(*unsaid),
            0.0,
            "lines",
        );
    }
}

impl Writer {
    /// About 200 lines a second in bursts, and now and then more at once than the agent keeps.
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
    /// Follows a container's log until the end.
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

    /// One connection, in which the tail comes first and then each line once.
    fn follow(&mut self, address: SocketAddr, container: &str, habit: Habit, until: Instant) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(ROOM).unwrap();
        socket.connect(&address.into()).expect("the agent accepts");
        let mut stream = std::net::TcpStream::from(socket);
        stream.write_all(login(OPTIONS).as_bytes()).unwrap();
        let mut sequence = Sequence::default();
        let mut skipped = 0;
        for line in BufReader::new(stream).lines() {
            let snapshot: Snapshot =
                serde_json::from_str(&line.expect("the agent streams")).expect("a snapshot");
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
        self.said_too_many += sequence.said;
    }

    fn note(&mut self, sequence: &mut Sequence, lines: &[String], dropped: u64) {
        sequence.said += dropped;
        for line in lines {
            // `TIMESTAMP NUMBER …`
            let number = line
                .split(' ')
                .nth(1)
                .and_then(|number| number.parse().ok());
            let number: u64 = number.expect("a numbered line");
            self.lines += 1;
            let missing = match sequence.last {
                Some(last) if number <= last => {
                    self.again += 1;
                    continue;
                }
                Some(last) => number - last - 1,
                None => 0,
            };
            let said = missing.min(sequence.said);
            self.missing += missing;
            self.unsaid += missing - said;
            sequence.said -= said;
            sequence.last = Some(number);
        }
    }
}

/// How far a connection has got.
#[derive(Default)]
struct Sequence {
    last: Option<u64>,
    /// Lines said to be missing that have not been found to be so.
    said: u64,
}
