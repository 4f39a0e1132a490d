//! Reads network interfaces from the kernel with rtnetlink(7). The result includes the kind of each interface, and the network
//! namespace of the other end of a veth pair. Files in `/sys/class/net` do not contain these facts. No privilege is necessary.
//! This module does not read the counters of traffic.

use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

/// The constants from here to `OPER_UP` are from `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`,
/// `linux/net_namespace.h` and `linux/if.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const RTMGRP_LINK: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_INFO_KIND: u16 = 1;
const NETNSA_NSID: u16 = 1;
const NETNSA_PID: u16 = 2;
/// Asks the kernel to omit the counters.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// Mask of an attribute's type. It removes the flags for nested attributes and for byte order.
const TYPE: u16 = 0x3fff;
const IFF_UP: u32 = 1;
const OPER_UNKNOWN: u8 = 0;
const OPER_UP: u8 = 6;
/// Size of the buffer for one part of an answer, in bytes. The parts from the kernel are never larger.
const BUFFER_SIZE: usize = 32 * 1024;
/// Maximum number of requests for a list that changes while the agent reads it.
const TRIES: usize = 3;
/// Maximum number of events that one call takes from the socket. The socket has space for fewer events than this.
const MAX_EVENTS: usize = 4096;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetlinkInterface {
    /// The name as bytes, because a name is not always valid UTF-8.
    pub(super) name: Vec<u8>,
    /// The number of the interface. It stays the same when the interface is renamed.
    pub(super) index: u32,
    /// The hardware type, one of the kernel's `ARPHRD_…` constants.
    pub(super) hardware: u16,
    /// The kind of the interface, from its driver (`veth`, `bridge`, `gre`). None for most devices.
    pub(super) kind: Option<String>,
    /// Whether the interface belongs to a device.
    pub(super) device: bool,
    /// Whether the interface has a link. Some interfaces cannot detect a link (loopback, tunnels). They count as up when they are
    /// switched on.
    pub(super) up: bool,
    /// The number of the interface below this interface, or of the other end of a pair.
    pub(super) link: Option<u32>,
    /// The network namespace of the interface in `link`, as a number in the agent's namespace. None if it is the agent's
    /// namespace.
    pub(super) namespace: Option<i32>,
}

/// Reports that interfaces have changed.
#[derive(Debug)]
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// Starts to listen for changes. Fails if netlink is not allowed.
    pub(super) fn follow() -> io::Result<Self> {
        let socket = socket(None)?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        Ok(Self(socket))
    }

    /// Whether an interface has changed after the previous call.
    pub(super) fn any(&self) -> bool {
        let mut room = [0; 16];
        let mut any = false;
        for _ in 0..MAX_EVENTS {
            match retry_on_intr(|| recv(&self.0, &mut room[..], RecvFlags::DONTWAIT)) {
                // The content does not matter, because any event means a change.
                Ok(_) => any = true,
                Err(Errno::AGAIN) => break,
                // The socket has lost events (`ENOBUFS`), so there was a change.
                Err(_) => return true,
            }
        }
        any
    }
}

/// A netlink socket for requests to the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket. Fails if netlink is not allowed.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: socket(None)?,
            sequence: 0,
        })
    }

    /// Opens a socket for sock_diag(7), which lists sockets. Fails if netlink is not allowed.
    pub(super) fn open_for_sockets() -> io::Result<Self> {
        Ok(Self {
            socket: socket(Some(SOCK_DIAG))?,
            sequence: 0,
        })
    }

    /// Lists every interface of this network namespace. During this request, the kernel assigns numbers to the other namespaces
    /// in the list.
    pub(super) fn links(&mut self) -> io::Result<Vec<NetlinkInterface>> {
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.list(RTM_GETLINK, &body, |kind, body| {
            link(body).filter(|_| kind == RTM_NEWLINK)
        })
    }

    /// Lists all objects of one kind. `body` is the body of the request. `parse` gets the kind and the body of each message of the
    /// answer.
    pub(super) fn list<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut list = Vec::new();
        for _ in 0..TRIES {
            list.clear();
            let add = |kind, body: &[u8]| list.extend(parse(kind, body));
            if self.ask(kind, NLM_F_DUMP, body, add)? {
                break;
            }
        }
        Ok(list)
    }

    /// Asks for all objects of one kind, and passes the kind and the body of each message of the answer to `take`. Holds no list in memory.
    pub(super) fn each(
        &mut self,
        kind: u16,
        body: &[u8],
        take: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.ask(kind, NLM_F_DUMP, body, take).map(drop)
    }

    /// Returns the number that a process's network namespace has in this namespace. None if the kernel has assigned no number.
    pub(super) fn namespace_of(&mut self, pid: u32) -> io::Result<Option<i32>> {
        let mut body = vec![0; 4];
        attribute(&mut body, NETNSA_PID, pid);
        let mut namespace = None;
        self.ask(RTM_GETNSID, 0, &body, |kind, body| {
            if kind == RTM_NEWNSID {
                let number = attributes(body.get(4..).unwrap_or_default())
                    .find_map(|(kind, value)| (kind == NETNSA_NSID).then(|| int(value))?);
                namespace = number.filter(|number| *number >= 0);
            }
        })?;
        Ok(namespace)
    }

    /// Sends a request, and passes each part of the result to `answer`. Returns false if the list changed while the kernel sent
    /// it.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut answer: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (HEADER + body.len()) as u32;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        retry_on_intr(|| send(&self.socket, &message, SendFlags::empty()))?;
        let is_list = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut room = vec![0; BUFFER_SIZE];
        let mut whole = true;
        loop {
            // When `send` returns, the kernel's answer is ready. So the socket does not wait.
            let (length, _) =
                retry_on_intr(|| recv(&self.socket, &mut room[..], RecvFlags::DONTWAIT))?;
            for message in messages(&room[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => {
                        let code = int(message.body).unwrap_or_default();
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    kind => answer(kind, message.body),
                }
                if !is_list {
                    return Ok(whole);
                }
            }
        }
    }
}

/// Opens a netlink socket. The protocol `None` is 0, which means NETLINK_ROUTE for this family.
fn socket(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?)
}

/// The length of a message's header, in bytes.
const HEADER: usize = 16;

struct Message<'m> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'m [u8],
}

/// Returns the messages in one part of an answer. Stops at an incomplete message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = int(bytes)? as u32 as usize;
        let message = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            kind: short(&message[4..])?,
            flags: short(&message[6..])?,
            sequence: int(&message[8..])? as u32,
            body: &message[HEADER..],
        })
    })
}

/// Returns the attributes, each with its type. Stops at an incomplete attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes)?);
        let value = bytes.get(4..length)?;
        let kind = short(&bytes[2..])? & TYPE;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Parses a `struct ifinfomsg` and the attributes after it.
fn link(body: &[u8]) -> Option<NetlinkInterface> {
    let mut link = NetlinkInterface {
        hardware: short(body.get(2..)?)?,
        index: u32::try_from(int(body.get(4..)?)?).ok()?,
        ..NetlinkInterface::default()
    };
    let flags = int(body.get(8..)?)? as u32;
    let mut state = OPER_UNKNOWN;
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = value.split(|byte| *byte == 0).next()?.to_vec(),
            IFLA_LINK => link.link = int(value).and_then(|index| u32::try_from(index).ok()),
            IFLA_OPERSTATE => state = *value.first()?,
            IFLA_LINK_NETNSID => link.namespace = int(value).filter(|number| *number >= 0),
            IFLA_PARENT_DEV_NAME => link.device = true,
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, kind)| {
                    String::from_utf8_lossy(kind)
                        .trim_end_matches('\0')
                        .to_owned()
                });
            }
            _ => {}
        }
    }
    link.up = state == OPER_UP || state == OPER_UNKNOWN && flags & IFF_UP != 0;
    (!link.name.is_empty()).then_some(link)
}

/// Appends an attribute.
pub(super) fn attribute(message: &mut Vec<u8>, kind: u16, value: u32) {
    message.extend(8_u16.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value.to_ne_bytes());
}

/// Rounds a length up to a multiple of four bytes, because messages and attributes start at such multiples.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn short(bytes: &[u8]) -> Option<u16> {
    let bytes = bytes.get(..size_of::<u16>())?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn int(bytes: &[u8]) -> Option<i32> {
    let bytes = bytes.get(..size_of::<i32>())?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Netlink, NetlinkInterface, attributes, link, messages};

    #[test]
    fn the_kernel_lists_loopback_and_knows_this_process() {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let loopback = links.iter().find(|link| link.name == b"lo").unwrap();
        assert_eq!((loopback.index, loopback.hardware), (1, 772));
        assert_eq!((&loopback.kind, loopback.namespace), (&None, None));
        assert!(!loopback.device);
        // The request fails for a process that does not exist.
        assert!(netlink.namespace_of(std::process::id()).is_ok());
        assert!(netlink.namespace_of(u32::MAX).is_err());
        assert_eq!(netlink.links().unwrap().len(), links.len());
    }

    /// Returns a veth as the kernel describes it.
    fn veth() -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend(1_u16.to_ne_bytes());
        for number in [17_i32, 0x1043, 0] {
            body.extend(number.to_ne_bytes());
        }
        let mut put = |kind: u16, value: &[u8]| {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        put(3, b"veth\xe9\0");
        put(5, &2_i32.to_ne_bytes());
        put(16, &[6]);
        put(37, &3_i32.to_ne_bytes());
        put(18 | 0x8000, b"\x09\0\x01\0veth\0\0\0\0");
        body
    }

    #[test]
    fn a_veth_is_read_with_its_other_end() {
        let expected = NetlinkInterface {
            name: b"veth\xe9".to_vec(),
            index: 17,
            hardware: 1,
            kind: Some("veth".to_owned()),
            device: false,
            up: true,
            link: Some(2),
            namespace: Some(3),
        };
        assert_eq!(link(&veth()), Some(expected));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, cut in 0..80_usize, at in 0..80_usize, odd: u8) {
            for message in messages(&bytes) {
                link(message.body);
            }
            attributes(&bytes).count();
            let mut veth = veth();
            let (length, at) = (veth.len(), at % veth.len());
            veth[at] = odd;
            link(&veth);
            link(&veth[..cut.min(length)]);
        }
    }

    #[test]
    fn fuzz_netlink() {
        let veth = veth();
        let mut answer = ((16 + veth.len()) as u32).to_ne_bytes().to_vec();
        answer.extend([16, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        answer.extend(&veth);
        crate::fuzzing::run("netlink", &[&answer, &veth], |bytes| {
            for message in messages(bytes) {
                link(message.body);
            }
            link(bytes);
        });
    }
}
