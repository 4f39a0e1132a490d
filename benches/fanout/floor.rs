//! The floor: the minimum cost of a fan-out. The floor is a bare tokio server without actors, options or totals per client. Each
//! client has a task. At each tick, all tasks write the same shared bytes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::Identity;
use crate::line::Line;

/// Number of connections that can wait until the server accepts them. The agent has the same limit.
const BACKLOG: i32 = 4096;

/// What the floor sends, and when.
#[derive(Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The file with a recorded snapshot.
    pub(crate) line: PathBuf,
    pub(crate) zstd: bool,
    pub(crate) tls: Option<Identity>,
    pub(crate) interval: Duration,
    pub(crate) first_tick: SystemTime,
}

/// Serves until the process is killed. Prints the address first.
pub(crate) fn run(spec: &str) {
    crate::common::limits::raise_file_limit();
    let spec: Spec = serde_json::from_str(spec).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(spec));
}

async fn serve(spec: Spec) {
    let mut line = Line::of(&fs::read(&spec.line).unwrap(), spec.zstd);
    let (newest, snapshots) = watch::channel(line.next());
    let in_time = spec.first_tick.duration_since(SystemTime::now());
    let mut ticks = interval_at(Instant::now() + in_time.unwrap_or_default(), spec.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let listener = listen();
    let tls = spec
        .tls
        .map(|identity| TlsAcceptor::from(Arc::new(server_config(&identity))));
    println!("{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            ticks.tick().await;
            newest.send_replace(line.next());
        }
    });
    loop {
        let (stream, _) = listener.accept().await.expect("cannot accept a connection");
        // A client that disconnects does not affect the other clients.
        drop(tokio::spawn(greet(stream, tls.clone(), snapshots.clone())));
    }
}

async fn greet(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    snapshots: watch::Receiver<Bytes>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => feed(stream, snapshots).await,
        Some(tls) => feed(tls.accept(stream).await?, snapshots).await,
    }
}

/// Reads the client's first line without a check, and then writes each snapshot.
async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut snapshots: watch::Receiver<Bytes>,
) -> io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    snapshots.mark_changed();
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        stream.write_all(&snapshot).await?;
        stream.flush().await?;
    }
    Ok(())
}

fn listen() -> TcpListener {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )
    .unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(BACKLOG).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

fn server_config(identity: &Identity) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(&identity.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}
