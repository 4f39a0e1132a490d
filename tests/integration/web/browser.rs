//! The server of the page as a child process, and a minimal browser.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

use crate::support::{Agent, DEADLINE, Launch};

/// A running server of the page. Killed on drop.
pub(crate) struct PageServer {
    pub(crate) process: Agent,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The lines of the head. Names are in lower case.
    pub(crate) head: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl PageServer {
    /// Starts the server with these arguments and variables, on a free port.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::launch(Launch::new().args(["web"]).args(arguments).vars(variables))
    }

    /// Starts the server for the hosts of these agents.
    pub(crate) fn of(agents: &[&Agent]) -> Self {
        let hosts: Vec<_> = agents.iter().map(|one| one.address().to_string()).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        Self::start(&hosts, &[])
    }

    /// The history of these servers stays in memory, unless `launch` has a folder for it.
    pub(crate) fn launch(launch: Launch) -> Self {
        let launch = launch.var_if_unset("WEB_HISTORY_FOLDER", "off");
        let process = launch.var("WEB_ADDRESS", "127.0.0.1:0").spawn();
        let started = process.event("page server started");
        let url = started.text("url");
        let (_, address) = url.split_once("://").unwrap();
        let address = address.trim_end_matches('/').parse().unwrap();
        Self { process, address }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    /// Gets JSON, with the status 200.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Sends a request with these lines of the head.
    pub(crate) fn request(&self, method: &str, path: &str, head: &[&str], body: &str) -> Answer {
        read_answer(open(self.address, method, path, head, body))
    }

    pub(crate) fn log_in(&self, password: &str) -> Answer {
        let body = serde_json::json!({ "password": password }).to_string();
        self.request("POST", "/api/v1/login", &[], &body)
    }

    /// Opens a stream of events.
    pub(crate) fn stream(&self, path: &str, head: &[&str]) -> EventStream {
        let mut stream = BufReader::new(open(self.address, "GET", path, head, ""));
        let mut line = String::new();
        let mut head = Vec::new();
        while stream.read_line(&mut line).unwrap() > 2 {
            head.push(std::mem::take(&mut line));
        }
        assert!(head[0].contains("200"), "{path}: {head:?}");
        EventStream { stream }
    }
}

/// Gets a path from a server of the page.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    read_answer(open(address, "GET", path, &[], ""))
}

/// Sends a request with HTTP/1.0, so that the body has no chunks.
pub(crate) fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    head: &[&str],
    body: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = format!("{method} {path} HTTP/1.0\r\n");
    if !head
        .iter()
        .any(|line| line.to_lowercase().starts_with("host:"))
    {
        text += &format!("Host: {address}\r\n");
    }
    for line in head {
        text += &format!("{line}\r\n");
    }
    if method == "POST" {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    stream
        .write_all(format!("{text}\r\n{body}").as_bytes())
        .unwrap();
    stream
}

fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("the answer has no head");
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let lines = head.lines().skip(1);
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    Answer {
        status,
        head: lines.map(pair).collect(),
        body: body.to_owned(),
    }
}

/// A stream of server-sent events.
pub(crate) struct EventStream {
    stream: BufReader<TcpStream>,
}

/// One event.
#[derive(Debug)]
pub(crate) struct SentEvent {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl EventStream {
    /// Reads the next event. None if none comes within this time.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<SentEvent> {
        let end = Instant::now() + limit;
        let (mut name, mut id, mut data) = (String::new(), None, None);
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_millis(1));
            self.stream.get_ref().set_read_timeout(Some(left)).unwrap();
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(": ") {
                Some(("event", text)) => name = text.to_owned(),
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                _ if line.is_empty() => {
                    if let Some(data) = data.take() {
                        return Some(SentEvent { name, id, data });
                    }
                }
                // A comment.
                _ => assert!(line.starts_with(':'), "{line}"),
            }
        }
    }

    /// Reads the next event with this name that fits.
    pub(crate) fn find(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> SentEvent {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.next_within(left);
            let event = event.unwrap_or_else(|| panic!("no event {name:?} that fits"));
            if event.name == name && fits(&event.data) {
                return event;
            }
        }
    }

    /// Makes the receive buffer of the kernel small.
    pub(crate) fn narrow(&self) {
        let socket = SockRef::from(self.stream.get_ref());
        socket.set_recv_buffer_size(2048).unwrap();
    }
}
