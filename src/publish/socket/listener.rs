//! The agent's listening socket for clients. Accepts connections, and passes each connection to a thread.

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

/// The threads that serve connections. Connections are distributed evenly.
pub struct Threads {
    /// Threads that authenticate connections. These threads do not serve clients, so many handshakes do not delay snapshots.
    pub greeting: Vec<ArbiterHandle>,
    /// Threads that serve clients. A client stays on its thread.
    pub serving: Vec<ArbiterHandle>,
}

/// The agent's listening socket.
pub struct Listener {
    inbound: Inbound,
    settings: Arc<ServeSettings>,
    /// The current keys and certificates.
    credentials: watch::Receiver<Arc<Credentials>>,
    admission: Arc<Admission>,
}

impl Listener {
    /// Opens the socket. If `SOCKET_ADDRESS` is not set, the socket listens on all IPv6 and IPv4 addresses of the host. If the
    /// host has no IPv6, the socket listens on all IPv4 addresses.
    ///
    /// # Errors
    /// Fails if the address or the port cannot be used.
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

    /// Returns the local address. If the configured port is 0, the address has the port that the kernel chose.
    ///
    /// # Errors
    /// Fails if the kernel does not return the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inbound.local_addr()
    }

    /// Returns the semaphore with one permit for each possible client. All permits are available when there is no client.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        self.admission.client_permits()
    }

    /// Accepts connections until `stop` is cancelled.
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
