//! Asks the engine for the sizes of the containers' writable layers.
//!
//! The engine reads the directories of all containers for an answer. Therefore, the requests have an interval of their own, and a task of
//! their own with one request at a time. No other call waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::engine::{Call, Engine, EngineError};
use super::json::Json;
use super::listing::{MAX_CONTAINERS, is_id};
use super::pieces::Piece;
use crate::settings::DockerHost;

/// Longest timeout of a request. With a shorter interval, the timeout is the interval.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// After a request without an answer, the pause is twice as long as the pause before, up to this number of intervals. Docker does not
/// stop reading the directories when the agent gives up, so a soon retry could make it read them twice at the same time.
const MAX_PAUSE: u32 = 16;
const CALL: &str = "sizes of containers";

/// The newest sizes of containers.
pub(super) struct Sizes {
    interval: Duration,
    has_had_round: bool,
    /// What starts the task. None after the start.
    start: Option<(DockerHost, watch::Sender<Reading>)>,
    newest: watch::Receiver<Reading>,
}

/// One answer of the engine.
#[derive(Debug, Clone, Default)]
struct Reading {
    /// The size in bytes, by full container id.
    sizes: Arc<HashMap<String, u64>>,
    /// When the answer arrived. None before the first answer.
    at: Option<Instant>,
}

impl Sizes {
    pub(super) fn new(host: DockerHost, interval: Duration) -> Self {
        let (publish, newest) = watch::channel(Reading::default());
        Self {
            interval,
            has_had_round: false,
            start: Some((host, publish)),
            newest,
        }
    }

    /// Begins a round of the collector. The second round starts the task: a command that takes one snapshot has only one round, and
    /// ends before the engine's answer. The task ends when `self` is dropped.
    pub(super) fn begin_round(&mut self) {
        if self.has_had_round
            && let Some((host, publish)) = self.start.take()
        {
            tokio::spawn(ask_always(Engine::new(host), self.interval, publish));
        }
        self.has_had_round = true;
    }

    /// Returns the newest sizes in bytes, by full container id. Empty if they are older than two intervals.
    pub(super) fn newest(&self) -> Arc<HashMap<String, u64>> {
        let newest = self.newest.borrow();
        let is_young = |at: Instant| at.elapsed() <= 2 * self.interval;
        match newest.at {
            Some(at) if is_young(at) => Arc::clone(&newest.sizes),
            _ => Arc::default(),
        }
    }
}

/// Requests the sizes at each interval. Ends when the collector has ended.
async fn ask_always(mut engine: Engine, interval: Duration, publish: watch::Sender<Reading>) {
    let mut pause = interval;
    let mut has_failed = false;
    loop {
        let asked = tokio::select! {
            asked = ask(&mut engine, interval.min(MAX_TIMEOUT)) => asked,
            () = publish.closed() => return,
        };
        match asked {
            Ok(sizes) => {
                if has_failed {
                    info!("the sizes of containers can be read again");
                }
                has_failed = false;
                pause = interval;
                publish.send_replace(Reading {
                    sizes: Arc::new(sizes),
                    at: Some(Instant::now()),
                });
            }
            Err(error) => {
                if !has_failed {
                    warn!(%error, "the sizes of containers cannot be read");
                }
                engine.disconnect();
                pause = match has_failed {
                    true => (2 * pause).min(MAX_PAUSE * interval),
                    false => interval,
                };
                has_failed = true;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = publish.closed() => return,
        }
    }
}

async fn ask(engine: &mut Engine, patience: Duration) -> Result<HashMap<String, u64>, EngineError> {
    let call = engine.call().await?;
    let sizes = timeout(patience, sizes(&call)).await;
    sizes.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", patience.as_secs());
        Err(EngineError::Failed { call: CALL, reason })
    })
}

async fn sizes(call: &Call) -> Result<HashMap<String, u64>, EngineError> {
    let mut sizes = HashMap::new();
    let add = |entry: Piece<'_>| {
        if let Piece::Whole(text) = entry
            && let Ok(entry) = Json::parse(text)
            && let Some((id, size)) = size(&entry)
        {
            sizes.insert(id, size);
        }
        match sizes.len() {
            ..=MAX_CONTAINERS => Ok(()),
            _ => Err(format!("more than {MAX_CONTAINERS} containers")),
        }
    };
    call.entries(CALL, call.running_with_sizes(), add).await?;
    Ok(sizes)
}

/// Returns the id of a container and the size of its writable layer.
fn size(entry: &Json) -> Option<(String, u64)> {
    let id = entry.get("Id").text().filter(|id| is_id(id))?;
    let size = match entry.get("SizeRw").integer() {
        // The engine reports -1 if it cannot read the layer.
        Some(size) => u64::try_from(size).ok()?,
        // The engine leaves out a size of 0. Without the size of the image, the engine has not read the sizes.
        None => entry.get("SizeRootFs").count().map(|_| 0)?,
    };
    Some((id, size))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::time::timeout;

    use super::{Json, Reading, Sizes, size};
    use crate::settings::DockerHost;

    #[test]
    fn a_size_is_read_from_an_entry_of_the_list() {
        let read = |text: &str| size(&Json::parse(text.as_bytes()).unwrap()).map(|(_, size)| size);
        for (fields, expected) in [
            (r#""SizeRw":4096,"SizeRootFs":1000000"#, Some(4096)),
            (r#""SizeRootFs":1000000"#, Some(0)),
            (r#""SizeRw":0"#, Some(0)),
            (r#""SizeRw":-1,"SizeRootFs":1000000"#, None),
            (r#""SizeRw":-1"#, None),
            (r#""State":"running""#, None),
        ] {
            let entry = format!(r#"{{"Id":"0123456789abcdef",{fields}}}"#);
            assert_eq!(read(&entry), expected, "{fields}");
        }
        assert_eq!(read(r#"{"Id":"web","SizeRw":1}"#), None);
        assert_eq!(read(r#"{"SizeRw":1}"#), None);
    }

    #[test]
    fn sizes_that_are_older_than_two_intervals_are_dropped() {
        let interval = Duration::from_secs(60);
        let sizes = Sizes::new(DockerHost::default(), interval);
        assert!(sizes.newest().is_empty());
        let (_, publish) = sizes.start.as_ref().unwrap();
        let now = Instant::now();
        for (age, expected) in [(0, 1), (119, 1), (121, 0)] {
            publish.send_replace(Reading {
                sizes: Arc::new([("0123456789abcdef".to_owned(), 7)].into()),
                at: now.checked_sub(Duration::from_secs(age)),
            });
            assert_eq!(sizes.newest().len(), expected, "{age} s");
        }
    }

    /// The requests for sizes that a fake engine got.
    #[derive(Default)]
    struct Requests {
        /// When each request arrived.
        times: Mutex<Vec<Instant>>,
        /// The number of requests that have no answer and whose connection is open.
        open: AtomicUsize,
        most_open: AtomicUsize,
    }

    /// A fake engine that answers the requests for sizes whose number is in `answered`. The first request has number 0.
    fn fake_engine(socket: &Path, answered: &'static [usize]) -> Arc<Requests> {
        let listener = UnixListener::bind(socket).unwrap();
        let requests = Arc::<Requests>::default();
        let shared = Arc::clone(&requests);
        actix_rt::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                actix_rt::spawn(answer(client, Arc::clone(&shared), answered));
            }
        });
        requests
    }

    async fn answer(mut client: UnixStream, requests: Arc<Requests>, answered: &[usize]) {
        let mut head = [0; 4096];
        let length = client.read(&mut head).await.unwrap();
        let is_for_sizes = head[..length].windows(5).any(|part| part == b"size=");
        let body = match is_for_sizes {
            false => "OK",
            true => {
                let number = {
                    let mut times = requests.times.lock().unwrap();
                    times.push(Instant::now());
                    times.len() - 1
                };
                let open = requests.open.fetch_add(1, Ordering::SeqCst) + 1;
                requests.most_open.fetch_max(open, Ordering::SeqCst);
                if !answered.contains(&number) {
                    // Returns when the agent gives up.
                    let _ = client.read(&mut head).await;
                }
                requests.open.fetch_sub(1, Ordering::SeqCst);
                r#"[{"Id":"0123456789abcdef","SizeRw":7},{"Id":"odd"},7,{"Id":"0123456789abcdee","SizeRw":-1}]"#
            }
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = client.write_all(answer.as_bytes()).await;
    }

    #[actix::test]
    async fn a_request_without_an_answer_ends_before_the_next_one_and_the_pause_grows() {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("docker.sock");
        let requests = fake_engine(&socket, &[3, 4]);
        let interval = Duration::from_millis(300);
        let mut sizes = Sizes::new(DockerHost::Unix(socket), interval);
        sizes.begin_round();
        assert!(sizes.start.is_some(), "the first round makes no request");
        sizes.begin_round();
        let mut newest = sizes.newest.clone();
        let answered = timeout(Duration::from_secs(60), newest.changed()).await;
        answered.expect("no answer").unwrap();
        assert_eq!(newest.borrow().sizes.get("0123456789abcdef"), Some(&7));
        assert_eq!(newest.borrow().sizes.len(), 1);
        let times = requests.times.lock().unwrap().clone();
        let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Each request takes one interval until the agent gives up. The pauses are one, two and four intervals.
        for (pause, intervals) in pauses.iter().zip([2, 3, 5]) {
            assert!(*pause >= intervals * interval, "{pauses:?}");
        }
        assert_eq!(pauses.len(), 3);
        // After an answer, the pause is one interval again.
        timeout(Duration::from_secs(60), newest.changed())
            .await
            .expect("no second answer")
            .unwrap();
        let last = requests.times.lock().unwrap().clone();
        assert!(last[4] - last[3] >= interval);
        assert_eq!(requests.most_open.load(Ordering::SeqCst), 1);
        // The task ends with the collector.
        drop((sizes, newest));
    }
}
