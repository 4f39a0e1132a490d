//! Receives the log of a container from NATS. A message has one or more log lines. The NATS server stores messages in a stream
//! (JetStream). First this module requests the newest message of the log from the stream. After that it receives each new
//! message.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, Message, Request, Subscriber};
use futures_util::StreamExt;

use super::message;
use crate::publish::nats::subject::STREAM;

/// The subject of requests for the newest stored message of another subject.
pub(super) const DIRECT_GET: &str = "$JS.API.DIRECT.GET";
/// Timeout for the answer of the stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of newest message ids that are remembered, to detect a message that arrives twice. An agent sends a message again if
/// the agent got no answer. The stored message can also arrive a second time, as a new message.
const MAX_KNOWN: usize = 64;

/// A subscription to a log.
pub(super) struct Log {
    subject: String,
    live: Subscriber,
    /// The request for the newest stored message. None after the answer, or after a new message, has arrived.
    kept: Option<Pin<Box<dyn Future<Output = Option<Message>> + Send>>>,
    /// The ids of the newest messages.
    known: VecDeque<String>,
}

impl Log {
    /// Subscribes to a log, and requests the newest stored message of this log. Returns none if the connection is lost.
    pub(super) async fn follow(client: &Client, subject: String) -> Option<Self> {
        // Subscribe first. If the request came first, a message between the two steps would be lost.
        let live = client.subscribe(subject.clone()).await.ok()?;
        let asked = format!("{DIRECT_GET}.{STREAM}.{subject}");
        let client = client.clone();
        let kept = async move {
            let request = Request::new().timeout(Some(ANSWER_TIMEOUT));
            // The request fails without JetStream, without permission, or without a stored message. New messages arrive even
            // then.
            let answer = client.send_request(asked, request).await.ok()?;
            answer.status.is_none().then_some(answer)
        };
        Some(Self {
            subject,
            live,
            kept: Some(Box::pin(kept)),
            known: VecDeque::new(),
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the next message. Leaves out a message that arrives a second time. Returns none if the connection is lost. If the
    /// future is dropped, no message is lost.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.any().await?;
            if is_new(&mut self.known, message::id(&message)) {
                return Some(message);
            }
        }
    }

    /// Returns the next message, even if it arrives a second time.
    async fn any(&mut self) -> Option<Message> {
        if let Some(kept) = &mut self.kept {
            let next = tokio::select! {
                // A new message has priority, because the stored message can be the same message.
                biased;
                message = live(&mut self.live) => Some(message),
                kept = kept => kept.map(Some),
            };
            self.kept = None;
            if let Some(next) = next {
                return next;
            }
        }
        live(&mut self.live).await
    }
}

/// Returns the next message from the agent. Ignores answers of a stream, because any user of the account can send such answers to
/// this subject.
async fn live(messages: &mut Subscriber) -> Option<Message> {
    loop {
        let message = messages.next().await?;
        if !message::is_from_stream(&message) {
            return Some(message);
        }
    }
}

/// Remembers the id of a message. Returns whether the id is new. A message without an id always counts as new.
fn is_new(known: &mut VecDeque<String>, id: Option<&str>) -> bool {
    let Some(id) = id else {
        return true;
    };
    if known.iter().any(|one| one == id) {
        return false;
    }
    if known.len() == MAX_KNOWN {
        known.pop_front();
    }
    known.push_back(id.to_owned());
    true
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{MAX_KNOWN, is_new};

    #[test]
    fn a_message_that_arrives_twice_is_detected() {
        let mut known = VecDeque::new();
        let mut is_new = |id| is_new(&mut known, id);
        assert!(is_new(Some("a-1")) && !is_new(Some("a-1")));
        assert!(is_new(None) && is_new(None));
        let more: Vec<String> = (2..2 + MAX_KNOWN)
            .map(|number| format!("a-{number}"))
            .collect();
        assert!(more.iter().all(|id| is_new(Some(id))));
        assert!(!is_new(Some("a-2")));
        // Only the newest ids are remembered.
        assert!(is_new(Some("a-1")));
    }
}
