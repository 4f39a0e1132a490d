//! The first input of a connection, which is looked at and left to be read: a connection without input costs no more than its
//! socket.

use std::io;

use rustix::io::ioctl_fionread;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The header of a TLS record: its type, a version and a length.
const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// The longest record that is not encrypted.
const MAX_RECORD: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::publish) enum FirstInput {
    /// There is something to read.
    Bytes,
    /// The peer has closed or reset the connection and sent nothing, as health checks do.
    End,
}

/// Waits for input, or for the end. With `is_tls` it waits for a whole ClientHello, for other bytes, or for the end: a handshake
/// that began earlier would hold its memory while it waits. Calls `on_wait` each time that input is missing.
///
/// # Errors
/// When the connection fails after the first byte.
pub(in crate::publish) async fn first_input(
    stream: &TcpStream,
    is_tls: bool,
    on_wait: impl Fn(),
) -> io::Result<FirstInput> {
    let mut peeked = peek(stream, &mut [0]);
    // Most peers have sent something by now, which the runtime does not know yet.
    if peeked.as_ref().is_err_and(would_block) {
        on_wait();
        peeked = match stream.readable().await {
            Ok(()) => peek(stream, &mut [0]),
            Err(error) => Err(error),
        };
    }
    match peeked {
        Ok(1..) => {}
        // A false alarm: whoever reads will wait.
        Err(error) if would_block(&error) => {}
        Ok(0) | Err(_) => return Ok(FirstInput::End),
    }
    if is_tls {
        client_hello(stream, on_wait).await?;
    }
    Ok(FirstInput::Bytes)
}

async fn client_hello(stream: &TcpStream, on_wait: impl Fn()) -> io::Result<()> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Nothing more will come.
        if ready.is_read_closed() {
            return Ok(());
        }
        let looked = stream.try_io(Interest::READABLE, || match is_whole(stream)? {
            true => Ok(()),
            // Makes the runtime wait for more.
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        match looked {
            Err(error) if would_block(&error) => on_wait(),
            looked => return looked,
        }
    }
}

/// Whether the first record is complete, or is no handshake.
fn is_whole(stream: &TcpStream) -> io::Result<bool> {
    let mut header = [0; HEADER];
    let count = peek(stream, &mut header)?;
    let [kind, _, _, length @ ..] = header;
    let length = usize::from(u16::from_be_bytes(length));
    Ok(match count {
        0 => true,
        _ if kind != HANDSHAKE => true,
        HEADER => length > MAX_RECORD || ioctl_fionread(stream)? >= (HEADER + length) as u64,
        _ => false,
    })
}

fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    rustix::net::recv(stream, buffer, RecvFlags::PEEK)
        .map(|(count, _)| count)
        .map_err(io::Error::from)
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
