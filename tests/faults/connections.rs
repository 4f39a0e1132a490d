//! Fifty thousand connections that mean no good, in waves that are each more than the agent lets in without a key, of which
//! its open files are few here: half of the waves from one address, half from many. Meanwhile newcomers with the key come,
//! one after the other.

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

/// So many of each kind, in waves.
const EACH: u32 = 10_000;
const WAVE: u32 = 2500;
/// How long a wave stays, unless it is sent away.
const STAY: Duration = Duration::from_secs(3);
/// How soon a newcomer with the key must have its first snapshot while a wave is there.
const NEWCOMER: f64 = 5.0;
/// How much more memory they may make the agent take, in MiB.
const GROWTH: f64 = 32.0;
/// The time after which the agent has given back what was free.
const AFTER: Duration = Duration::from_secs(70);

/// What one of them does once it is connected.
type Deed = fn(&mut TcpStream, u32);

fn nothing(_: &mut TcpStream, _: u32) {}

fn a_byte(stream: &mut TcpStream, _: u32) {
    let _ = stream.write_all(b"k");
}

fn random(stream: &mut TcpStream, seed: u32) {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let bytes: Vec<u8> = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
    let _ = stream.write_all(&bytes);
}

/// A TLS ClientHello, as far as it goes.
fn half_a_hello(stream: &mut TcpStream, seed: u32) {
    const HELLO: [u8; 48] = [
        0x16, 3, 1, 0, 0xc0, 1, 0, 0, 0xbc, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0x20, 9, 9, 9, 9,
    ];
    let _ = stream.write_all(&HELLO[..1 + seed as usize % (HELLO.len() - 1)]);
}

/// As long as a line may be, without its end.
fn endless_key(stream: &mut TcpStream, _: u32) {
    let _ = stream.write_all(&[b'k'; 4096]);
}

/// A hello that announces more than it ever sends, which is as much as is kept of one.
fn long_hello(stream: &mut TcpStream, _: u32) {
    let mut hello = vec![0; 60 * 1024];
    // Records of 16 KiB at most, and in them one message of nearly 64 KiB.
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

/// Connects from an address of the wave's own, or from one of two hundred.
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
        .expect("the kernel takes connections");
    socket.into()
}

/// All waves of one kind. Yields the longest time that a newcomer had to wait meanwhile.
fn waves(
    agent: &Agent,
    deed: Deed,
    again: Option<Duration>,
    newcomer: impl Fn() -> Duration + Sync,
) -> Duration {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let newcomers = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                longest = longest.max(newcomer());
                thread::sleep(Duration::from_millis(100));
            }
            longest
        });
        (0..EACH / WAVE).for_each(|number| wave(agent, number, deed, again));
        ended.store(true, Ordering::Relaxed);
        newcomers.join().unwrap()
    })
}

fn wave(agent: &Agent, wave: u32, deed: Deed, again: Option<Duration>) {
    let began = Instant::now();
    let mut all: Vec<TcpStream> = (0..WAVE)
        .map(|number| {
            let mut stream = connect(agent.address(), wave, number);
            deed(&mut stream, number + wave * WAVE);
            stream
        })
        .collect();
    while let Some(pause) = again.filter(|_| began.elapsed() < STAY) {
        thread::sleep(pause);
        all.iter_mut()
            .zip(0..)
            .for_each(|(stream, seed)| deed(stream, seed));
    }
    thread::sleep(STAY.saturating_sub(began.elapsed()));
    for stream in &mut all {
        // Whatever answer there is.
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut [0; 64]);
    }
}

/// How long a newcomer waits for its first snapshot.
fn newcomer(agent: &Agent) -> Duration {
    let started = Instant::now();
    let mut client = agent.login();
    client
        .line_within(Duration::from_secs(60))
        .expect("a snapshot");
    started.elapsed()
}

fn judge(mut trial: Trial, longest: Duration) -> Report {
    let refused = trial.agent.events("client refused").len();
    trial.check(
        refused > 0,
        format!("{refused} refused ones named in the log"),
    );
    trial.within("a newcomer waited at most", Some(longest), NEWCOMER);
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, GROWTH, "MiB");
    thread::sleep(AFTER);
    let began = trial.usage();
    thread::sleep(Duration::from_secs(10));
    let after: Usage = trial.usage();
    trial.at_most(
        "a minute later it uses",
        (after.cpu - began.cpu) * 10.0,
        5.0,
        "% of a core",
    );
    trial.at_most(
        "and more memory by",
        after.rss_mib - trial.before.rss_mib,
        4.0,
        "MiB",
    );
    trial.at_most(
        "and open files",
        after.files as f64 - trial.before.files as f64,
        4.0,
        "more",
    );
    trial.end()
}

pub(crate) fn crowd() -> Vec<Report> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut reports = Vec::new();
    let kinds: [(&str, Deed, Option<Duration>); 5] = [
        ("10,000 that send nothing", nothing, None),
        (
            "10,000 that send a byte a second",
            a_byte,
            Some(Duration::from_secs(1)),
        ),
        ("10,000 that send random bytes", random, None),
        ("10,000 with keys of 4 KiB", long_key, None),
        (
            "10,000 with keys of 4 KiB that do not end",
            endless_key,
            None,
        ),
    ];
    for (name, deed, again) in kinds {
        let trial = Trial::start(name, few_files(launch()));
        let longest = waves(&trial.agent, deed, again, || newcomer(&trial.agent));
        reports.push(judge(trial, longest));
    }

    let authority = Authority::new();
    let identity = authority.issue("agent");
    let kinds: [(&str, Deed); 2] = [
        ("10,000 TLS hellos cut short", half_a_hello),
        ("10,000 TLS hellos of 60 KiB without end", long_hello),
    ];
    for (name, deed) in kinds {
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
        let longest = waves(&trial.agent, deed, None, || {
            let started = Instant::now();
            login(&trial.agent).line().expect("a snapshot");
            started.elapsed()
        });
        reports.push(judge(trial, longest));
    }
    reports
}

/// How long everything takes to and from a client by satellite: a round trip takes 800 ms.
const FAR: Duration = Duration::from_millis(400);
/// So many hellos are cut short, of each of the four kinds as many.
const CUT_SHORT: usize = 10_000;
/// So many whole ones are there at once, of which most wait for their turn.
const AT_ONCE: usize = 1250;

/// Ten thousand hellos that are cut short in every way, the last of them while most wait for their turn: no turn is lost, and a
/// client far away comes in.
pub(crate) fn cut_short() -> Vec<Report> {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("PUBLISH_INTERVAL", "1s").start();
    let far = Delay::to(agent.address(), FAR);
    let login = |address: SocketAddr, options: &[&str]| {
        let mut client = OpenSsl::connect(address, options);
        client.send(format!("{KEY}\n"));
        client
    };
    let mut good = login(agent.address(), &[]);
    let client = Client::reading(INTERVAL, move || good.line());
    let mut trial = Trial::with("10,000 cut-short hellos", agent, client);
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
        let first = login(far.address(), &[version]).line();
        trial.check(first.is_some(), format!("{version} from afar"));
        longest = longest.max(started.elapsed());
    }
    vec![judge(trial, longest)]
}

/// With room for fewer connections than a wave has.
fn few_files(launch: Launch) -> Launch {
    launch.by(["prlimit", "--nofile=3000:3000"])
}
