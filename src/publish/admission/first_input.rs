//! Waits for the first input of a connection, without reading it.
//!
//! Until the first input arrives, a connection needs no memory except its socket.

use std::io;

use rustix::io::ioctl_fionread;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Length of a TLS record's header in bytes: type, version and length.
const HEADER: usize = 5;
/// Type of a TLS record that belongs to a handshake.
const HANDSHAKE: u8 = 22;
/// Limit on the length of an unencrypted TLS record, in bytes.
const MAX_RECORD: usize = 16 * 1024;

/// The first input of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::publish) enum FirstInput {
    /// There are bytes to read.
    Bytes,
    /// The peer has closed or reset the connection without sending anything. Many health checks do this.
    End,
}

/// Waits until the peer sends something or closes the connection.
///
/// If `is_tls` is true and the first bytes belong to a TLS handshake, also waits until the ClientHello is complete. If the
/// handshake began earlier, it would use memory while it waits for the missing bytes of the ClientHello.
///
/// Calls `on_wait` each time that the function has to wait for input.
///
/// # Errors
/// Fails if the connection fails after the first byte.
pub(in crate::publish) async fn first_input(
    stream: &TcpStream,
    is_tls: bool,
    on_wait: impl Fn(),
) -> io::Result<FirstInput> {
    let mut peeked = peek(stream, &mut [0]);
    // Most peers have already sent something, but the runtime does not know that yet. Therefore, look for input before waiting.
    if peeked.as_ref().is_err_and(would_block) {
        on_wait();
        peeked = match stream.readable().await {
            Ok(()) => peek(stream, &mut [0]),
            Err(error) => Err(error),
        };
    }
    match peeked {
        Ok(1..) => {}
        // The runtime woke this task without input. The code that reads from the connection waits for the input.
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
        // The peer has closed its sending side, so no more input arrives.
        if ready.is_read_closed() {
            return Ok(());
        }
        let looked = stream.try_io(Interest::READABLE, || match is_whole(stream)? {
            true => Ok(()),
            // This error makes the runtime wait for more input.
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        match looked {
            Err(error) if would_block(&error) => on_wait(),
            looked => return looked,
        }
    }
}

/// Whether the first TLS record is complete. Also true if the first bytes are not part of a TLS handshake.
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
