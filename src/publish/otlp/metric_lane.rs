//! Sends the newest figures at each interval. The figures of an outage are not sent later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tokio::time::sleep;

use super::feed::Feed;
use super::metrics::Exporter;
use super::sender::{Sender, Sent};
use crate::publish::figures::collectors::Choice;
use crate::publish::on_request::OnRequest;
use crate::published::Published;

/// Sends metrics.
pub(super) struct MetricLane {
    pub(super) sender: Sender,
    pub(super) exporter: Exporter,
    pub(super) on_request: OnRequest,
    /// Which figures `on_request` reads.
    pub(super) choice: Choice,
    /// The time between two exports. None: each snapshot is exported.
    pub(super) interval: Option<Duration>,
}

impl MetricLane {
    /// Sends metrics until the agent stops.
    pub(super) async fn run(mut self, mut feed: Feed) {
        let mut newest: Option<Instant> = None;
        while let Some(published) = feed.next().await {
            if newest.is_some_and(|newest| !self.is_due(&published, newest)) {
                continue;
            }
            newest = Some(published.at());
            let exported = tokio::select! {
                exported = self.export(&published) => exported,
                () = feed.ending.due() => return,
            };
            let Err(pause) = exported else { continue };
            tokio::select! {
                () = sleep(pause) => {}
                () = feed.ending.due() => return,
            }
        }
    }

    /// Whether the interval since the newest export is over. A snapshot can be a little early.
    fn is_due(&self, published: &Published, newest: Instant) -> bool {
        let interval = self.interval.unwrap_or_default();
        published.at().saturating_duration_since(newest) >= interval.mul_f64(0.95)
    }

    /// Sends the figures of a snapshot. After a temporary failure, returns the pause before the next attempt, which sends newer figures.
    async fn export(&mut self, published: &Arc<Published>) -> Result<(), Duration> {
        let snapshot = published.snapshot();
        let read = self.on_request.read(snapshot, &self.choice).await;
        for request in self.exporter.requests(snapshot, &read) {
            let Some(contents) = self.sender.compress(request) else {
                return Ok(());
            };
            if let Sent::Accepted(answer) = self.sender.attempt(contents).await? {
                let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
                let partial = answer.partial_success.unwrap_or_default();
                let rejected = u64::try_from(partial.rejected_data_points).unwrap_or_default();
                if rejected > 0 || !partial.error_message.is_empty() {
                    self.sender.warn_partial(rejected, &partial.error_message);
                }
            }
        }
        Ok(())
    }
}
