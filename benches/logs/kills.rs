//! A client that must get each log line once, while programs are killed and the network is cut.

use std::collections::HashMap;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::agent;
use crate::common::bars::Bars;
use crate::common::process::Process;
use crate::private::PrivateEngine;
use crate::relay::Relay;
use crate::shipper::{Shipper, Stored};
use crate::{LINE, Plan};

/// Time of undisturbed reading before each disturbance, without a part that differs each time.
const CALM: Duration = Duration::from_secs(4);
/// Timeout until the newest log line arrives at the end.
const END: Duration = Duration::from_secs(60);
const NAME: &str = "writer";

/// The disturbances, in the order in which they happen.
const DISTURBANCES: [&str; 4] = ["client", "agent", "dockerd", "network"];

/// The log lines that are wrong.
struct Wrong<'l> {
    /// Lines of Docker's log that did not arrive.
    missing: Vec<&'l str>,
    /// Lines that came more often than they are in Docker's log.
    twice: Vec<&'l str>,
    /// Whole lines that came after a line with a higher number.
    out_of_order: Vec<&'l str>,
}

pub(crate) fn measure(plan: &Plan, bars: &mut Bars) {
    println!(
        "\n## {} disturbances in turn: kill -9 of {}, {}, {}, and a cut of the {} for {} s\n",
        plan.kills,
        DISTURBANCES[0],
        DISTURBANCES[1],
        DISTURBANCES[2],
        DISTURBANCES[3],
        plan.cut.as_secs()
    );
    let mut engine = PrivateEngine::start();
    engine.docker(&[
        "run",
        "--detach",
        "--name",
        NAME,
        "--network",
        "none",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=2m",
        "--log-opt",
        "max-file=1000",
        "system-agent-test",
        "sh",
        "-c",
        &script(),
    ]);
    let host = format!("DOCKER_HOST={}", engine.host());
    let start = || {
        // `Process` removes DOCKER_HOST from the environment.
        let mut command = Command::new("env");
        command.arg(&host).arg(&plan.agent);
        let settings = [("PUBLISH_INTERVAL", "1s"), ("LOG_INTERVAL", "1s")];
        let (process, first) = agent::start_by(command, &settings);
        (process, first.peer_addr().unwrap())
    };
    let (mut agent, address) = start();
    let relay = Relay::start(address);
    let shipper = Shipper::start(relay.address(), NAME);
    for number in 0..plan.kills {
        calm();
        match DISTURBANCES[number % DISTURBANCES.len()] {
            "client" => shipper.kill(),
            "agent" => {
                kill(&mut agent);
                thread::sleep(Duration::from_secs(1));
                let address;
                (agent, address) = start();
                relay.set_agent(address);
            }
            "dockerd" => {
                engine.kill_dockerd();
                calm();
                engine.start_dockerd();
            }
            _ => relay.cut(plan.cut),
        }
    }
    calm();
    engine.docker(&["kill", "--signal", "STOP", NAME]);
    thread::sleep(Duration::from_secs(2));
    let log = engine.docker(&["logs", NAME]);
    let log: Vec<&str> = log.lines().collect();
    let newest = log.last().copied().expect("Docker's log is empty");
    let began = Instant::now();
    let has_newest = || shipper.stored().lines.last().map(|line| &**line) == Some(newest);
    while !has_newest() && began.elapsed() < END {
        thread::sleep(Duration::from_millis(100));
    }
    // A line that comes twice can also come after the newest one.
    thread::sleep(Duration::from_secs(3));
    shipper.end();
    report(&log, &shipper.stored(), bars);
}

/// Waits for [`CALM`] and up to a second more, so that the disturbances come at different times within an interval.
fn calm() {
    thread::sleep(CALM + Duration::from_millis(fastrand::u64(..1000)));
}

/// Kills a process with SIGKILL.
fn kill(process: &mut Process) {
    process.0.kill().unwrap();
    process.0.wait().unwrap();
}

/// Writes about 900 numbered lines a second. Each begins with `n`, because a killed dockerd can leave the rest of a line, which
/// looks like a line of its own. Ends after an hour, so that nothing remains if the benchmark is killed.
fn script() -> String {
    format!(
        "i=1000000; while [ $i -lt 4000000 ]; do n=100; while [ $n -gt 0 ]; do echo \"n$i {}\"; i=$((i+1)); n=$((n-1)); done; usleep 100000; done",
        "x".repeat(LINE - 9)
    )
}

/// The number of a whole line.
fn number(line: &str) -> Option<u64> {
    let digits = line.strip_prefix('n')?.split(' ').next()?;
    (line.len() == LINE).then(|| digits.parse().ok())?
}

fn report(log: &[&str], stored: &Stored, bars: &mut Bars) {
    let first = stored.lines.first().expect("no line has arrived");
    let begin = log.iter().position(|line| *line == &**first);
    let log = &log[begin.expect("the first line is not in Docker's log")..];
    let wrong = Wrong::find(log, stored);
    let missing = wrong.missing.len() as u64;
    let lost = missing.saturating_sub(stored.dropped);
    let repeated = wrong.twice.len() + wrong.out_of_order.len();
    let numbers: Vec<u64> = log.iter().filter_map(|line| number(line)).collect();
    let written = numbers.last().unwrap_or(&0) + 1 - numbers.first().unwrap_or(&0);
    println!("| lines | lost | twice | counted as dropped |");
    println!("|---:|---:|---:|---:|");
    println!(
        "| {} | {lost} | {repeated} | {} |",
        stored.lines.len(),
        stored.dropped
    );
    let begun = |outcome| {
        stored
            .notes
            .iter()
            .filter(move |note| note.resume == outcome)
    };
    println!(
        "\n{} lines in Docker's log, {} of them not whole; dockerd itself lost {} lines when it was killed; {} connections continued",
        log.len(),
        log.len() - numbers.len(),
        written - numbers.len() as u64,
        begun(Some("continued".to_owned())).count()
    );
    if missing > 0 || repeated > 0 || stored.dropped > 0 {
        wrong.print(stored);
    }
    bars.at_most("kills: lost", lost as f64, 0.0, "lines");
    bars.at_most("kills: twice", repeated as f64, 0.0, "lines");
}

impl<'l> Wrong<'l> {
    fn find(log: &[&'l str], stored: &'l Stored) -> Self {
        let mut open: HashMap<&str, i64> = HashMap::new();
        for line in log {
            *open.entry(line).or_default() += 1;
        }
        let (mut twice, mut out_of_order, mut highest) = (Vec::new(), Vec::new(), 0);
        for line in &stored.lines {
            let left = open.entry(line).or_default();
            *left -= 1;
            if *left < 0 {
                twice.push(&**line);
            } else if let Some(number) = number(line) {
                if number < highest {
                    out_of_order.push(&**line);
                }
                highest = highest.max(number);
            }
        }
        let missing = log.iter().filter(|line| open[*line] > 0);
        Self {
            missing: missing.copied().collect(),
            twice,
            out_of_order,
        }
    }

    /// Prints the wrong lines, and the client's notes about snapshots with and around them.
    fn print(&self, stored: &Stored) {
        let short = |lines: &[&str]| {
            let heads = lines.iter().map(|line| line.get(..24).unwrap_or(line));
            heads.map(str::to_owned).collect::<Vec<_>>()
        };
        println!("\nmissing: {:?}", short(&self.missing));
        println!("twice: {:?}", short(&self.twice));
        println!("out of order: {:?}\n", short(&self.out_of_order));
        let head = |place: usize| {
            let line = stored.lines.get(place);
            line.map(|line| line.get(..12).unwrap_or(line).to_owned())
        };
        let begins = |place: usize| {
            let note = stored.notes.get(place);
            note.is_some_and(|note| note.resume.is_some() || note.dropped > 0)
        };
        for (place, note) in stored.notes.iter().enumerate() {
            if begins(place) || begins(place + 1) {
                let (begin, count) = note.lines;
                let last = head((begin + count).max(1) - 1);
                println!("{:?} to {last:?}: {note:?}", head(begin));
            }
        }
    }
}
