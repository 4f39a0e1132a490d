//! What stands in the engine's place: a pipe to the real one, or a fault that the real one cannot be made to show.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use super::engine::LOCAL_SOCKET;

/// How one request is answered.
#[derive(Clone)]
#[allow(dead_code, reason = "tests/faults gives more of them")]
pub(crate) enum Answer {
    /// As the real engine answers it.
    Engine,
    /// Never.
    Silence,
    /// With these bytes, HTTP or not, and the end of the connection.
    Bytes(&'static [u8]),
    /// With this status and JSON body.
    Json(&'static str, &'static str),
    /// With status 200 and this JSON body.
    Body(Arc<str>),
    /// With status 200 and a body without end.
    Endless,
    /// With whatever this writes, and the end of the connection.
    Stream(Writes),
}

/// Writes to a client until it is done, or the client gone.
pub(crate) type Writes = Arc<dyn Fn(&mut UnixStream) -> io::Result<()> + Send + Sync>;

/// A connection, and the path that was asked for on it, once one was.
struct Connection {
    asked: Arc<OnceLock<String>>,
    stream: UnixStream,
}

/// A server on a unix socket that answers each request by its path.
pub(crate) struct StandIn {
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    /// The open connections, so that they end with it, as those of a stopped engine do.
    connections: Arc<Mutex<Vec<Connection>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens at `socket`, where nothing may be yet, before the local engine.
    pub(crate) fn at(socket: &Path, rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::before(Path::new(LOCAL_SOCKET), socket, rule)
    }

    /// Listens at `socket`, where nothing may be yet, before the engine that listens at `engine`.
    pub(crate) fn before(
        engine: &Path,
        socket: &Path,
        rule: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).expect("a free path");
        let stopping = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let acceptor = thread::spawn({
            let (stopping, connections) = (Arc::clone(&stopping), Arc::clone(&connections));
            let (rule, engine) = (Arc::new(rule), engine.to_owned());
            move || {
                for stream in listener.incoming() {
                    let stream = stream.expect("a connection");
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let connection = Connection {
                        asked: Arc::default(),
                        stream: stream.try_clone().expect("a second handle"),
                    };
                    let asked = Arc::clone(&connection.asked);
                    connections.lock().unwrap().push(connection);
                    let connections = Arc::clone(&connections);
                    let (rule, engine) = (Arc::clone(&rule), engine.clone());
                    thread::spawn(move || {
                        // How one connection fares is the agent's affair: it may leave at any time.
                        let _ = serve(stream, &asked, &*rule, &engine);
                        // The last handle of it: it ends.
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

    /// Ends the connections on which a path with this text was asked for since it was last called; how many.
    pub(crate) fn cut(&self, path: &str) -> usize {
        let mut connections = self.connections.lock().unwrap();
        let asked =
            |one: &mut Connection| one.asked.get().is_some_and(|asked| asked.contains(path));
        let cut: Vec<_> = connections.extract_if(.., asked).collect();
        for connection in &cut {
            // Its other end may have ended it.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        cut.len()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
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

/// Answers one request; the connection ends with it.
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
            // One request a connection, so that every request is judged.
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

/// Reads up to the empty line, and drops the `Connection` header.
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

/// A pipe from a port of the loopback interface to the local engine, byte by byte, as a socket proxy is one.
/// Yields the port; it stays open until the test process ends.
pub(crate) fn tcp_pipe_to_engine() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let engine = UnixStream::connect(LOCAL_SOCKET).expect("the engine");
            thread::spawn(move || pipe(client, engine));
        }
    });
    port
}

/// Copies both ways until both are done.
fn pipe(client: impl Stream, engine: UnixStream) {
    let (from_client, to_engine) = (client.another(), engine.another());
    let upstream = thread::spawn(move || transfer(from_client, to_engine));
    transfer(engine, client);
    let _ = upstream.join();
}

/// Copies one way until the end, and passes the end on.
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
        self.try_clone().expect("a second handle")
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for TcpStream {
    fn another(&self) -> Self {
        self.try_clone().expect("a second handle")
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}
