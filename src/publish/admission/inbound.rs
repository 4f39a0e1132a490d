//! A listening socket: it is opened, and accepts connections whatever happens.

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
#[error("cannot listen on {address}: {}", advice(.source, .variable))]
pub struct BindError {
    /// Where.
    address: SocketAddr,
    /// The variable that has the port.
    variable: &'static str,
    /// Why not.
    #[source]
    source: io::Error,
}

fn advice(error: &io::Error, variable: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "{error}: another program has this port; stop it, or set {variable} to a free one"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}: this host has no such address; set SOCKET_ADDRESS to one that it has")
        }
        io::ErrorKind::PermissionDenied => format!("{error}: set {variable} to one above 1023"),
        _ => error.to_string(),
    }
}

/// A listening socket.
pub(in crate::publish) struct Inbound {
    socket: TcpListener,
    backoff: Backoff,
}

impl Inbound {
    /// Opens it. Without an address it takes IPv6 and IPv4, or IPv4 alone on a host that has no IPv6. The port is what
    /// `variable` holds.
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
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        })
    }

    /// Where it listens, with the port that the kernel chose.
    pub(in crate::publish) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the next connection that is admitted, off the runtime that accepted it: a registered socket cannot move to another
    /// runtime. Logs those that are refused. Returns none once `stop` is cancelled.
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

    /// Returns the next connection and its peer, whose IPv4 address is not mapped. Without resources for a connection it waits
    /// until there are some.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    self.backoff.reset();
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer);
                }
                // The peer left before it was accepted.
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

/// A connection as it is to be served, off the runtime that accepted it.
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
