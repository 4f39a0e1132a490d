//! The process of the load generator.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{self, Common};
use super::notes::Notes;
use super::{Order, Spec, Start};

/// Timeout until all clients have received a snapshot.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Connects the clients, reports the result, and executes orders until the input ends.
pub(crate) fn run(spec: &str) {
    // A client that cannot parse a snapshot panics. The panic of one client ends the whole process, so that the benchmark does
    // not wait for that client.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(1);
    }));
    crate::common::limits::raise_file_limit();
    let spec: Spec = serde_json::from_str(spec).unwrap();
    let clients = spec.clients;
    let common = Arc::new(Common {
        tls: spec.certificate.as_ref().map(|file| {
            let certificate = CertificateDer::from_pem_file(file).unwrap();
            TlsConnector::from(Arc::new(trusting(certificate)))
        }),
        spec,
        asleep: watch::Sender::new(false),
        notes: Mutex::new(Notes::default()),
    });
    // Uses half of the cores. The server needs the other half.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    for index in 0..clients {
        runtime.spawn(client::run(index, Arc::clone(&common)));
    }
    say(&wait_for_start(&common, began));
    for line in io::stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line).unwrap() {
            Order::Forget => common.notes.lock().unwrap().forget(),
            Order::Report => {
                let report = common.notes.lock().unwrap().report();
                say(&report);
            }
            Order::Sleep => drop(common.asleep.send_replace(true)),
            Order::Wake => drop(common.asleep.send_replace(false)),
        }
    }
    // Exits without closing the connections, because there are too many to close them one by one.
    std::process::exit(0);
}

/// Waits until every client has received a snapshot.
fn wait_for_start(common: &Common, began: Instant) -> Start {
    let all = common.spec.clients;
    loop {
        thread::sleep(Duration::from_millis(2));
        let notes = common.notes.lock().unwrap();
        let took = if notes.served == all {
            Ok(began.elapsed())
        } else if notes.lost > 0 || began.elapsed() > TIMEOUT {
            let why = notes.why_lost.as_deref().unwrap_or("no answer");
            let (served, lost) = (notes.served, notes.lost);
            Err(format!(
                "{served} of {all} clients received a snapshot, {lost} were lost: {why}"
            ))
        } else {
            continue;
        };
        let tick = notes.ticks.values().next_back();
        return Start {
            took,
            tick: tick.map(|tick| UNIX_EPOCH + Duration::from_nanos(*tick)),
        };
    }
}

/// A configuration that trusts only this certificate. Each connection makes a full handshake.
fn trusting(certificate: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

fn say(answer: &impl Serialize) {
    println!("{}", serde_json::to_string(answer).unwrap());
}
