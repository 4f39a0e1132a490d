//! A bare server without actors, options or totals. It is one client of the agent, and sends each line of JSON that it gets to all
//! of its own clients, a fixed time later.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{DELAY, login};
use crate::common::limits::raise_file_limit;

/// Number of connections that can wait until the server accepts them. The agent has the same limit.
const BACKLOG: u32 = 4096;
/// Number of lines that a client can be behind.
const MOST_BEHIND: usize = 1024;

/// Serves until the process is killed. Prints the address first.
pub(crate) fn run(agent: &str) {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(agent.parse().unwrap())).unwrap();
}

async fn serve(agent: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    let (waiting, mut due) = mpsc::unbounded_channel();
    let newest = broadcast::Sender::new(MOST_BEHIND);
    drop(tokio::spawn(read(agent, waiting)));
    let lines = newest.clone();
    tokio::spawn(async move {
        while let Some((at, line)) = due.recv().await {
            sleep_until(at).await;
            let _ = lines.send(line);
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        drop(tokio::spawn(feed(stream, newest.subscribe())));
    }
}

/// Reads the agent's lines, and passes each of them on with the time at which it is due.
async fn read(agent: SocketAddr, waiting: mpsc::UnboundedSender<(Instant, Bytes)>) {
    let mut stream = TcpStream::connect(agent).await.expect("no agent");
    stream.write_all(login().as_bytes()).await.unwrap();
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let mut line = Vec::new();
        if !matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let _ = waiting.send((Instant::now() + DELAY, line.into()));
    }
}

/// Reads the client's first line without a check, and then writes each line. A client that is too far behind is disconnected.
async fn feed(mut stream: TcpStream, mut lines: broadcast::Receiver<Bytes>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while stream.read_u8().await? != b'\n' {}
    while let Ok(line) = lines.recv().await {
        stream.write_all(&line).await?;
    }
    Ok(())
}
