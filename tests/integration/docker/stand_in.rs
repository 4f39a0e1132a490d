//! Fake engines. A fake engine is a proxy in front of the real engine. It can answer a request with a fault that the real engine
//! cannot be made to have.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use super::engine::LOCAL_SOCKET;

/// The answer to one request.
#[derive(Clone)]
#[allow(dead_code, reason = "tests/faults uses more of these answers")]
pub(crate) enum Answer {
    /// Forwards the request to the real engine.
    Engine,
    /// Never answers.
    Silence,
    /// Sends these bytes, valid HTTP or not, and closes the connection.
    Bytes(&'static [u8]),
    /// Sends this status and JSON body.
    Json(&'static str, &'static str),
    /// Sends status 200 and this JSON body.
    Body(Arc<str>),
    /// Sends status 200 and a body without end.
    Endless,
    /// Calls this function, which writes the answer, and closes the connection.
    Stream(Writes),
}

/// A function that writes to a client until the answer is complete or the client has disconnected.
pub(crate) type Writes = Arc<dyn Fn(&mut UnixStream) -> io::Result<()> + Send + Sync>;

/// A connection and the path of its request. The path is set when the request arrives.
struct Connection {
    asked: Arc<OnceLock<String>>,
    stream: UnixStream,
}

/// A server on a Unix socket that answers each request by its path.
pub(crate) struct StandIn {
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    /// The open connections. On drop they are closed, as they are when an engine stops.
    connections: Arc<Mutex<Vec<Connection>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts a fake engine at `socket`, a free path, in front of the local engine.
    pub(crate) fn at(socket: &Path, rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::before(Path::new(LOCAL_SOCKET), socket, rule)
    }

    /// Starts a fake engine at `socket`, a free path, in front of the engine at `engine`.
    pub(crate) fn before(
        engine: &Path,
        socket: &Path,
        rule: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).expect("cannot listen on the socket");
        let stopping = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let acceptor = thread::spawn({
            let (stopping, connections) = (Arc::clone(&stopping), Arc::clone(&connections));
            let (rule, engine) = (Arc::new(rule), engine.to_owned());
            move || {
                for stream in listener.incoming() {
                    let stream = stream.expect("cannot accept a connection");
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let connection = Connection {
                        asked: Arc::default(),
                        stream: stream.try_clone().expect("cannot duplicate the connection"),
                    };
                    let asked = Arc::clone(&connection.asked);
                    connections.lock().unwrap().push(connection);
                    let connections = Arc::clone(&connections);
                    let (rule, engine) = (Arc::clone(&rule), engine.clone());
                    thread::spawn(move || {
                        // The agent can close the connection at any time, so an error is not a failure.
                        let _ = serve(stream, &asked, &*rule, &engine);
                        // This is the last handle of the connection, so the connection closes.
                        let mut connections = connections.lock().unwrap();
                        connections.retain(|one| !Arc::ptr_eq(&one.asked, &asked));
                    });
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            stopping,
            connections,
            acceptor: Some(acceptor),
        }
    }

    /// Closes the connections whose request path contains `path`. Returns their number.
    pub(crate) fn cut(&self, path: &str) -> usize {
        let mut connections = self.connections.lock().unwrap();
        let asked =
            |one: &mut Connection| one.asked.get().is_some_and(|asked| asked.contains(path));
        let cut: Vec<_> = connections.extract_if(.., asked).collect();
        for connection in &cut {
            // The other end can have closed the connection already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        cut.len()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // This connection wakes the thread that accepts connections, so that it ends.
        let _ = UnixStream::connect(&self.socket);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let _ = fs::remove_file(&self.socket);
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Answers one request, then closes the connection.
fn serve(
    mut client: UnixStream,
    asked: &OnceLock<String>,
    rule: &dyn Fn(&str) -> Answer,
    engine: &Path,
) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    match rule(asked.get_or_init(|| path.to_owned())) {
        Answer::Engine => {
            let mut engine = UnixStream::connect(engine)?;
            // One request per connection, so that the rule sees each request.
            let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            engine.write_all(head.as_bytes())?;
            pipe(client, engine);
            Ok(())
        }
        Answer::Silence => io::copy(&mut client, &mut io::sink()).map(drop),
        Answer::Bytes(bytes) => client.write_all(bytes),
        Answer::Json(status, body) => answer(&mut client, status, body),
        Answer::Body(body) => answer(&mut client, "200 OK", &body),
        Answer::Stream(writes) => writes(&mut client),
        Answer::Endless => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")?;
            loop {
                client.write_all(&[b' '; 16 * 1024])?;
            }
        }
    }
}

fn answer(client: &mut UnixStream, status: &str, body: &str) -> io::Result<()> {
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    client.write_all(body.as_bytes())
}

/// Reads the head of a request up to the empty line and removes its `Connection` header.
fn read_head(client: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let kept = head
        .split_inclusive("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    Ok(kept.collect())
}

/// Forwards a port of the loopback interface to the local engine, as a socket proxy does. Returns the port, which stays open
/// until the test process ends.
pub(crate) fn tcp_pipe_to_engine() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen on a free port");
    let port = listener
        .local_addr()
        .expect("the socket has no address")
        .port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("cannot accept a connection");
            let engine = UnixStream::connect(LOCAL_SOCKET).expect("cannot connect to the engine");
            thread::spawn(move || pipe(client, engine));
        }
    });
    port
}

/// Copies in both directions until both have ended.
fn pipe(client: impl Stream, engine: UnixStream) {
    let (from_client, to_engine) = (client.another(), engine.another());
    let upstream = thread::spawn(move || transfer(from_client, to_engine));
    transfer(engine, client);
    let _ = upstream.join();
}

/// Copies in one direction until the end, and forwards the end.
fn transfer(mut from: impl Stream, mut to: impl Stream) {
    let _ = io::copy(&mut from, &mut to);
    to.end();
}

trait Stream: Read + Write + Send + 'static {
    fn another(&self) -> Self;
    fn end(&self);
}

impl Stream for UnixStream {
    fn another(&self) -> Self {
        self.try_clone().expect("cannot duplicate the connection")
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for TcpStream {
    fn another(&self) -> Self {
        self.try_clone().expect("cannot duplicate the connection")
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}
