//! Opens a listening socket, accepts connections, and continues after errors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Admission, PendingConnection};
use crate::backoff::Backoff;

/// Limit on connections that wait in the kernel until the agent accepts them. The kernel has its own limit in addition.
const BACKLOG: i32 = 4096;
/// Limit on bytes in the kernel that are not yet sent to the peer (`TCP_NOTSENT_LOWAT`).
///
/// With a much higher limit, a slow client would read old snapshots, and the agent would notice late that a client reads nothing.
const MAX_UNSENT: u32 = 64 * 1024;
/// Time without traffic after which the kernel sends the first keep-alive probe.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// First pause after the agent could not accept a connection, for example because too many files were open.
const MIN_BACKOFF: Duration = Duration::from_millis(10);
/// Limit on the pause after repeated failures to accept a connection.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The error when a listening socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", advice(.source, .variable))]
pub struct BindError {
    /// The address and port.
    address: SocketAddr,
    /// The environment variable that sets the port.
    variable: &'static str,
    /// The error of the system call.
    #[source]
    source: io::Error,
}

fn advice(error: &io::Error, variable: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "{error}: another program uses this port. Stop that program, or set {variable} to a free port"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "{error}: this host does not have this address. Set SOCKET_ADDRESS to an address of this host"
            )
        }
        io::ErrorKind::PermissionDenied => format!("{error}: set {variable} to a port above 1023"),
        _ => error.to_string(),
    }
}

/// A listening socket.
pub(in crate::publish) struct Inbound {
    socket: TcpListener,
    backoff: Backoff,
}

impl Inbound {
    /// Opens the socket. If `address` is None, the socket listens on all IPv6 and IPv4 addresses of the host. If the host has no
    /// IPv6, the socket listens on all IPv4 addresses.
    ///
    /// `variable` is the environment variable that sets the port. The error text contains this variable.
    pub(in crate::publish) fn open(
        address: Option<IpAddr>,
        port: u16,
        variable: &'static str,
    ) -> Result<Self, BindError> {
        let bind = |address: IpAddr| {
            let address = SocketAddr::new(address, port);
            bind(address).map_err(|source| BindError {
                address,
                variable,
                source,
            })
        };
        let socket = match address {
            Some(address) => bind(address),
            None => bind(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| {
                match error.source.raw_os_error() {
                    Some(code) if code == Errno::AFNOSUPPORT.raw_os_error() => {
                        bind(Ipv4Addr::UNSPECIFIED.into())
                    }
                    _ => Err(error),
                }
            }),
        };
        Ok(Self {
            socket: socket?,
            backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF),
        })
    }

    /// Returns the local address. If the configured port is 0, the address has the port that the kernel chose.
    pub(in crate::publish) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the next connection that admission control does not refuse. Logs refused connections. Returns None after `stop` is
    /// cancelled.
    ///
    /// The connection is not registered with a runtime, because a registered socket cannot move to another runtime.
    pub(in crate::publish) async fn next(
        &mut self,
        admission: &Arc<Admission>,
        stop: &CancellationToken,
    ) -> Option<(std::net::TcpStream, PendingConnection)> {
        stop.run_until_cancelled(async {
            loop {
                let (stream, peer) = self.accept().await;
                match admission.admit(peer).await {
                    Ok(pending) => match configured(stream) {
                        Ok(stream) => return (stream, pending),
                        Err(error) => admission.refused(peer, &error),
                    },
                    Err(reason) => admission.refused(peer, &reason),
                }
            }
        })
        .await
    }

    /// Returns the next connection and the address of its peer. Converts an IPv4-mapped IPv6 address to an IPv4 address. If a
    /// resource is missing, for example because too many files are open, waits and retries.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    self.backoff.reset();
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer);
                }
                // The peer closed the connection before the agent accepted it.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    let pause = self.backoff.pause();
                    warn!(%error, pause_ms = pause.as_millis() as u64, "accept failed");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Sets the TCP options of the connection, and removes the connection from the runtime that accepted it.
fn configured(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
    // Without keep-alive, the agent would not notice that a peer has disappeared while the agent has nothing to send.
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_AFTER / 3),
    )?;
    stream.into_std()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
