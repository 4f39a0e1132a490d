//! Trials with up to fifty thousand hostile connections, in waves. With the agent's limit on open files, a wave has more
//! connections than the agent accepts without a key. Every second wave comes from one address. Each other wave comes from 200
//! addresses. During the waves, new clients with the key connect one after another.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::client::Client;
use crate::support::{Agent, Authority, Delay, KEY, Launch, OpenSsl, client_hello};
use crate::trial::{INTERVAL, Report, Trial, Usage, launch};

/// The number of connections of each kind, and the size of a wave.
const EACH: u32 = 10_000;
const WAVE: u32 = 2500;
/// How long a wave stays connected, if the agent does not close it.
const STAY: Duration = Duration::from_secs(3);
/// A new client with the key must get its first snapshot within this time in seconds, also during a wave.
const NEWCOMER: f64 = 5.0;
/// Limit of the growth of the agent's memory, in MiB.
const GROWTH: f64 = 32.0;
/// After this time the agent has returned free memory to the system.
const AFTER: Duration = Duration::from_secs(70);

/// Sends the data of a hostile connection.
type Action = fn(&mut TcpStream, u32);

fn nothing(_: &mut TcpStream, _: u32) {}

fn a_byte(stream: &mut TcpStream, _: u32) {
    let _ = stream.write_all(b"k");
}

fn random(stream: &mut TcpStream, seed: u32) {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let bytes: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
    let _ = stream.write_all(&bytes);
}

/// Sends the beginning of a TLS ClientHello.
fn half_a_hello(stream: &mut TcpStream, seed: u32) {
    const HELLO: [u8; 48] = [
        0x16, 3, 1, 0, 0xc0, 1, 0, 0, 0xbc, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0x20, 9, 9, 9, 9,
    ];
    let _ = stream.write_all(&HELLO[..1 + seed as usize % (HELLO.len() - 1)]);
}

/// Sends a key of the maximum line length, without a line feed.
fn endless_key(stream: &mut TcpStream, _: u32) {
    let _ = stream.write_all(&[b'k'; 4096]);
}

/// Sends an unfinished ClientHello of the maximum length that the agent buffers.
fn longest_hello(stream: &mut TcpStream, _: u32) {
    let mut hello = vec![0; 60 * 1024];
    // The TLS records have up to 16 KiB. Together they are the beginning of one message of nearly 64 KiB.
    for record in hello.chunks_mut(5 + (1 << 14)) {
        let length = record.len() - 5;
        record[..5].copy_from_slice(&[0x16, 3, 1, (length >> 8) as u8, length as u8]);
    }
    hello[5..9].copy_from_slice(&[1, 0, 0xff, 0xf0]);
    let _ = stream.write_all(&hello);
}

fn long_key(stream: &mut TcpStream, _: u32) {
    let mut key = [b'k'; 4097];
    key[4096] = b'\n';
    let _ = stream.write_all(&key);
}

/// Connects from the only address of this wave, or from one of the 200 addresses of this wave.
fn connect(to: SocketAddr, wave: u32, number: u32) -> TcpStream {
    let host = if wave % 2 == 0 {
        1
    } else {
        1 + (number % 200) as u8
    };
    let from = SocketAddr::from(([127, 7, wave as u8, host], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&from.into()).unwrap();
    socket
        .connect_timeout(&to.into(), Duration::from_secs(30))
        .expect("the kernel did not accept the connection");
    socket.into()
}

/// Runs all waves of one kind. Returns the longest time that a new client waited for its first snapshot.
fn waves(
    agent: &Agent,
    action: Action,
    again: Option<Duration>,
    new_client: impl Fn() -> Duration + Sync,
) -> Duration {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let new_clients = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                longest = longest.max(new_client());
                thread::sleep(Duration::from_millis(100));
            }
            longest
        });
        (0..EACH / WAVE).for_each(|number| wave(agent, number, action, again));
        ended.store(true, Ordering::Relaxed);
        new_clients.join().unwrap()
    })
}

fn wave(agent: &Agent, wave: u32, action: Action, again: Option<Duration>) {
    let began = Instant::now();
    let mut all: Vec<TcpStream> = (0..WAVE)
        .map(|number| {
            let mut stream = connect(agent.address(), wave, number);
            action(&mut stream, number + wave * WAVE);
            stream
        })
        .collect();
    while let Some(pause) = again.filter(|_| began.elapsed() < STAY) {
        thread::sleep(pause);
        all.iter_mut()
            .zip(0..)
            .for_each(|(stream, seed)| action(stream, seed));
    }
    thread::sleep(STAY.saturating_sub(began.elapsed()));
    for stream in &mut all {
        // Reads the agent's answer, if the agent has sent one.
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut [0; 64]);
    }
}

/// Returns how long a new client waits for its first snapshot.
fn new_client(agent: &Agent) -> Duration {
    let started = Instant::now();
    let mut client = agent.login();
    client
        .line_within(Duration::from_secs(60))
        .expect("no snapshot: the stream has ended");
    started.elapsed()
}

fn judge(mut trial: Trial, longest: Duration) -> Report {
    let refused = trial.agent.events("client refused").len();
    trial.check(
        refused > 0,
        format!("{refused} refusals in the agent's log"),
    );
    trial.within("a new client waited at most", Some(longest), NEWCOMER);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    thread::sleep(AFTER);
    let began = trial.usage();
    thread::sleep(Duration::from_secs(10));
    let after: Usage = trial.usage();
    trial.at_most(
        "after 70 s the agent uses",
        (after.cpu - began.cpu) * 10.0,
        5.0,
        "% of a core",
    );
    trial.at_most(
        "after 70 s memory is larger by",
        after.rss_mib - trial.before.rss_mib,
        4.0,
        "MiB",
    );
    trial.at_most(
        "after 70 s open files",
        after.files as f64 - trial.before.files as f64,
        4.0,
        "more",
    );
    trial.end()
}

pub(crate) fn crowd() -> Vec<Report> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut reports = Vec::new();
    let kinds: [(&str, Action, Option<Duration>); 5] = [
        ("10,000 connections that send nothing", nothing, None),
        (
            "10,000 connections that send a byte a second",
            a_byte,
            Some(Duration::from_secs(1)),
        ),
        ("10,000 connections that send random bytes", random, None),
        ("10,000 connections with keys of 4 KiB", long_key, None),
        (
            "10,000 connections with keys of 4 KiB without a line feed",
            endless_key,
            None,
        ),
    ];
    for (name, action, again) in kinds {
        let trial = Trial::start(name, few_files(launch()));
        let longest = waves(&trial.agent, action, again, || new_client(&trial.agent));
        reports.push(judge(trial, longest));
    }

    let authority = Authority::new();
    let identity = authority.issue("agent");
    let kinds: [(&str, Action); 2] = [
        ("10,000 unfinished TLS ClientHellos", half_a_hello),
        (
            "10,000 unfinished TLS ClientHellos of 60 KiB",
            longest_hello,
        ),
    ];
    for (name, action) in kinds {
        let launch = identity.launch().var("PUBLISH_INTERVAL", "1s");
        let agent = few_files(launch).start();
        let login = |agent: &Agent| {
            let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
            client.send(format!("{KEY}\n"));
            client
        };
        let mut good = login(&agent);
        let client = Client::reading(INTERVAL, move || good.line());
        let trial = Trial::with(name, agent, client);
        let longest = waves(&trial.agent, action, None, || {
            let started = Instant::now();
            login(&trial.agent)
                .line()
                .expect("no snapshot: the stream has ended");
            started.elapsed()
        });
        reports.push(judge(trial, longest));
    }
    reports
}

/// Delay in each direction for a client behind a satellite link. A round trip takes 800 ms.
const SLOW_LINK: Duration = Duration::from_millis(400);
/// The number of interrupted ClientHellos. Each of the four kinds has a quarter of them.
const CUT_SHORT: usize = 10_000;
/// The number of complete ClientHellos at the same time. Most of them wait in the agent's queue.
const AT_ONCE: usize = 1250;

/// Sends ten thousand TLS ClientHellos. Their connections close or break at various points, some of them while the ClientHello
/// waits in the agent's queue. Afterwards a client with a slow link must be able to connect. This shows that the agent has
/// removed the broken connections from the queue.
pub(crate) fn cut_short() -> Vec<Report> {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("PUBLISH_INTERVAL", "1s").start();
    let slow_link = Delay::to(agent.address(), SLOW_LINK);
    let login = |address: SocketAddr, options: &[&str]| {
        let mut client = OpenSsl::connect(address, options);
        client.send(format!("{KEY}\n"));
        client
    };
    let mut good = login(agent.address(), &[]);
    let client = Client::reading(INTERVAL, move || good.line());
    let mut trial = Trial::with("10,000 interrupted TLS ClientHellos", agent, client);
    let address = trial.agent.address();
    let hello = client_hello();
    let begun = |number: usize, length: usize| {
        let mut stream = connect(address, 100, number as u32);
        stream.write_all(&hello[..length]).unwrap();
        stream
    };
    let reset = |stream: TcpStream| {
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    };
    for number in 0..CUT_SHORT / 4 {
        drop(begun(number, 0));
        drop(begun(number, 1 + number % (hello.len() - 1)));
        reset(begun(number, hello.len()));
    }
    for wave in 0..CUT_SHORT / 4 / AT_ONCE {
        let all: Vec<_> = (0..AT_ONCE)
            .map(|number| begun(wave * AT_ONCE + number, hello.len()))
            .collect();
        match wave % 2 {
            0 => drop(all),
            _ => all.into_iter().for_each(reset),
        }
    }
    let mut longest = Duration::ZERO;
    for version in ["-tls1_2", "-tls1_3"] {
        let started = Instant::now();
        let first = login(slow_link.address(), &[version]).line();
        trial.check(first.is_some(), format!("{version} over the slow link"));
        longest = longest.max(started.elapsed());
    }
    vec![judge(trial, longest)]
}

/// Limits the agent's open files to fewer than the connections of a wave.
fn few_files(launch: Launch) -> Launch {
    launch.launched_by(["prlimit", "--nofile=3000:3000"])
}
