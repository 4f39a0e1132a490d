//! Counts the TCP sockets by state, and the bytes in their queues. The answer of the kernel has a record for each socket, so the family is off
//! by default.

use std::io;

use super::family::{Family, FamilyError, Roots, Rows};
use crate::collect::links::{Netlink, int};

/// The constants are from `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Asks for the sockets in all states that have a name here. Bit `n` stands for the state `n`.
const ALL_STATES: u32 = 0xfff;
/// The length of a `struct inet_diag_req_v2`. The kernel needs its first 8 bytes.
const REQUEST: usize = 56;
/// The places of the queues in a `struct inet_diag_msg`.
const RECEIVE_QUEUE: usize = 56;
const SEND_QUEUE: usize = 60;

/// The names of the states, by their numbers in `net/tcp_states.h`.
const STATES: [&str; 12] = [
    "unknown",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// The family. Source: sock_diag(7), for the agent's network namespace.
pub(super) struct Tcpstat(pub(super) Roots);

/// The sockets that were found.
#[derive(Debug, Default, PartialEq)]
struct Sockets {
    /// The number of sockets in each state.
    states: [u64; STATES.len()],
    received_bytes: u64,
    sent_bytes: u64,
}

impl Family for Tcpstat {
    fn name(&self) -> &'static str {
        "tcpstat"
    }

    fn is_off_by_default(&self) -> bool {
        true
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        // A kernel without the module `tcp_diag` does not find the request.
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => FamilyError::Absent,
            _ => FamilyError::Sockets(error),
        };
        let mut sockets = Sockets::default();
        sockets.add(libc::AF_INET).map_err(failed)?;
        // The file is missing if the host does not use IPv6.
        if self.0.proc.join("net/tcp6").exists() {
            sockets.add(libc::AF_INET6).map_err(failed)?;
        }
        sockets.publish(rows);
        Ok(())
    }
}

impl Sockets {
    /// Adds the sockets of a family of addresses.
    fn add(&mut self, addresses: i32) -> io::Result<()> {
        let mut request = vec![0; REQUEST];
        request[0] = addresses as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&ALL_STATES.to_ne_bytes());
        Netlink::open_for_sockets()?.each(SOCK_DIAG_BY_FAMILY, &request, |kind, body| {
            if kind == SOCK_DIAG_BY_FAMILY {
                self.count(body);
            }
        })
    }

    /// Counts a socket: a `struct inet_diag_msg`. Leaves out an incomplete record.
    fn count(&mut self, body: &[u8]) {
        let queue = |place| int(body.get(place..)?).map(|bytes| u64::from(bytes as u32));
        let (Some(received), Some(sent)) = (queue(RECEIVE_QUEUE), queue(SEND_QUEUE)) else {
            return;
        };
        let state = usize::from(body[1]);
        self.states[if state < STATES.len() { state } else { 0 }] += 1;
        self.received_bytes += received;
        self.sent_bytes += sent;
    }

    /// Adds the rows. As with node_exporter, a state without sockets has no row.
    fn publish(&self, rows: &mut Rows) {
        let counted = STATES.into_iter().zip(self.states);
        let counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
        if counted.is_empty() {
            return;
        }
        let queues = [
            ("rx_queued_bytes", self.received_bytes),
            ("tx_queued_bytes", self.sent_bytes),
        ];
        for (state, count) in counted.into_iter().chain(queues) {
            rows.add([("state", state)])
                .figure("connection_states", count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::super::family::tests::lines_of;
    use super::{Roots, Sockets, Tcpstat};

    #[test]
    fn sockets_are_counted_by_state() {
        let mut sockets = Sockets::default();
        let record = |state: u8, received: u32, sent: u32| {
            let mut body = vec![0; 72];
            body[1] = state;
            body[56..60].copy_from_slice(&received.to_ne_bytes());
            body[60..64].copy_from_slice(&sent.to_ne_bytes());
            body
        };
        for body in [
            record(1, 0, 7),
            record(1, u32::MAX, 1),
            record(10, 0, 128),
            record(99, 0, 0),
            vec![0; 60],
        ] {
            sockets.count(&body);
        }
        assert_eq!((sockets.states[1], sockets.states[10]), (2, 1));
        assert_eq!(sockets.states[0], 1, "an unknown state");
        let queued = (sockets.received_bytes, sockets.sent_bytes);
        assert_eq!(queued, (u64::from(u32::MAX), 136));
    }

    #[test]
    fn a_connection_of_this_host_is_counted() {
        let count = |state: &str| -> f64 {
            let lines = lines_of(&mut Tcpstat(Roots::default()));
            let start = format!("state={state} connection_states ");
            let found = lines.iter().find_map(|line| line.strip_prefix(&start));
            found.map_or(0.0, |count| count.parse().unwrap())
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connections = Vec::new();
        // Other tests open and close connections meanwhile, so this test has many of its own.
        for _ in 0..200 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            connections.push((client, server));
        }
        assert!(count("listen") >= 1.0);
        assert!(count("established") >= 400.0);
        for (client, _) in &mut connections {
            client.write_all(&[0; 5000]).unwrap();
        }
        assert!(count("rx_queued_bytes") >= 200.0 * 5000.0);
    }
}
