//! Many clients that read the newest lines of busy logs from the agent, and as many clients of a bare server. Both servers send the
//! same bytes in the same rhythm.

mod bare;
mod readers;

pub(crate) use bare::run as run_bare;
pub(crate) use readers::run as run_readers;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::agent::{self, KEY};
use crate::common::bars::Bars;
use crate::common::limits::raise_file_limit;
use crate::common::load::{anonymous_mib, cpu_seconds};
use crate::common::process::Process;
use crate::reader::{Reader, Speed};
use crate::{LINE, Plan, WARM_UP, Writers, connect};

/// The time from the arrival of a snapshot at the bare server until it sends it: half of the agent's default interval. So the two
/// servers take turns.
const DELAY: Duration = Duration::from_millis(2500);
/// Bar of the agent's CPU time, as a multiple of the bare server's.
const MAX_OVER_BARE: f64 = 1.3;

/// What each client sends.
fn login() -> String {
    format!("{KEY} {{\"logs\":\"new\",\"sections\":[\"logs\"]}}\n")
}

/// Measures both servers over the same window.
pub(crate) fn measure(plan: &Plan, bars: &mut Bars) {
    let (clients, containers, rate) = (plan.clients, plan.containers, plan.rate);
    println!(
        "\n## {clients} clients that read the newest lines of {containers} containers with {rate} lines a second\n"
    );
    raise_file_limit();
    let script = format!(
        "i=0; while :; do n={rate}; while [ $n -gt 0 ]; do echo \"$i {}\"; i=$((i+1)); n=$((n-1)); done; sleep 1; done",
        "x".repeat(LINE - 8)
    );
    let _writers = Writers::start(containers, &["--network", "none"], &script);
    let (agent, first) = agent::start(&plan.agent, &[("MAX_CLIENTS", "20000")]);
    let address = first.peer_addr().unwrap();
    thread::sleep(WARM_UP);
    // This client checks that no line is missing.
    let witness = Reader::start(connect(address), Speed::Full);
    let mut bare = Child::start(&["bare", &address.to_string()]);
    let bare_address: SocketAddr = bare.read().parse().expect("an address");
    let readers_of = |address: SocketAddr| {
        let mut readers = Child::start(&["readers", &address.to_string(), &clients.to_string()]);
        assert_eq!(readers.read(), "connected");
        readers
    };
    let mut servers = [
        (agent.pid(), readers_of(address)),
        (bare.process.pid(), readers_of(bare_address)),
    ];
    thread::sleep(WARM_UP);
    let mut now = || {
        servers
            .each_mut()
            .map(|(pid, readers)| (cpu_seconds(*pid), readers.ask()))
    };
    let before = now();
    thread::sleep(plan.window);
    let after = now();
    let memory = [agent.pid(), bare.process.pid()].map(|pid| anonymous_mib(&[pid]));
    drop(servers);
    let tally = witness.finish();
    println!(
        "| server | CPU, s/min | MB/s to all clients | CPU, µs per MB | anonymous memory, MiB |"
    );
    println!("|---|---:|---:|---:|---:|");
    let mut per_mb = [0.0; 2];
    for (place, name) in ["System Agent", "bare server"].into_iter().enumerate() {
        let cpu = after[place].0 - before[place].0;
        let megabytes = (after[place].1 - before[place].1) as f64 / 1e6;
        per_mb[place] = cpu / megabytes * 1e6;
        let seconds = plan.window.as_secs_f64();
        println!(
            "| {name} | {:.2} | {:.0} | {:.1} | {:.1} |",
            cpu * 60.0 / seconds,
            megabytes / seconds,
            per_mb[place],
            memory[place]
        );
    }
    println!(
        "\none more client: {} lines, {} lost, {} repeated, {} counted as dropped",
        tally.lines, tally.lost, tally.repeated, tally.dropped
    );
    let wrong = tally.lost + tally.repeated + tally.dropped;
    bars.at_most("crowd: lost or repeated", wrong as f64, 0.0, "lines");
    bars.at_most(
        "crowd: CPU over the bare server's",
        per_mb[0] / per_mb[1],
        MAX_OVER_BARE,
        "×",
    );
}

/// A process of this program with another task. It answers with lines.
struct Child {
    process: Process,
    input: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("cannot start this program");
        Self {
            input: process.0.stdin.take().unwrap(),
            answers: BufReader::new(process.0.stdout.take().unwrap()),
            process,
        }
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the process has ended");
        line.trim_end().to_owned()
    }

    /// Asks for the number of bytes that have arrived.
    fn ask(&mut self) -> u64 {
        writeln!(self.input).expect("the process has ended");
        self.read().parse().expect("a number")
    }
}
