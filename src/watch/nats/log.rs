//! A container's log: the newest piece that is kept of it, and each one that comes.

use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, Message, Request, Subscriber};
use futures_util::StreamExt;

/// Where the newest message of a subject is asked for that the stream keeps.
pub(super) const KEPT: &str = "$JS.API.DIRECT.GET.AGENTS";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A log that is followed.
pub(super) struct Log {
    subject: String,
    live: Subscriber,
    /// The newest piece that is kept, until it has come, or something newer has.
    kept: Option<Pin<Box<dyn Future<Output = Option<Message>>>>>,
}

impl Log {
    /// Follows it from now on; nothing where the connection is lost.
    pub(super) async fn follow(client: &Client, subject: String) -> Option<Self> {
        // First, so that none comes between.
        let live = client.subscribe(subject.clone()).await.ok()?;
        let asked = format!("{KEPT}.{subject}");
        let client = client.clone();
        let kept = async move {
            let request = Request::new().timeout(Some(PATIENCE));
            // There may be no JetStream, no right to ask, nothing kept: what comes is shown all the same.
            let answer = client.send_request(asked, request).await.ok()?;
            answer.status.is_none().then_some(answer)
        };
        Some(Self {
            subject,
            live,
            kept: Some(Box::pin(kept)),
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The next piece; nothing once the connection is lost. Nothing is lost where it is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<Message> {
        if let Some(kept) = &mut self.kept {
            let next = tokio::select! {
                // What comes may be what is kept.
                biased;
                message = self.live.next() => Some(message),
                kept = kept => kept.map(Some),
            };
            self.kept = None;
            if let Some(next) = next {
                return next;
            }
        }
        self.live.next().await
    }
}
