//! Answers a client that asks for older log lines of one container (`"logs":"range"`), and closes its connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

use super::connection::finish;
use super::session::Client;
use crate::messages::FindLog;
use crate::model::{LogRange, RangeLines, Timestamp, text_of};

/// Number of requests whose log files are read at the same time. Others wait.
pub const RANGE_READINGS: usize = 1;
/// Time that a request waits for other requests.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Time after which a request is answered with an error, because a file system hangs.
const MAX_READING: Duration = Duration::from_secs(30);
/// Number of bytes that are written at a time. Each time, the client has the write timeout to read them.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads the log lines, sends them as one JSON line, and closes the connection.
pub(super) async fn answer(client: Client, range: Arc<LogRange>) {
    let began = Instant::now();
    let readings = Arc::clone(&client.subscriptions.readings);
    let answer = match read(&client, &range, readings).await {
        Ok(read) => json_of(&range, &read),
        Err(error) => format!("{}\n", serde_json::json!({ "error": error })),
    };
    let (id, peer) = (client.id, client.peer);
    let length = answer.len();
    let outcome = send(client, answer.into_bytes()).await;
    let error = outcome.err().map(|error| error.to_string());
    info!(
        client = id,
        %peer,
        container = range.container,
        bytes = length,
        duration_ms = began.elapsed().as_millis() as u64,
        error,
        "log range answered"
    );
}

async fn read(
    client: &Client,
    range: &Arc<LogRange>,
    readings: Arc<Semaphore>,
) -> Result<RangeLines, String> {
    let container = range.container.clone();
    let found = client.subscriptions.find_log.send(FindLog { container });
    let log = found.await.map_err(|_| "the agent is stopping")??;
    let permit = timeout(MAX_WAIT, readings.acquire_owned()).await;
    let permit = permit
        .map_err(|_| "too many requests for log lines: try again later")?
        .map_err(|_| "the agent is stopping")?;
    let range = Arc::clone(range);
    let reading = spawn_blocking(move || {
        // A reading that hangs keeps its permit, so the number of threads that hang is limited.
        let _permit = permit;
        log.0.range(&range)
    });
    match timeout(MAX_READING, reading).await {
        Ok(Ok(read)) => read.map_err(|error| format!("cannot read the log: {error}")),
        Ok(Err(_)) => Err("the agent is stopping".to_owned()),
        Err(_) => Err("reading the log takes too long: possibly a file system hangs".to_owned()),
    }
}

/// Returns the answer as one JSON line.
fn json_of(range: &LogRange, read: &RangeLines) -> String {
    let container = serde_json::json!(range.container);
    let now = serde_json::json!(Timestamp::now());
    let lines = read.lines.join(",");
    let reached = match &read.reached {
        Some(reached) => format!(",\"reached\":{}", serde_json::json!(text_of(*reached))),
        None => String::new(),
    };
    format!("{{\"timestamp\":{now},\"logs\":{{{container}:[{lines}]}}{reached}}}\n")
}

async fn send(client: Client, answer: Vec<u8>) -> io::Result<()> {
    let Client {
        connection,
        write_timeout,
        ..
    } = client;
    let mut stream = connection.attached()?;
    for piece in answer.chunks(PIECE_BYTES) {
        timeout(write_timeout, stream.write_all(piece)).await??;
    }
    timeout(write_timeout, finish(&mut stream)).await?
}
