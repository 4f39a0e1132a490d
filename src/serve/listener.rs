//! Accepting connections, and turning away those that may not stay.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use actix_rt::ArbiterHandle;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, warn};

use super::door::Door;
use super::handshake::{self, Newcomer};
use super::lobby::{Lobby, Room, Seat};
use super::origin::Origin;
use crate::messages::{CatchUp, ClientId, Subscribe, Unsubscribe};
use crate::settings::{Credentials, ServeSettings};

/// Connections that the kernel keeps until they are accepted (it has a bound of its own, too).
const BACKLOG: i32 = 4096;
/// How much of a line the kernel takes ahead of what the client's side has room for, in bytes.
/// Much more would be old news by the time that a slow client reads it, and would hide for long
/// whether it accepts anything.
const TAKEN_AHEAD: u32 = 64 * 1024;
/// How long a connection may be silent before its peer is asked whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// The first and the longest pause after an accept that failed for want of resources.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", advice(.source))]
pub struct BindError {
    /// Where.
    address: SocketAddr,
    /// Why not.
    #[source]
    source: io::Error,
}

fn advice(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program has this port; stop it, or set SOCKET_PORT to a free one"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this host has no such address; set SOCKET_ADDRESS to one that it has"
        }
        io::ErrorKind::PermissionDenied => ": set SOCKET_PORT to one above 1023",
        _ => "",
    };
    format!("{error}{hint}")
}

/// Where accepted connections subscribe.
#[derive(Clone)]
pub struct Subscriptions {
    /// Takes in new sessions.
    pub subscribe: Recipient<Subscribe>,
    /// Sends them what they missed.
    pub catch_up: Recipient<CatchUp>,
    /// Takes leave of old ones.
    pub unsubscribe: Recipient<Unsubscribe>,
}

/// The threads over which connections are spread.
pub struct Threads {
    /// They settle who stays: a crowd of handshakes keeps no client waiting for its snapshot.
    pub greeting: Vec<ArbiterHandle>,
    /// They serve those who stay, each its own.
    pub serving: Vec<ArbiterHandle>,
}

/// Somebody who has come in.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) peer: SocketAddr,
    pub(super) origin: Origin,
    pub(super) client: ClientId,
    /// Held until it is settled who stays.
    pub(super) seat: Seat,
}

/// The agent's socket.
pub struct Listener {
    socket: TcpListener,
    settings: Arc<ServeSettings>,
    /// Keys and certificates as they are now.
    credentials: watch::Receiver<Arc<Credentials>>,
    lobby: Arc<Lobby>,
    door: Arc<Door>,
}

impl Listener {
    /// Opens the socket. Without `SOCKET_ADDRESS` it takes IPv6 and IPv4, or IPv4 alone on a
    /// host that has no IPv6.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn bind(
        settings: Arc<ServeSettings>,
        credentials: watch::Receiver<Arc<Credentials>>,
        room: Room,
    ) -> Result<Self, BindError> {
        let port = settings.port;
        let bound =
            match settings.address {
                Some(address) => bind(SocketAddr::new(address, port)),
                None => bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)).or_else(
                    |error| match error.source.raw_os_error() {
                        Some(code) if code == Errno::AFNOSUPPORT.raw_os_error() => {
                            bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
                        }
                        _ => Err(error),
                    },
                ),
            };
        let door = Door::new(settings.max_clients);
        Ok(Self {
            socket: bound?,
            settings,
            credentials,
            lobby: Lobby::new(room),
            door: Arc::new(door),
        })
    }

    /// Where it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// A permit for each client that there may be: all are back when there is none.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        self.door.permits()
    }

    /// Accepts until `stop`.
    pub async fn run(
        self,
        threads: Threads,
        subscriptions: Subscriptions,
        stop: CancellationToken,
    ) {
        let mut clients: ClientId = 0;
        let mut threads = threads
            .greeting
            .iter()
            .cycle()
            .zip(threads.serving.iter().cycle());
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    clients += 1;
                    let Some(threads) = threads.next() else {
                        return;
                    };
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let origin = Origin::of(peer.ip());
                    if let Err(reason) = self.may_enter(peer, origin) {
                        self.door.refused(peer, &reason);
                        continue;
                    }
                    let entered = tokio::select! {
                        entered = self.lobby.enter(origin, || self.door.clients()) => entered,
                        () = stop.cancelled() => return,
                    };
                    let Some(seat) = entered else {
                        self.door.refused(peer, &"too many of this address");
                        continue;
                    };
                    let visit = Visit {
                        peer,
                        origin,
                        client: clients,
                        seat,
                    };
                    self.greet(stream, visit, threads, &subscriptions, &stop);
                }
                // The peer left before it was accepted.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    warn!(%error, pause_ms = pause.as_millis() as u64, "accept failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Why a connection is closed unheard, if it is.
    fn may_enter(&self, peer: SocketAddr, origin: Origin) -> Result<(), &'static str> {
        if !self.settings.whitelist.allows(peer.ip()) {
            return Err("not whitelisted");
        }
        self.door.may_enter(origin)
    }

    /// Hands a connection to the threads that it has been given.
    fn greet(
        &self,
        stream: TcpStream,
        visit: Visit,
        (greeting, serving): (&ArbiterHandle, &ArbiterHandle),
        subscriptions: &Subscriptions,
        stop: &CancellationToken,
    ) {
        let (peer, client) = (visit.peer, visit.client);
        // A socket belongs to the runtime that registered it: it moves as a bare descriptor.
        let stream = match Self::configured(stream) {
            Ok(stream) => stream,
            Err(error) => {
                self.door.refused(peer, &error);
                return;
            }
        };
        let newcomer = Newcomer {
            stream,
            visit,
            credentials: self.credentials.clone(),
            door: Arc::clone(&self.door),
        };
        let (settings, subscriptions) = (Arc::clone(&self.settings), subscriptions.clone());
        let stop = stop.clone();
        let span = debug_span!("client", client, %peer);
        let serving = serving.clone();
        greeting.spawn(
            async move { handshake::greet(newcomer, &settings, subscriptions, &serving, stop).await }
                .instrument(span),
        );
    }

    fn configured(stream: TcpStream) -> io::Result<std::net::TcpStream> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_notsent_lowat(TAKEN_AHEAD)?;
        // A peer that vanished without a word is noticed between two snapshots, too.
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_AFTER / 3),
        )?;
        stream.into_std()
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError { address, source })
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
