//! Network interfaces as rtnetlink(7) tells them: what each is, and which network namespace a veth's other end is in. No
//! privilege is needed. Files in `/sys/class/net` say neither.

use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// Of `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h` and `linux/net_namespace.h`.
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
/// Counters are read elsewhere.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
/// An attribute's type without the bits that say how it is made.
const TYPE: u16 = 0x3fff;
const IFF_UP: u32 = 1;
const OPER_UNKNOWN: u8 = 0;
const OPER_UP: u8 = 6;
/// The longest part of an answer that the kernel sends.
const ROOM: usize = 32 * 1024;
/// How often a list is asked for that changes while it is read.
const TRIES: usize = 3;
/// Events that are taken out of the socket at once. It holds no more of them.
const MOST_EVENTS: usize = 4096;

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetlinkInterface {
    /// Not every name is UTF-8.
    pub(super) name: Vec<u8>,
    /// Its number, which is its own for as long as it exists, whatever it is called.
    pub(super) index: u32,
    /// `ARPHRD_…`.
    pub(super) hardware: u16,
    /// The driver's word for what it is (`veth`, `bridge`, `gre`); none of most devices.
    pub(super) kind: Option<String>,
    /// Whether it is a device's.
    pub(super) device: bool,
    /// Whether it has a link. Those that cannot tell (loopback, tunnels) are up when they are switched on.
    pub(super) up: bool,
    /// The interface that it stands on, or its other end.
    pub(super) link: Option<u32>,
    /// The namespace of that, by its number in this one; none where that is this one.
    pub(super) namespace: Option<i32>,
}

/// Tells when interfaces have changed.
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// From now on.
    pub(super) fn follow() -> io::Result<Self> {
        let socket = socket()?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        Ok(Self(socket))
    }

    /// Whether there were any since this was asked last.
    pub(super) fn any(&self) -> bool {
        let mut room = [0; 16];
        let mut any = false;
        for _ in 0..MOST_EVENTS {
            match retry_on_intr(|| recv(&self.0, &mut room[..], RecvFlags::DONTWAIT)) {
                // What it says matters less than that it says something.
                Ok(_) => any = true,
                Err(Errno::AGAIN) => break,
                // More than the socket holds.
                Err(_) => return true,
            }
        }
        any
    }
}

/// Asks the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Fails where netlink is not allowed.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: socket()?,
            sequence: 0,
        })
    }

    /// Every interface of this network namespace. The kernel numbers the namespaces of others' ends as it tells of them.
    pub(super) fn links(&mut self) -> io::Result<Vec<NetlinkInterface>> {
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut links = Vec::new();
        for _ in 0..TRIES {
            links.clear();
            let whole = self.ask(RTM_GETLINK, NLM_F_DUMP, &body, |kind, body| {
                if kind == RTM_NEWLINK {
                    links.extend(link(body));
                }
            })?;
            if whole {
                break;
            }
        }
        Ok(links)
    }

    /// The number of a process's network namespace in this one; none where the kernel has given it none.
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

    /// Sends a question and takes in the answers to it; yields whether nothing changed meanwhile.
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
        let mut room = vec![0; ROOM];
        let mut whole = true;
        loop {
            // The kernel answers while it is asked: nothing is waited for.
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

fn socket() -> io::Result<OwnedFd> {
    // The protocol of that family that is asked for by none is NETLINK_ROUTE.
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// The length of a message's header.
const HEADER: usize = 16;

struct Message<'m> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'m [u8],
}

/// The messages in a part of an answer; what is cut short is left out.
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

/// Attributes, each with its type.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes)?);
        let value = bytes.get(4..length)?;
        let kind = short(&bytes[2..])? & TYPE;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct ifinfomsg` and attributes.
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

fn attribute(message: &mut Vec<u8>, kind: u16, value: u32) {
    message.extend(8_u16.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value.to_ne_bytes());
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn short(bytes: &[u8]) -> Option<u16> {
    let bytes = bytes.get(..size_of::<u16>())?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn int(bytes: &[u8]) -> Option<i32> {
    let bytes = bytes.get(..size_of::<i32>())?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Netlink, NetlinkInterface, attributes, link, messages};

    #[test]
    fn the_kernel_tells_of_loopback_and_of_this_process() {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let loopback = links.iter().find(|link| link.name == b"lo").unwrap();
        assert_eq!((loopback.index, loopback.hardware), (1, 772));
        assert_eq!((&loopback.kind, loopback.namespace), (&None, None));
        assert!(!loopback.device);
        // That of a process that is not there cannot be asked for.
        assert!(netlink.namespace_of(std::process::id()).is_ok());
        assert!(netlink.namespace_of(u32::MAX).is_err());
        assert_eq!(netlink.links().unwrap().len(), links.len());
    }

    /// A veth as the kernel tells it.
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
    fn a_veth_is_told_with_its_other_end() {
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
