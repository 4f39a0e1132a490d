//! The sessions that get snapshots. Decides which session gets which snapshot, and in which variant.
//!
//! A stream position tells which events and log lines a session has received. Each snapshot has a stream position.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use actix::Recipient;
use actix::dev::SendError;

use crate::messages::{CatchUp, ClientId, Delivery, Subscribe};
use crate::model::{LogMode, Options, Section};
use crate::published::{EncodedSnapshot, Published, StreamPosition};

/// Limit on the number of stored stream positions. If the previous snapshot of a session is older, the session requests the
/// missing events and log lines with [`CatchUp`].
pub(super) const MAX_HISTORY: usize = 64;

/// All sessions, and the stream positions of the newest snapshots.
#[derive(Default)]
pub(super) struct Subscribers {
    sessions: HashMap<ClientId, Session>,
    /// The stream positions of the newest snapshots, oldest first. The next snapshot of a session contains the events and log
    /// lines after one of these positions.
    history: VecDeque<StreamPosition>,
}

struct Session {
    options: Options,
    deliveries: Recipient<Delivery>,
    /// The number of the first snapshot that was delivered to this session. None before the first snapshot.
    first: Option<u64>,
}

impl Subscribers {
    /// Returns the number of sessions.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session, and delivers the newest snapshot to it if there is one.
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
            // The mailbox of a new session is empty, so `deliver` fails only if the session has ended.
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

    /// Delivers a new snapshot to every session for which a snapshot is due. If the mailbox of a session is full, the session
    /// lags. A session that lags skips this snapshot and gets a later snapshot.
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
        let surplus = history.len().saturating_sub(reach.min(MAX_HISTORY));
        history.drain(..surplus);
        failed
    }

    /// Delivers the newest snapshot again to a session that lags. This time, the snapshot contains all events and log lines after
    /// the session's previous snapshot.
    pub(super) fn catch_up(&mut self, behind: &CatchUp, newest: &Published) -> io::Result<()> {
        if let Some(session) = self.sessions.get(&behind.client) {
            let variant = session.options.variant;
            let since = Some(&behind.since);
            let snapshot = newest.line(variant, since, true)?;
            // `do_send` ignores the limit of the mailbox. This is safe, because a session sends one request and then waits.
            session.deliveries.do_send(Delivery::Snapshot(snapshot));
        }
        Ok(())
    }

    /// Sends the final delivery to every session.
    pub(super) fn end(&self, end: &Delivery) {
        // `do_send` ignores the limit of the mailbox, because every session must get its final delivery.
        for session in self.sessions.values() {
            session.deliveries.do_send(end.clone());
        }
    }
}

impl Session {
    /// Returns the number of stream positions that must be stored for this session. This number is the client's option `every`,
    /// because the client gets only every n-th snapshot. Returns 0 if the client asked for neither events nor new log lines,
    /// because its snapshots then need no stream position.
    fn reach(&self) -> usize {
        let Options { variant, every } = self.options;
        if variant.logs == LogMode::New || variant.sections.has(Section::Events) {
            usize::try_from(every.get()).unwrap_or(usize::MAX)
        } else {
            0
        }
    }

    /// Delivers a snapshot. Fails if the session has ended. Does not fail if the mailbox is full.
    fn deliver(&self, snapshot: Arc<EncodedSnapshot>) -> Result<(), ()> {
        match self.deliveries.try_send(Delivery::Snapshot(snapshot)) {
            Ok(()) | Err(SendError::Full(_)) => Ok(()),
            Err(SendError::Closed(_)) => Err(()),
        }
    }
}

/// Returns the stream position of the snapshot `seq`. If that position is no longer stored, returns the oldest stored position.
fn since(history: &VecDeque<StreamPosition>, seq: u64) -> Option<&StreamPosition> {
    let oldest = history.front()?;
    let at = seq.saturating_sub(oldest.seq);
    history.get(usize::try_from(at).ok()?)
}
