//! Sends requests to a receiver until it accepts or refuses them, and logs each problem once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{info, warn};

use super::client::{Client, FailureKind, SendFailure};
use super::feed::Ending;
use crate::backoff::{Backoff, jittered};
use crate::messages::Reports;

/// The first pause before a request is repeated. The pauses double up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The pause after a receiver has refused the agent or its URL. The settings must change first.
const DENIED_PAUSE: Duration = Duration::from_secs(60);
/// Limit on the number of different warnings until the receiver accepts a request again.
const MAX_WARNINGS: usize = 16;

/// Sends requests with one kind of signals.
pub(super) struct Sender {
    client: Client,
    /// `metrics` or `logs`.
    part: &'static str,
    reports: Arc<Reports>,
    backoff: Backoff,
    /// The warnings that are already logged. Cleared when the receiver accepts a request.
    warned: HashSet<String>,
    /// Whether it is already logged that the receiver refuses parts of requests.
    has_warned_of_partial: bool,
    /// Whether the newest request failed.
    is_failing: bool,
}

/// The end of the attempts to send a request.
pub(super) enum Sent {
    /// The receiver has accepted the request. The value is its answer.
    Accepted(Bytes),
    /// The receiver refuses the contents for ever.
    Rejected,
    /// The receiver refuses the request because of its size.
    TooLarge,
    /// The agent stops.
    Stopped,
}

impl Sender {
    pub(super) fn new(client: Client, part: &'static str, reports: Arc<Reports>) -> Self {
        Self {
            client,
            part,
            reports,
            backoff: Backoff::new(MIN_PAUSE, MAX_PAUSE),
            warned: HashSet::new(),
            has_warned_of_partial: false,
            is_failing: false,
        }
    }

    /// Compresses contents. An error is not expected, because the compressor writes to memory.
    pub(super) fn compress(&mut self, contents: Vec<u8>) -> Option<Bytes> {
        let compressed = self.client.compress(contents);
        compressed
            .map_err(|error| self.warn_once("a request cannot be compressed", &error.to_string()))
            .ok()
    }

    /// Sends compressed contents once. After a temporary failure, returns the pause before the next attempt.
    pub(super) async fn attempt(&mut self, contents: Bytes) -> Result<Sent, Duration> {
        match self.client.send(contents).await {
            Ok(answer) => {
                self.accepted();
                Ok(Sent::Accepted(answer))
            }
            Err(failure) => self.failed(&failure),
        }
    }

    /// Sends compressed contents until the receiver accepts or refuses them, or until the agent stops.
    pub(super) async fn deliver(&mut self, contents: Bytes, ending: &mut Ending) -> Sent {
        loop {
            let pause = match self.attempt(contents.clone()).await {
                Ok(sent) => return sent,
                Err(pause) => pause,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = ending.due() => return Sent::Stopped,
            }
        }
    }

    fn accepted(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            info!(
                url = self.client.url(),
                "OTLP: the receiver accepts requests again"
            );
        }
        self.reports.otlp.succeeded(self.part);
        self.warned.clear();
        self.backoff.reset();
    }

    fn failed(&mut self, failure: &SendFailure) -> Result<Sent, Duration> {
        let about = match failure.kind {
            FailureKind::Temporary(_) => "request not accepted, it is repeated",
            FailureKind::Denied => "the receiver refuses the agent or the URL",
            FailureKind::TooLarge => "the receiver refuses a request as too large",
            FailureKind::Rejected => {
                "the receiver refuses the contents of a request, which are dropped"
            }
        };
        self.reports.otlp.failed(self.part, failure.reason.clone());
        self.is_failing = true;
        self.warn_once(about, &failure.reason);
        match failure.kind {
            FailureKind::Temporary(Some(after)) => {
                // All agents of a receiver get the same time.
                let nominal = self.backoff.pause();
                Err(after + jittered(nominal.min(after.max(MIN_PAUSE))))
            }
            FailureKind::Temporary(None) => Err(self.backoff.pause()),
            FailureKind::Denied => Err(jittered(DENIED_PAUSE)),
            FailureKind::TooLarge => Ok(Sent::TooLarge),
            FailureKind::Rejected => Ok(Sent::Rejected),
        }
    }

    /// Logs that the receiver has refused a part of a request. `rejected` is the number of log records or data points.
    pub(super) fn warn_partial(&mut self, rejected: u64, reason: &str) {
        if std::mem::replace(&mut self.has_warned_of_partial, true) {
            return;
        }
        warn!(
            url = self.client.url(),
            part = self.part,
            rejected,
            reason,
            "OTLP: the receiver refuses a part of a request, which is dropped"
        );
    }

    /// Logs a warning only once. When the receiver accepts a request, the same warning can be logged again.
    pub(super) fn warn_once(&mut self, about: &str, reason: &str) {
        let complaint = format!("{about}: {reason}");
        if self.warned.len() < MAX_WARNINGS && self.warned.insert(complaint) {
            warn!(url = self.client.url(), reason, "OTLP: {about}");
        }
    }
}
