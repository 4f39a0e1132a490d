//! Sends each log line and event once. The position in the logs advances only after the receiver has accepted all lines before it. So
//! the lines of an outage wait in the log files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::feed::Feed;
use super::position::PositionFile;
use super::records::{Batch, Batches};
use super::resource::HostResource;
use super::sender::{Sender, Sent};
use crate::messages::Reports;
use crate::model::{DEFAULT_MAX_LINE, ResumeOutcome};
use crate::published::{LogPiece, PIECE_BYTES, Published, StreamPosition};
use crate::settings::OtlpSignals;

/// Sends log lines and events.
pub(super) struct LogLane {
    pub(super) sender: Sender,
    pub(super) signals: OtlpSignals,
    pub(super) resource: Arc<HostResource>,
    pub(super) reports: Arc<Reports>,
    /// The file with the position. None without `STATE_DIRECTORY`.
    pub(super) file: Option<PositionFile>,
}

/// The position up to which the receiver has accepted all log lines and events.
struct Progress {
    position: StreamPosition,
    /// Whether the position is from an earlier run. Only then the agent sends events from before its start.
    is_resumed: bool,
}

/// The next log lines and events.
struct Step {
    batches: VecDeque<Batch>,
    /// The position after them.
    after: StreamPosition,
    /// Whether more log lines up to the snapshot can be read after them.
    has_more: bool,
    /// The number of log lines and events before them that are gone.
    dropped: u64,
}

impl LogLane {
    /// Sends log lines and events until the agent stops.
    pub(super) async fn run(mut self, mut feed: Feed) {
        let mut progress: Option<Progress> = None;
        while let Some(published) = feed.next().await {
            let from = match progress.take() {
                Some(progress) => progress,
                None => self.begin(&published),
            };
            match self.catch_up(published, from, &mut feed).await {
                Some(reached) => progress = Some(reached),
                None => return,
            }
        }
    }

    /// Returns the position at which the agent begins: that of the earlier run, or else the newest.
    fn begin(&mut self, published: &Published) -> Progress {
        let newest = || Progress {
            position: published.since().clone(),
            is_resumed: false,
        };
        let Some(file) = &self.file else {
            return newest();
        };
        let cursor = match file.read() {
            Ok(Some(cursor)) => Arc::new(cursor),
            Ok(None) => return newest(),
            Err(error) => {
                warn!(%error, "OTLP: the position of the earlier run cannot be read, so the agent begins with the newest log lines");
                return newest();
            }
        };
        match published.resume(&cursor) {
            (Some(position), ResumeOutcome::Continued) => {
                info!("OTLP: log lines and events continue at the position of the earlier run");
                Progress {
                    position,
                    is_resumed: true,
                }
            }
            _ => newest(),
        }
    }

    /// Sends all log lines and events up to the newest snapshot. Returns the position after them. Returns None if the agent stops
    /// before the receiver has accepted them.
    async fn catch_up(
        &mut self,
        mut published: Arc<Published>,
        mut progress: Progress,
        feed: &mut Feed,
    ) -> Option<Progress> {
        loop {
            let step = self.next_step(&published, &progress).await?;
            self.count_dropped(step.dropped);
            self.reports.otlp.waiting(!step.batches.is_empty());
            for batch in step.batches {
                self.deliver(batch, feed).await?;
            }
            let before = std::mem::replace(
                &mut progress,
                Progress {
                    position: step.after,
                    is_resumed: false,
                },
            );
            self.save(&published, &before, &progress);
            if !step.has_more {
                self.reports.otlp.waiting(false);
                return Some(progress);
            }
            published = feed.newest().unwrap_or(published);
        }
    }

    /// Collects the next log lines and events. Reads log lines from the log files if the snapshot does not have them. Returns None if
    /// the agent stops.
    async fn next_step(&self, published: &Arc<Published>, from: &Progress) -> Option<Step> {
        let since = &from.position;
        let unread = self
            .signals
            .logs
            .then(|| published.unread(since, DEFAULT_MAX_LINE));
        let piece = match unread.flatten() {
            Some(unread) => Some(
                spawn_blocking(move || unread.read(PIECE_BYTES))
                    .await
                    .ok()?,
            ),
            None => None,
        };
        Some(self.step(published, from, piece.as_ref()))
    }

    fn step(&self, published: &Published, from: &Progress, piece: Option<&LogPiece>) -> Step {
        let (since, now) = (&from.position, SystemTime::now());
        let snapshot = published.snapshot();
        let mut batches = Batches::default();
        let mut dropped = 0;
        if self.signals.events {
            let after = match from.is_resumed {
                true => since.events,
                false => since.events.max(published.old_events()),
            };
            let (events, lost) = published.events(Some(after));
            dropped += lost;
            let resource = self.resource.of_host(&snapshot.host);
            batches.add_events(&resource, events, now);
        }
        if self.signals.logs {
            let since = (!since.begins_logs).then_some(since);
            let lines = published.log_lines(since, piece);
            dropped += lines.dropped();
            for (name, id, lines) in lines.by_container() {
                let resource = self.resource.of_lines(snapshot, name, id);
                let lines = lines.texts().zip(lines.streams());
                batches.add_lines(&resource, id, lines, now);
            }
        }
        let after = match piece {
            Some(piece) => piece.position().clone(),
            None => published.position_after(since),
        };
        Step {
            batches: batches.finish(),
            after,
            has_more: piece.is_some_and(LogPiece::has_more),
            dropped,
        }
    }

    /// Sends a batch. A batch that is too large for the receiver is split. Returns None if the agent stops.
    async fn deliver(&mut self, batch: Batch, feed: &mut Feed) -> Option<()> {
        let mut waiting = VecDeque::from([batch]);
        while let Some(batch) = waiting.pop_front() {
            let Some(contents) = self.sender.compress(batch.request.encode_to_vec()) else {
                self.reports.otlp.dropped(batch.records);
                continue;
            };
            match self.sender.deliver(contents, &mut feed.ending).await {
                Sent::Accepted(answer) => self.count_accepted(&answer, batch.records),
                Sent::Rejected => self.reports.otlp.dropped(batch.records),
                Sent::TooLarge => match batch.split() {
                    Some([one, other]) => {
                        waiting.push_front(other);
                        waiting.push_front(one);
                    }
                    None => self.reports.otlp.dropped(1),
                },
                Sent::Stopped => return None,
            }
        }
        Some(())
    }

    /// Counts the log records that the receiver has accepted. It can accept a request and refuse some of its log records.
    fn count_accepted(&mut self, answer: &[u8], records: u64) {
        let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_log_records).unwrap_or_default();
        let rejected = rejected.min(records);
        if rejected > 0 || !partial.error_message.is_empty() {
            self.sender.warn_partial(rejected, &partial.error_message);
        }
        self.reports.otlp.sent(records - rejected);
        self.reports.otlp.dropped(rejected);
    }

    fn count_dropped(&mut self, dropped: u64) {
        if dropped > 0 {
            self.reports.otlp.dropped(dropped);
            warn!(
                dropped,
                "OTLP: log lines or events are gone before they were sent"
            );
        }
    }

    /// Writes the position to its file, if it has changed.
    fn save(&mut self, published: &Published, before: &Progress, after: &Progress) {
        let Some(file) = &self.file else { return };
        let is_same = before.position.events == after.position.events
            && before.position.positions == after.position.positions
            && !before.is_resumed;
        if is_same {
            return;
        }
        if let Err(error) = file.write(&published.cursor_with_logs(&after.position)) {
            self.sender
                .warn_once("the position cannot be stored", &error.to_string());
        }
    }
}
