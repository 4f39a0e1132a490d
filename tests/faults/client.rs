//! The good client: connects once, sends its key, reads every line and takes note of when it came.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Agent, schema, wait};

/// How far from its time a snapshot may come.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(250);

/// One line.
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) length: usize,
    /// What is wrong with it.
    pub(crate) invalid: Option<String>,
    /// Null where it is not JSON.
    pub(crate) snapshot: Value,
}

/// The client, which reads on a thread of its own for as long as the agent streams.
pub(crate) struct Client {
    interval: Duration,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// What a client missed, and what it should not have got.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) received: usize,
    /// Numbers that did not come.
    pub(crate) lost: u64,
    /// More than [`PUNCTUAL`] after their time.
    pub(crate) late: usize,
    pub(crate) latest: Duration,
    /// Not JSON, or not as the schema says.
    pub(crate) invalid: usize,
}

impl Client {
    /// Logs in to an agent that publishes every `interval`.
    pub(crate) fn of(agent: &Agent, interval: Duration) -> Self {
        let mut client = agent.login();
        // A minute's silence is one of the faults.
        Self::reading(interval, move || {
            client.line_within(Duration::from_secs(180))
        })
    }

    /// Of a connection that yields its lines until the end.
    pub(crate) fn reading(
        interval: Duration,
        mut next: impl FnMut() -> Option<String> + Send + 'static,
    ) -> Self {
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let heard = Arc::clone(&lines);
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
                heard.lock().unwrap().push(Line {
                    at,
                    length,
                    invalid,
                    snapshot,
                });
            }
        });
        Self { interval, lines }
    }

    /// How many lines have come.
    pub(crate) fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Looks at the newest line.
    pub(crate) fn newest<T>(&self, look: impl FnOnce(&Line) -> T) -> Option<T> {
        self.lines.lock().unwrap().last().map(look)
    }

    /// Looks at all lines from one on.
    pub(crate) fn since<T>(&self, first: usize, look: impl FnOnce(&[Line]) -> T) -> T {
        look(&self.lines.lock().unwrap()[first..])
    }

    /// Waits for so many further lines.
    pub(crate) fn wait_for(&self, lines: usize) {
        let until = self.count() + lines;
        let patience = self.interval * u32::try_from(lines).unwrap() + Duration::from_secs(30);
        wait::until("snapshots", patience, || {
            (self.count() >= until).then_some(())
        });
    }

    /// Waits for a snapshot that fits; how long that took, none where it did not come in time.
    pub(crate) fn wait_until(
        &self,
        patience: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Option<Duration> {
        let (started, first) = (Instant::now(), self.count());
        wait::within(patience, || {
            self.since(first, |lines| {
                lines
                    .iter()
                    .find(|line| fits(&line.snapshot))
                    .map(|line| line.at - started)
            })
        })
    }

    /// What it missed from one line on. Each snapshot's time follows from the most punctual one of them.
    pub(crate) fn account(&self, first: usize) -> Account {
        self.since(first, |lines| {
            let number = |line: &Line| line.snapshot["agent"]["seq"].as_u64().unwrap_or_default();
            let zero = |line: &Line| {
                line.at
                    .checked_sub(self.interval * u32::try_from(number(line)).unwrap_or(0))
            };
            let origin = lines.iter().filter_map(zero).min();
            let late = |line: &Line| Some(zero(line)? - origin?);
            let lates: Vec<Duration> = lines.iter().filter_map(late).collect();
            Account {
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
