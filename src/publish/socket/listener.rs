//! Accepting connections, and turning away those that may not stay.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::Recipient;
use actix_rt::ArbiterHandle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::door::Door;
use super::entrance::{Entered, Entrance};
use super::handshake::{self, Newcomer};
use super::inbound::BindError;
use super::lobby::{Room, Seat};
use super::origin::Origin;
use crate::messages::{CatchUp, ClientId, Reports, Subscribe, Unsubscribe};
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
    entrance: Entrance,
    settings: Arc<ServeSettings>,
    /// Keys and certificates as they are now.
    credentials: watch::Receiver<Arc<Credentials>>,
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
        reports: Arc<Reports>,
    ) -> Result<Self, BindError> {
        let door = Arc::new(Door::new(settings.max_clients, reports));
        let port = (settings.port, "SOCKET_PORT");
        Ok(Self {
            entrance: Entrance::open(port, Arc::clone(&settings), room, Arc::clone(&door))?,
            settings,
            credentials,
            door,
        })
    }

    /// Where it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.entrance.local_addr()
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
        let threads = (threads.greeting.iter().cycle()).zip(threads.serving.iter().cycle());
        for (client, threads) in (1..).zip(threads) {
            let Some(entered) = self.entrance.next(|| self.door.clients(), &stop).await else {
                return;
            };
            self.greet(client, entered, threads, &subscriptions, &stop);
        }
    }

    /// Hands a connection to the threads that it has been given.
    fn greet(
        &self,
        client: ClientId,
        Entered {
            stream,
            peer,
            origin,
            seat,
        }: Entered,
        (greeting, serving): (&ArbiterHandle, &ArbiterHandle),
        subscriptions: &Subscriptions,
        stop: &CancellationToken,
    ) {
        let visit = Visit {
            peer,
            origin,
            client,
            seat,
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
