//! Accepting connections, and turning away those that may not stay.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::Recipient;
use actix_rt::ArbiterHandle;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::door::Door;
use super::handshake::{self, Newcomer};
use super::inbound::{BindError, Inbound, configured};
use super::lobby::{Lobby, Room, Seat};
use super::origin::Origin;
use crate::messages::{CatchUp, ClientId, Subscribe, Unsubscribe};
use crate::settings::{Credentials, ServeSettings};

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
    inbound: Inbound,
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
        let inbound = Inbound::open(settings.address, settings.port, "SOCKET_PORT")?;
        let door = Door::new(settings.max_clients);
        Ok(Self {
            inbound,
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
        self.inbound.local_addr()
    }

    /// A permit for each client that there may be: all are back when there is none.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        self.door.permits()
    }

    /// Accepts until `stop`.
    pub async fn run(
        mut self,
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
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.inbound.accept() => accepted,
                () = stop.cancelled() => return,
            };
            clients += 1;
            let Some(threads) = threads.next() else {
                return;
            };
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
        let stream = match configured(stream) {
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
}
