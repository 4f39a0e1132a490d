//! The agent's socket: accepts connections and hands each to a thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_rt::ArbiterHandle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::handshake::Handshake;
use super::session::Subscriptions;
use crate::messages::Reports;
use crate::publish::admission::Admission;
use crate::publish::admission::ConnectionLimits;
use crate::publish::admission::inbound::{BindError, Inbound};
use crate::settings::{Credentials, ServeSettings};

/// The threads over which connections are spread.
pub struct Threads {
    /// They authenticate connections: many handshakes delay no snapshot.
    pub greeting: Vec<ArbiterHandle>,
    /// They serve clients. A client stays on its thread.
    pub serving: Vec<ArbiterHandle>,
}

/// The agent's socket.
pub struct Listener {
    inbound: Inbound,
    settings: Arc<ServeSettings>,
    /// The current keys and certificates.
    credentials: watch::Receiver<Arc<Credentials>>,
    admission: Arc<Admission>,
}

impl Listener {
    /// Opens the socket. Without `SOCKET_ADDRESS` it takes IPv6 and IPv4, or IPv4 alone on a
    /// host that has no IPv6.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(
        settings: Arc<ServeSettings>,
        credentials: watch::Receiver<Arc<Credentials>>,
        limits: ConnectionLimits,
        reports: Arc<Reports>,
    ) -> Result<Self, BindError> {
        let max_clients = settings.max_clients;
        Ok(Self {
            inbound: Inbound::open(settings.address, settings.port, "SOCKET_PORT")?,
            admission: Admission::new(Arc::clone(&settings), limits, max_clients, reports),
            settings,
            credentials,
        })
    }

    /// The bound address, with the port that the kernel chose.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inbound.local_addr()
    }

    /// One permit for each client. All are available when there is no client.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        self.admission.client_permits()
    }

    /// Accepts until `stop`.
    pub async fn run(
        mut self,
        threads: Threads,
        subscriptions: Subscriptions,
        stop: CancellationToken,
    ) {
        let threads = (threads.greeting.iter().cycle()).zip(threads.serving.iter().cycle());
        for (client, (greeting, serving)) in (1..).zip(threads) {
            let Some((stream, pending)) = self.inbound.next(&self.admission, &stop).await else {
                return;
            };
            let span = debug_span!("client", client, peer = %pending.peer);
            let handshake = Handshake {
                client,
                stream,
                pending,
                settings: Arc::clone(&self.settings),
                credentials: self.credentials.clone(),
                subscriptions: subscriptions.clone(),
                serving: serving.clone(),
            };
            greeting.spawn(handshake.run(stop.clone()).instrument(span));
        }
    }
}
