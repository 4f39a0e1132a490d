//! The ordinary client of a trial. The client sends its key, reads every JSON line and records when the line arrived.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Agent, schema, wait};

/// Limit of a snapshot's lateness.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(250);

/// A JSON line that the client has received.
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) length: usize,
    /// The violations of the schema, if there are any.
    pub(crate) invalid: Option<String>,
    /// `Null` if the line is not JSON.
    pub(crate) snapshot: Value,
}

/// The client. A thread of its own reads until the stream ends.
pub(crate) struct Client {
    interval: Duration,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// The totals of a client: received, lost, late and invalid snapshots.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) received: usize,
    /// The number of missing sequence numbers.
    pub(crate) lost: u64,
    /// Number of snapshots that arrived more than [`PUNCTUAL`] after they were due.
    pub(crate) late: usize,
    pub(crate) latest: Duration,
    /// Lines that are not JSON or do not match the schema.
    pub(crate) invalid: usize,
}

impl Client {
    /// Logs in to an agent that publishes every `interval`.
    pub(crate) fn of(agent: &Agent, interval: Duration) -> Self {
        let mut client = agent.login();
        // The timeout is long, because one of the faults makes the agent silent for a minute.
        Self::reading(interval, move || {
            client.line_within(Duration::from_secs(180))
        })
    }

    /// Starts a client that calls `next` for each JSON line, until `next` returns `None`.
    pub(crate) fn reading(
        interval: Duration,
        mut next: impl FnMut() -> Option<String> + Send + 'static,
    ) -> Self {
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let received = Arc::clone(&lines);
        thread::spawn(move || {
            while let Some(line) = next() {
                let at = Instant::now();
                let (snapshot, invalid) = match serde_json::from_str::<Value>(&line) {
                    Ok(snapshot) => {
                        let violations = schema::violations(&snapshot);
                        let invalid = (!violations.is_empty()).then(|| violations.join("; "));
                        (snapshot, invalid)
                    }
                    Err(error) => (Value::Null, Some(error.to_string())),
                };
                let length = line.len();
                received.lock().unwrap().push(Line {
                    at,
                    length,
                    invalid,
                    snapshot,
                });
            }
        });
        Self { interval, lines }
    }

    /// The number of lines that have arrived.
    pub(crate) fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Calls `look` with the newest line.
    pub(crate) fn newest<T>(&self, look: impl FnOnce(&Line) -> T) -> Option<T> {
        self.lines.lock().unwrap().last().map(look)
    }

    /// Calls `look` with all lines from number `first` on.
    pub(crate) fn since<T>(&self, first: usize, look: impl FnOnce(&[Line]) -> T) -> T {
        look(&self.lines.lock().unwrap()[first..])
    }

    /// Waits for this number of further lines.
    pub(crate) fn wait_for(&self, lines: usize) {
        let until = self.count() + lines;
        let timeout = self.interval * u32::try_from(lines).unwrap() + Duration::from_secs(30);
        wait::until("snapshots", timeout, || {
            (self.count() >= until).then_some(())
        });
    }

    /// Waits for a snapshot that fits. Returns the waiting time, or `None` after the timeout.
    pub(crate) fn wait_until(
        &self,
        timeout: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Option<Duration> {
        let (started, first) = (Instant::now(), self.count());
        wait::within(timeout, || {
            self.since(first, |lines| {
                lines
                    .iter()
                    .find(|line| fits(&line.snapshot))
                    .map(|line| line.at - started)
            })
        })
    }

    /// The totals of the JSON lines from number `first` on. The times at which snapshots were due are computed from the most
    /// punctual snapshot.
    pub(crate) fn totals(&self, first: usize) -> Totals {
        self.since(first, |lines| {
            let number = |line: &Line| line.snapshot["agent"]["seq"].as_u64().unwrap_or_default();
            let zero = |line: &Line| {
                line.at
                    .checked_sub(self.interval * u32::try_from(number(line)).unwrap_or(0))
            };
            let origin = lines.iter().filter_map(zero).min();
            let late = |line: &Line| Some(zero(line)? - origin?);
            let lates: Vec<Duration> = lines.iter().filter_map(late).collect();
            Totals {
                received: lines.len(),
                lost: lines
                    .windows(2)
                    .map(|pair| number(&pair[1]).saturating_sub(number(&pair[0]) + 1))
                    .sum(),
                late: lates.iter().filter(|late| **late > PUNCTUAL).count(),
                latest: lates.iter().copied().max().unwrap_or_default(),
                invalid: lines.iter().filter(|line| line.invalid.is_some()).count(),
            }
        })
    }
}
