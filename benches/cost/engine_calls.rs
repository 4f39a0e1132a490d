//! Counts the calls of the installed agent to the engine, and measures what each of them costs the engine.
//!
//! The idle engine uses more CPU time than the agent causes, and its use changes from minute to minute. So the difference between
//! windows with and without the agent says little. The number of calls is exact: the agent reaches the engine through a socket of
//! this program, which counts the requests. Afterwards this program makes the same calls many times in a row, and measures the CPU
//! time of the engine.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::WARM_UP;
use crate::agent::Agent;
use crate::common::agent::as_installed;
use crate::common::bars::Bars;
use crate::load::{Load, engine_processes};
use crate::plan::Plan;

const ENGINE: &str = "/var/run/docker.sock";
/// How long the requests of the agent are counted, at least.
const MIN_COUNTED: Duration = Duration::from_mins(3);
/// How often each call is made to measure it.
const REPEATS: u32 = 300;

/// Timeout for an answer of the engine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The requests, by path without the ids of containers. For each, one of the paths and the number of requests.
type Requests = Arc<Mutex<BTreeMap<String, (String, u32)>>>;

/// A socket that passes everything to the engine's socket and back, and counts the requests.
struct CountingSocket {
    requests: Requests,
    folder: TempDir,
}

impl CountingSocket {
    fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path)?;
        // The agent has a user of its own.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let requests = Requests::default();
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Err(error) = pass_on(client, Arc::clone(&counted)) {
                    eprintln!("the engine cannot be reached: {error}");
                }
            }
        });
        Ok(Self { requests, folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }
}

/// Returns a command that runs `command` in a mount namespace of its own, in which the socket is at the path of the engine's socket. With
/// another path in `DOCKER_HOST`, the installed agent would read no log files.
fn with_socket(socket: &CountingSocket, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "sh", "-c"])
        .arg(format!("mount --bind \"$0\" {ENGINE} && exec \"$@\""))
        .arg(socket.path())
        .arg(command.get_program())
        .args(command.get_args());
    unshare
}

/// Passes the bytes of a connection to the engine, and the answers back, in threads of their own.
fn pass_on(client: UnixStream, requests: Requests) -> io::Result<()> {
    let engine = UnixStream::connect(ENGINE)?;
    let (mut answers, mut back) = (engine.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        // An error means that one side has closed the connection.
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        let _ = count(&client, &engine, &requests);
        let _ = engine.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}

/// Passes requests without a body to the engine, line by line, and counts them.
fn count(client: &UnixStream, mut engine: &UnixStream, requests: &Requests) -> io::Result<()> {
    let mut lines = BufReader::new(client);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let path = line.strip_suffix(" HTTP/1.1\r\n");
        if let Some(path) = path.and_then(|request| request.strip_prefix("GET ")) {
            let mut requests = requests.lock().unwrap();
            let (example, number) = requests.entry(without_ids(path)).or_default();
            *number += 1;
            path.clone_into(example);
        }
        engine.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn without_ids(path: &str) -> String {
    let is_id = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = path
        .split('/')
        .map(|part| if is_id(part) { "ID" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Counts the calls, measures them and prints the result.
pub(crate) fn measure(plan: &Plan, count: usize, bars: &mut Bars) {
    eprintln!("{count} containers: counting the calls to the engine");
    let socket = CountingSocket::start().expect("cannot listen on a socket");
    let agent = Agent::start_by(with_socket(&socket, &as_installed(&plan.agent)), count, &[]);
    thread::sleep(WARM_UP);
    let counted = MIN_COUNTED.max(plan.window * u32::try_from(plan.windows).unwrap());
    socket.requests.lock().unwrap().clear();
    thread::sleep(counted);
    let requests = std::mem::take(&mut *socket.requests.lock().unwrap());
    drop(agent);
    let minutes = counted.as_secs_f64() / 60.0;
    let mut sum = 0.0;
    println!("\n| call | calls a minute | engine CPU ms a call |\n|---|---:|---:|");
    for (path, (example, calls)) in requests {
        let per_minute = f64::from(calls) / minutes;
        if path.contains("/events?") {
            // This call has no end. The engine uses CPU time for it only when there are events.
            println!("| {path} | {per_minute:.2} | |");
            continue;
        }
        let each = seconds_per_call(&example).expect("cannot measure a call");
        sum += each * per_minute;
        println!("| {path} | {per_minute:.2} | {:.2} |", each * 1000.0);
    }
    let sum = sum.max(0.0);
    println!("\nthe calls of the installed agent cost the engine {sum:.3} s/min");
    let what = format!("CPU of the engine for the agent's calls, {count} containers");
    bars.at_most(&what, sum, 0.1, "s/min");
}

/// Makes the same call many times. Returns the CPU time of the engine for one call, in seconds, without the time that the idle
/// engine uses. The result can be slightly negative.
fn seconds_per_call(path: &str) -> io::Result<f64> {
    let connection = UnixStream::connect(ENGINE)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    let mut connection = BufReader::new(connection);
    call(&mut connection, path)?;
    let before = Load::now(&engine_processes());
    let began = Instant::now();
    for _ in 0..REPEATS {
        call(&mut connection, path)?;
    }
    let took = began.elapsed();
    let used = Load::now(&engine_processes()).since(&before);
    let idle = Load::over(took, engine_processes);
    let per_minute = used.per_minute(took) - idle.per_minute(took);
    Ok(per_minute / 60.0 * took.as_secs_f64() / f64::from(REPEATS))
}

/// Makes one call and reads the whole answer.
fn call(connection: &mut BufReader<UnixStream>, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes())?;
    let mut length = None;
    let mut status = String::new();
    connection.read_line(&mut status)?;
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("{path}: {status}")));
    }
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    match length {
        Some(length) => skip(connection, length),
        None => skip_chunks(connection),
    }
}

/// Skips an answer whose length is not known in advance.
fn skip_chunks(connection: &mut BufReader<UnixStream>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(invalid)?;
        // The line end after the chunk.
        skip(connection, length + 2)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn skip(connection: &mut BufReader<UnixStream>, length: u64) -> io::Result<()> {
    io::copy(&mut connection.take(length), &mut io::sink())?;
    Ok(())
}
