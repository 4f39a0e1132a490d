//! Who is sent snapshots, and which.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use actix::Recipient;
use actix::dev::SendError;

use crate::messages::{CatchUp, ClientId, Delivery, Subscribe};
use crate::model::{LogMode, Options, Section};
use crate::published::{EncodedSnapshot, Published, StreamPosition};

/// The most snapshots back that it is known what they have said. A session that was sent an
/// older one last says so itself.
pub(super) const MOST_HISTORY: usize = 64;

/// All sessions, and what they may follow on.
#[derive(Default)]
pub(super) struct Subscribers {
    sessions: HashMap<ClientId, Session>,
    /// Of the newest snapshots, oldest first: as many as a session's next one may follow on.
    history: VecDeque<StreamPosition>,
}

struct Session {
    options: Options,
    deliveries: Recipient<Delivery>,
    /// The first snapshot that it was sent; none before.
    first: Option<u64>,
}

impl Subscribers {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Takes in a session, and delivers the newest snapshot to it, if there is one.
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        newest: Option<&Published>,
    ) -> io::Result<()> {
        let Subscribe {
            client,
            options,
            deliveries,
        } = subscribe;
        let mut session = Session {
            options,
            deliveries,
            first: None,
        };
        if let Some(newest) = newest {
            let snapshot = newest.line(options.variant, None, false)?;
            session.first = Some(newest.seq());
            // A session's mailbox is empty when it subscribes.
            if session.deliver(snapshot).is_err() {
                return Ok(());
            }
        }
        self.sessions.insert(client, session);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, client: ClientId) {
        self.sessions.remove(&client);
    }

    /// Delivers a new snapshot to every session that it is meant for. A full mailbox means that
    /// the session is behind: it will get a later snapshot instead.
    pub(super) fn publish(&mut self, newest: &Published) -> io::Result<()> {
        let Self { sessions, history } = self;
        let seq = newest.seq();
        let mut failed = Ok(());
        let mut reach = 1;
        sessions.retain(|_, session| {
            reach = reach.max(session.reach());
            let since = match session.first {
                Some(first) => {
                    let every = u64::from(session.options.every.get());
                    if !(seq - first).is_multiple_of(every) {
                        return true;
                    }
                    since(history, seq - every)
                }
                None => None,
            };
            session.first.get_or_insert(seq);
            match newest.line(session.options.variant, since, false) {
                Ok(snapshot) => session.deliver(snapshot).is_ok(),
                Err(error) => {
                    failed = Err(error);
                    true
                }
            }
        });
        history.push_back(newest.since());
        let surplus = history.len().saturating_sub(reach.min(MOST_HISTORY));
        history.drain(..surplus);
        failed
    }

    /// Delivers the newest snapshot to a session that missed some.
    pub(super) fn catch_up(&mut self, behind: &CatchUp, newest: &Published) -> io::Result<()> {
        if let Some(session) = self.sessions.get(&behind.client) {
            let variant = session.options.variant;
            let since = Some(&behind.since);
            let snapshot = newest.line(variant, since, true)?;
            // Past a full mailbox: a session asks once, and waits.
            session.deliveries.do_send(Delivery::Snapshot(snapshot));
        }
        Ok(())
    }

    /// Tells every session to end.
    pub(super) fn end(&self, end: &Delivery) {
        // Past a full mailbox, too: this is the last delivery.
        for session in self.sessions.values() {
            session.deliveries.do_send(end.clone());
        }
    }
}

impl Session {
    /// How many snapshots back the one is that its next one follows on.
    fn reach(&self) -> usize {
        let Options { variant, every } = self.options;
        if variant.logs == LogMode::New || variant.sections.has(Section::Events) {
            usize::try_from(every.get()).unwrap_or(usize::MAX)
        } else {
            0
        }
    }

    /// Fails where the session is gone.
    fn deliver(&self, snapshot: Arc<EncodedSnapshot>) -> Result<(), ()> {
        match self.deliveries.try_send(Delivery::Snapshot(snapshot)) {
            Ok(()) | Err(SendError::Full(_)) => Ok(()),
            Err(SendError::Closed(_)) => Err(()),
        }
    }
}

/// What a snapshot has said of the logs, or the oldest that is known of those after it.
fn since(history: &VecDeque<StreamPosition>, seq: u64) -> Option<&StreamPosition> {
    let oldest = history.front()?;
    let at = seq.saturating_sub(oldest.seq);
    history.get(usize::try_from(at).ok()?)
}
