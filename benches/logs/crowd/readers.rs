//! A process with many clients, which count the bytes that they receive.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;
use std::{future, io, thread};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::login;
use crate::common::limits::raise_file_limit;

/// Size of a thread's read buffer in bytes. All clients of the thread share it.
const BUFFER: usize = 256 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// What all clients have received together.
#[derive(Default)]
struct Counts {
    /// The number of clients that have received something.
    served: AtomicUsize,
    bytes: AtomicU64,
}

/// Connects the clients, and prints `connected` when all have received something. Then prints the number of bytes for each line of
/// input. The process ends with its input, or when a connection ends.
pub(crate) fn run(address: &str, clients: &str) {
    raise_file_limit();
    let (address, clients): (SocketAddr, usize) =
        (address.parse().unwrap(), clients.parse().unwrap());
    // Uses half of the cores. The server needs the other half.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build()
        .unwrap();
    let counts = Arc::new(Counts::default());
    for _ in 0..clients {
        let counts = Arc::clone(&counts);
        runtime.spawn(async move {
            let ended = read(address, &counts).await;
            eprintln!("the connection of a client has ended: {ended:?}");
            std::process::exit(1);
        });
    }
    while counts.served.load(Ordering::Relaxed) < clients {
        thread::sleep(Duration::from_millis(10));
    }
    println!("connected");
    for _ in io::stdin().lines() {
        println!("{}", counts.bytes.load(Ordering::Relaxed));
    }
    // Exits without closing the connections, because there are too many to close them one by one.
    std::process::exit(0);
}

async fn read(address: SocketAddr, counts: &Counts) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(login().as_bytes()).await?;
    let mut is_served = false;
    loop {
        let read = future::poll_fn(|cx| {
            BUFFERS.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut stream).poll_read(cx, &mut read))?;
                Poll::Ready(io::Result::Ok(read.filled().len()))
            })
        });
        let read = read.await?;
        if read == 0 {
            return Ok(());
        }
        counts.bytes.fetch_add(read as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut is_served, true) {
            counts.served.fetch_add(1, Ordering::Relaxed);
        }
    }
}
