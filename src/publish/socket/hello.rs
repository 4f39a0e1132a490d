//! What a connection begins with, looked at without taking it: whether it ends before it has begun, and whether a TLS client's first
//! message is there as a whole.

use std::io;

use rustix::io::ioctl_fionread;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The head of a TLS record: its kind, a version, and a length.
const HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
/// The longest record in the clear.
const LONGEST_RECORD: usize = 16 * 1024;

/// What a connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::publish) enum Beginning {
    /// There is something to read.
    Bytes,
    /// The peer closed it, or reset it, and had sent nothing: as health checks do.
    End,
}

/// Waits until there is something to read, or the end. `waiting` is called where nothing is there yet.
pub(in crate::publish) async fn first_byte(
    stream: &TcpStream,
    waiting: impl FnOnce(),
) -> Beginning {
    let mut there = peek(stream, &mut [0]);
    // Most have sent something by now, of which the runtime does not know yet.
    if there.as_ref().is_err_and(is_not_yet) {
        waiting();
        there = match stream.readable().await {
            Ok(()) => peek(stream, &mut [0]),
            Err(error) => Err(error),
        };
    }
    match there {
        Ok(1..) => Beginning::Bytes,
        // It was said that there is something, and it is looked at again where it is read.
        Err(error) if is_not_yet(&error) => Beginning::Bytes,
        Ok(0) | Err(_) => Beginning::End,
    }
}

/// Waits until a TLS client's hello is there, or what cannot become one, or the end. A handshake that began earlier would wait with
/// all that it takes. `waiting` is called where something is missing.
///
/// # Errors
/// Where the connection is broken.
pub(in crate::publish) async fn whole_hello(
    stream: &TcpStream,
    waiting: impl Fn(),
) -> io::Result<()> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Nothing more comes: whatever is there is all.
        if ready.is_read_closed() {
            return Ok(());
        }
        let looked = stream.try_io(Interest::READABLE, || match is_whole(stream)? {
            true => Ok(()),
            // Has the runtime wait for more.
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        match looked {
            Err(error) if is_not_yet(&error) => waiting(),
            looked => return looked,
        }
    }
}

/// Whether a first record is there to its end, or is none of a handshake.
fn is_whole(stream: &TcpStream) -> io::Result<bool> {
    let mut head = [0; HEAD];
    let count = peek(stream, &mut head)?;
    let [kind, _, _, length @ ..] = head;
    let length = usize::from(u16::from_be_bytes(length));
    Ok(match count {
        0 => true,
        _ if kind != HANDSHAKE => true,
        HEAD => length > LONGEST_RECORD || ioctl_fionread(stream)? >= (HEAD + length) as u64,
        _ => false,
    })
}

fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    rustix::net::recv(stream, buffer, RecvFlags::PEEK)
        .map(|(count, _)| count)
        .map_err(io::Error::from)
}

fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
