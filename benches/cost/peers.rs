//! Measures other programs that watch the host or its containers, in their usual configuration, if they are installed. A program that
//! accepts connections listens only on the loopback interface.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::beside::Beszel;
use crate::common::agent::free_port;
use crate::common::engine::docker;
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
    client: Wanted,
}

/// The client that an agent has while it is measured.
enum Wanted {
    /// The agent has no clients, and does not listen.
    Nothing,
    /// The agent measures without a client. It is ready when it has this page.
    Page(&'static str),
    /// A client reads this page at each interval.
    Asks(&'static str),
    /// A client reads streams without end. `HOST` is replaced by the engine's id.
    Follows {
        page: &'static str,
        streams: &'static [&'static str],
    },
}

/// The rows of other agents, with that of Beszel's agent.
pub(crate) const COUNT: usize = ALL.len() + 1;

const ALL: [Peer; 9] = [
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
        client: Wanted::Asks("/api/4/all"),
    },
    Peer {
        name: "prometheus-node-exporter, scraped each 5 s",
        command: "prometheus-node-exporter",
        arguments: &["--web.listen-address=127.0.0.1:PORT"],
        client: Wanted::Asks("/metrics"),
    },
    Peer {
        name: "Netdata, each 1 s",
        command: "netdata",
        arguments: &["-D", "-i", "127.0.0.1", "-p", "PORT"],
        client: Wanted::Page("/api/v1/info"),
    },
    Peer {
        name: "Netdata, each 5 s",
        command: "netdata",
        arguments: &[
            "-D",
            "-i",
            "127.0.0.1",
            "-p",
            "PORT",
            "-W",
            "set",
            "db",
            "update every",
            "5",
        ],
        client: Wanted::Page("/api/v1/info"),
    },
    Peer {
        name: "cAdvisor, housekeeping and scraped each 5 s",
        command: "cadvisor",
        arguments: &[
            "-listen_ip=127.0.0.1",
            "-port=PORT",
            "-housekeeping_interval=5s",
        ],
        client: Wanted::Asks("/metrics"),
    },
    Peer {
        name: "Telegraf, each 5 s, with logs",
        command: "telegraf",
        arguments: &[
            "--config",
            concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cost/telegraf.conf"),
        ],
        client: Wanted::Nothing,
    },
    Peer {
        name: "Dozzle, a client follows the list",
        command: "dozzle",
        arguments: DOZZLE,
        client: Wanted::Follows {
            page: "/healthcheck",
            streams: &["/api/events/stream"],
        },
    },
    Peer {
        name: "Dozzle, a client follows the list and all logs",
        command: "dozzle",
        arguments: DOZZLE,
        client: Wanted::Follows {
            page: "/healthcheck",
            streams: &[
                "/api/events/stream",
                // Dozzle sends only lines of the levels that the client names.
                concat!(
                    "/api/hosts/HOST/logs/stream?stdout=1&stderr=1&levels=unknown",
                    "&levels=trace&levels=debug&levels=info&levels=warn&levels=error&levels=fatal"
                ),
            ],
        },
    },
    Peer {
        name: "docker stats",
        command: "docker",
        arguments: &["stats", "--format", "{{json .}}"],
        client: Wanted::Nothing,
    },
];

const DOZZLE: &[&str] = &["--addr", "127.0.0.1:PORT", "--no-analytics"];

/// A row for each agent. The row of an agent that cannot be measured states the reason.
pub(crate) fn measure(plan: &Plan) -> Vec<Row> {
    if !plan.peers {
        return Vec::new();
    }
    let row = |peer: &Peer| {
        peer.measure(plan)
            .unwrap_or_else(|why| Row::missing(peer.name, why))
    };
    let name = "Beszel's agent, asked each 5 s";
    let beszel = beszel(name, plan).unwrap_or_else(|why| Row::missing(name, why));
    ALL.iter().map(row).chain([beszel]).collect()
}

/// Measures Beszel's agent alone. The part [`crate::beside`] measures it beside other programs.
fn beszel(name: &str, plan: &Plan) -> Result<Row, String> {
    let program = plan.beszel.as_deref();
    let mut beszel = Beszel::start(program.ok_or("BENCH_BESZEL does not name its program")?)?;
    thread::sleep(WARM_UP);
    let row = Row::measure(name, plan, processes_of(beszel.agent.pid()));
    if beszel.agent.has_ended() {
        return Err("exited during the measurement".to_owned());
    }
    Ok(row)
}

impl Peer {
    /// The program, which a setting can name.
    fn program<'p>(&self, plan: &'p Plan) -> &'p Path {
        match self.command {
            "prometheus-node-exporter" => &plan.node_exporter,
            "cadvisor" => &plan.cadvisor,
            "telegraf" => &plan.telegraf,
            "dozzle" => &plan.dozzle,
            other => Path::new(other),
        }
    }

    fn measure(&self, plan: &Plan) -> Result<Row, String> {
        // Some agents write files to their current directory.
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port();
        let arguments = self
            .arguments
            .iter()
            .map(|argument| argument.replace("PORT", &port.to_string()));
        let program = self.program(plan);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("no program {}", program.display()),
            _ => error.to_string(),
        })?;
        let mut asks = None;
        match self.client {
            Wanted::Nothing => {}
            Wanted::Page(page) => wait(&mut process, port, page)?,
            Wanted::Asks(page) => {
                wait(&mut process, port, page)?;
                asks = Some(Client::start(port, page));
            }
            Wanted::Follows { page, streams } => {
                wait(&mut process, port, page)?;
                for stream in streams {
                    follow(port, stream).map_err(|error| error.to_string())?;
                }
            }
        }
        thread::sleep(WARM_UP);
        if process.has_ended() {
            return Err("exited at its start".to_owned());
        }
        let row = Row::measure(self.name, plan, processes_of(process.pid()));
        if process.has_ended() {
            return Err("exited during the measurement".to_owned());
        }
        Ok(Row {
            latency_ms: asks.map(Client::end),
            ..row
        })
    }
}

/// Waits until an agent has a page.
fn wait(process: &mut Process, port: u16, page: &str) -> Result<(), String> {
    let started = Instant::now();
    while let Err(error) = get(port, page) {
        if process.has_ended() {
            return Err("exited at its start".to_owned());
        }
        if started.elapsed() > TIMEOUT {
            return Err(format!("does not answer: {error}"));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Reads a stream over HTTP in a thread of its own, until the agent ends.
fn follow(port: u16, path: &str) -> io::Result<()> {
    let host = docker(&["info", "--format", "{{.ID}}"]);
    let path = path.replace("HOST", &host);
    let mut stream = ask(port, &path)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    check(&status, &path)?;
    stream.set_read_timeout(None)?;
    thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
    Ok(())
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
    let mut page = Vec::new();
    ask(port, path)?.read_to_end(&mut page)?;
    check(&page, path)
}

/// Sends a request for a page.
fn ask(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream)
}

/// Checks the beginning of an answer.
fn check(answer: &[u8], path: &str) -> io::Result<()> {
    let ok = answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200");
    ok.then_some(())
        .ok_or_else(|| io::Error::other(format!("no page at {path}")))
}
