//! Measures other agents in their usual configuration, if they are installed. All of these agents listen on the loopback
//! interface.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::agent::free_port;
use crate::load::median;
use crate::plan::Plan;
use crate::process::Process;
use crate::row::{Row, processes_of};

/// Timeout for an agent's first answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The time that an agent runs before the first window.
const WARM_UP: Duration = Duration::from_secs(15);
/// Agents that measure on request get a request at the System Agent's default interval.
const INTERVAL: Duration = Duration::from_secs(5);

struct Peer {
    name: &'static str,
    command: &'static str,
    /// The benchmark replaces `PORT` by a free port.
    arguments: &'static [&'static str],
    path: &'static str,
    /// Whether the agent measures only on request.
    asked: bool,
}

pub(crate) const COUNT: usize = ALL.len();

const ALL: [Peer; 4] = [
    Peer {
        name: "Glances, web server read each 5 s",
        command: "glances",
        arguments: &[
            "-w",
            "-t",
            "5",
            "-B",
            "127.0.0.1",
            "-p",
            "PORT",
            "--disable-autodiscover",
            "--disable-check-update",
        ],
        path: "/api/4/all",
        asked: true,
    },
    Peer {
        name: "prometheus-node-exporter, scraped each 5 s",
        command: "prometheus-node-exporter",
        arguments: &["--web.listen-address=127.0.0.1:PORT"],
        path: "/metrics",
        asked: true,
    },
    Peer {
        name: "Netdata, each 1 s",
        command: "netdata",
        arguments: &["-D", "-i", "127.0.0.1", "-p", "PORT"],
        path: "/api/v1/info",
        asked: false,
    },
    Peer {
        name: "cAdvisor, housekeeping and scraped each 5 s",
        command: "cadvisor",
        arguments: &[
            "-listen_ip=127.0.0.1",
            "-port=PORT",
            "-housekeeping_interval=5s",
        ],
        path: "/metrics",
        asked: true,
    },
];

/// A row for each agent. The row of an agent that cannot be measured states the reason.
pub(crate) fn measure(plan: &Plan) -> Vec<Row> {
    let all = ALL.iter().filter(|_| plan.peers);
    let row = |peer: &Peer| {
        peer.measure(plan)
            .unwrap_or_else(|why| Row::missing(peer.name, why))
    };
    all.map(row).collect()
}

impl Peer {
    /// The program, which a setting can name.
    fn program<'p>(&self, plan: &'p Plan) -> &'p Path {
        match self.command {
            "prometheus-node-exporter" => &plan.node_exporter,
            "cadvisor" => &plan.cadvisor,
            other => Path::new(other),
        }
    }

    fn measure(&self, plan: &Plan) -> Result<Row, String> {
        let port = free_port();
        let arguments = self
            .arguments
            .iter()
            .map(|argument| argument.replace("PORT", &port.to_string()));
        let mut command = Command::new(self.program(plan));
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "not installed".to_owned(),
            _ => error.to_string(),
        })?;
        let started = Instant::now();
        while let Err(error) = get(port, self.path) {
            if process.has_ended() {
                return Err("exited at its start".to_owned());
            }
            if started.elapsed() > TIMEOUT {
                return Err(format!("does not answer: {error}"));
            }
            thread::sleep(Duration::from_millis(200));
        }
        let client = self.asked.then(|| Client::start(port, self.path));
        thread::sleep(WARM_UP);
        let row = Row::measure(self.name, plan, processes_of(process.pid()));
        if process.has_ended() {
            return Err("exited during the measurement".to_owned());
        }
        Ok(Row {
            latency_ms: client.map(Client::end),
            ..row
        })
    }
}

/// A client that sends a request at each interval.
struct Client {
    answers: JoinHandle<Vec<f64>>,
    end: Sender<()>,
}

impl Client {
    fn start(port: u16, path: &'static str) -> Self {
        let (end, ended) = channel();
        let answers = thread::spawn(move || {
            let mut answers = Vec::new();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let asked = Instant::now();
                if get(port, path).is_ok() {
                    answers.push(asked.elapsed().as_secs_f64() * 1000.0);
                }
            }
            answers
        });
        Self { answers, end }
    }

    /// Stops the client. Returns the median time of an answer, in milliseconds.
    fn end(self) -> f64 {
        let _ = self.end.send(());
        median(&self.answers.join().expect("answers"))
    }
}

/// Reads a page over HTTP.
fn get(port: u16, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    let ok = page.starts_with(b"HTTP/1.1 200") || page.starts_with(b"HTTP/1.0 200");
    ok.then_some(())
        .ok_or_else(|| io::Error::other(format!("no page at {path}")))
}
