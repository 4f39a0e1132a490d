//! The kernel's list of TCP sockets, from `/proc/net/tcp` and `/proc/net/tcp6`.

use std::fs;
use std::net::{SocketAddr, TcpListener};

/// A port of the loopback interface that is free now. Another process can use this port before the test does.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Whether any socket listens on this port.
pub(crate) fn listens(port: u16) -> bool {
    sockets().any(|socket| socket.state == "0A" && socket.local == port)
}

/// The number of bytes that the owner of a socket has not read yet. The socket is at `local` and connected to `remote`.
/// `None` if there is no such socket.
pub(crate) fn unread(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    connection(local, remote).map(|socket| socket.unread)
}

/// The number of bytes that the owner of a socket has sent and the other end has not acknowledged. The kernel stores these bytes.
pub(crate) fn unacknowledged(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    connection(local, remote).map(|socket| socket.unacknowledged)
}

fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Entry> {
    let ports = (local.port(), remote.port());
    sockets().find(|socket| socket.state != "0A" && (socket.local, socket.remote) == ports)
}

struct Entry {
    local: u16,
    remote: u16,
    state: String,
    unacknowledged: u64,
    unread: u64,
}

fn sockets() -> impl Iterator<Item = Entry> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let lines = |table: String| -> Vec<Entry> { table.lines().skip(1).map(entry).collect() };
    tables.into_iter().flatten().flat_map(lines)
}

/// Parses one row: `sl local_address rem_address st tx_queue:rx_queue …`, all in hexadecimal.
fn entry(line: &str) -> Entry {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let port = |column: &str| u16::from_str_radix(column.split(':').nth(1).unwrap(), 16).unwrap();
    let (unacknowledged, unread) = columns[4].split_once(':').unwrap();
    let bytes = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
    Entry {
        local: port(columns[1]),
        remote: port(columns[2]),
        state: columns[3].to_owned(),
        unacknowledged: bytes(unacknowledged),
        unread: bytes(unread),
    }
}
