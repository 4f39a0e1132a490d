//! A container's log: the newest piece that is kept of it, and each one that comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, Message, Request, Subscriber};
use futures_util::StreamExt;

use super::message;
use crate::publish::nats::subject::STREAM;

/// Where the newest message of a subject is asked for that a stream keeps.
pub(super) const KEPT: &str = "$JS.API.DIRECT.GET";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many of the newest pieces are told from those that come again: an agent repeats what it had no answer for, and what is kept
/// may be what comes, too.
const KNOWN: usize = 64;

/// A log that is followed.
pub(super) struct Log {
    subject: String,
    live: Subscriber,
    /// The newest piece that is kept, until it has come, or something newer has.
    kept: Option<Pin<Box<dyn Future<Output = Option<Message>>>>>,
    /// The newest pieces, by their ids.
    known: VecDeque<String>,
}

impl Log {
    /// Follows it from now on; nothing where the connection is lost.
    pub(super) async fn follow(client: &Client, subject: String) -> Option<Self> {
        // First, so that none comes between.
        let live = client.subscribe(subject.clone()).await.ok()?;
        let asked = format!("{KEPT}.{STREAM}.{subject}");
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
            known: VecDeque::new(),
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The next piece; nothing once the connection is lost. Nothing is lost where it is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.any().await?;
            if is_new(&mut self.known, message::id(&message)) {
                return Some(message);
            }
        }
    }

    /// The next one, whether it has come before or not.
    async fn any(&mut self) -> Option<Message> {
        if let Some(kept) = &mut self.kept {
            let next = tokio::select! {
                // What comes may be what is kept.
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

/// The next message that is no answer of a stream's, which somebody else may have had sent here.
async fn live(messages: &mut Subscriber) -> Option<Message> {
    loop {
        let message = messages.next().await?;
        if !message::is_kept(&message) {
            return Some(message);
        }
    }
}

/// Whether a piece has not come before; one without an id is always new.
fn is_new(known: &mut VecDeque<String>, id: Option<&str>) -> bool {
    let Some(id) = id else {
        return true;
    };
    if known.iter().any(|one| one == id) {
        return false;
    }
    if known.len() == KNOWN {
        known.pop_front();
    }
    known.push_back(id.to_owned());
    true
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{KNOWN, is_new};

    #[test]
    fn a_piece_that_comes_again_is_known() {
        let mut known = VecDeque::new();
        let mut is_new = |id| is_new(&mut known, id);
        assert!(is_new(Some("a-1")) && !is_new(Some("a-1")));
        assert!(is_new(None) && is_new(None));
        let more: Vec<String> = (2..2 + KNOWN).map(|number| format!("a-{number}")).collect();
        assert!(more.iter().all(|id| is_new(Some(id))));
        assert!(!is_new(Some("a-2")));
        // No more are kept.
        assert!(is_new(Some("a-1")));
    }
}
