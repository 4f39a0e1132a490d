//! What the kernel knows of sockets, from `/proc/net/tcp` and `/proc/net/tcp6`.

use std::fs;
use std::net::{SocketAddr, TcpListener};

/// A port of the loopback interface that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Whether any socket listens on this port.
pub(crate) fn listens(port: u16) -> bool {
    sockets().any(|socket| socket.state == "0A" && socket.local == port)
}

/// How many bytes the owner of the socket at `local`, connected to `remote`, has yet to read. `None` if there is
/// no such socket.
pub(crate) fn unread(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let here = (local.port(), remote.port());
    let mut sockets = sockets();
    let socket = sockets.find(|s| s.state != "0A" && (s.local, s.remote) == here);
    socket.map(|socket| socket.unread)
}

struct Entry {
    local: u16,
    remote: u16,
    state: String,
    unread: u64,
}

fn sockets() -> impl Iterator<Item = Entry> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let lines = |table: String| -> Vec<Entry> { table.lines().skip(1).map(entry).collect() };
    tables.into_iter().flatten().flat_map(lines)
}

/// `sl local_address rem_address st tx_queue:rx_queue …`, all in hexadecimal.
fn entry(line: &str) -> Entry {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let after_colon = |column: &str| column.rsplit(':').next().unwrap().to_owned();
    let port = |column: &str| u16::from_str_radix(&after_colon(column), 16).unwrap();
    Entry {
        local: port(columns[1]),
        remote: port(columns[2]),
        state: columns[3].to_owned(),
        unread: u64::from_str_radix(&after_colon(columns[4]), 16).unwrap(),
    }
}
