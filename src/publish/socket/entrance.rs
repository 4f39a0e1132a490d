//! The way in by a listening socket: whoever is accepted is given a seat, or turned away for a reason that the log has.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::inbound::{BindError, Inbound, configured};
use super::lobby::{Lobby, Room, Seat};
use super::origin::Origin;
use crate::settings::ServeSettings;

/// The way in.
pub(in crate::publish) struct Entrance {
    inbound: Inbound,
    settings: Arc<ServeSettings>,
    lobby: Arc<Lobby>,
    door: Arc<Door>,
}

/// Somebody who has come in, off the runtime that accepted the connection: a socket belongs to the one that registered it, and
/// moves as a bare descriptor.
pub(in crate::publish) struct Entered {
    pub(in crate::publish) stream: TcpStream,
    pub(in crate::publish) peer: SocketAddr,
    pub(in crate::publish) origin: Origin,
    pub(in crate::publish) seat: Seat,
}

impl Entrance {
    /// Opens the socket. The port is what `variable` holds.
    pub(in crate::publish) fn open(
        (port, variable): (u16, &'static str),
        settings: Arc<ServeSettings>,
        room: Room,
        door: Arc<Door>,
    ) -> Result<Self, BindError> {
        Ok(Self {
            inbound: Inbound::open(settings.address, port, variable)?,
            settings,
            lobby: Lobby::new(room),
            door,
        })
    }

    /// Where it is, with the port that the kernel chose.
    pub(in crate::publish) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inbound.local_addr()
    }

    /// The next who has come in, where `beside` says how many there are who have given up their seats; none once it is to `stop`.
    pub(in crate::publish) async fn next(
        &mut self,
        beside: impl Fn() -> usize,
        stop: &CancellationToken,
    ) -> Option<Entered> {
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.inbound.accept() => accepted,
                () = stop.cancelled() => return None,
            };
            let origin = Origin::of(peer.ip());
            if let Err(reason) = self.may_enter(peer, origin) {
                self.door.refused(peer, &reason);
                continue;
            }
            let entered = tokio::select! {
                entered = self.lobby.enter(origin, &beside) => entered,
                () = stop.cancelled() => return None,
            };
            let Some(seat) = entered else {
                self.door.refused(peer, &"too many of this address");
                continue;
            };
            match configured(stream) {
                Ok(stream) => {
                    return Some(Entered {
                        stream,
                        peer,
                        origin,
                        seat,
                    });
                }
                Err(error) => self.door.refused(peer, &error),
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
}
