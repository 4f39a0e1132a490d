//! The sessions that get snapshots. Decides which session gets which snapshot, and in which variant.
//!
//! A stream position tells which events and log lines a session has received. If a session needs more log lines than a snapshot
//! has, its JSON line waits until they are read from the log files. This module does not read files: it returns a [`Reading`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use actix::Recipient;
use actix::dev::SendError;

use crate::messages::{CatchUp, ClientId, Delivery, Subscribe};
use crate::model::{LogMode, Options, ResumeOutcome, Section};
use crate::published::{EncodedSnapshot, LineRequest, LogPiece, Published, StreamPosition, Unread};

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
    /// The sessions that wait for log lines from the log files, by the id of their position. Each entry is a [`Reading`] that has
    /// not ended.
    waiting: HashMap<u64, Vec<Waiting>>,
}

/// A session that waits for log lines from the log files.
struct Waiting {
    client: ClientId,
    /// Whether the session has requested the log lines with [`CatchUp`], or has sent a cursor.
    requested: bool,
}

/// Log lines that sessions wait for, and that must be read from the log files.
pub(super) struct Reading {
    /// The snapshot that the sessions get together with the log lines.
    pub(super) published: Arc<Published>,
    /// The position of the sessions.
    pub(super) since: StreamPosition,
    /// What became of the cursor of the session, if this is its first snapshot and it has sent a cursor.
    resume: Option<ResumeOutcome>,
}

struct Session {
    options: Options,
    deliveries: Recipient<Delivery>,
    /// The number of the first snapshot that was delivered to this session. None before the first snapshot.
    first: Option<u64>,
    /// Whether the JSON line that was delivered last has not all log lines up to its snapshot. The session then requests more as
    /// soon as it has sent this JSON line, and until then gets no other.
    has_more: bool,
    /// Whether the session waits for a reading. Until then it gets no other snapshot, so that the order of its log lines does not
    /// change.
    is_waiting: bool,
}

impl Subscribers {
    /// Returns the number of sessions.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session, and delivers the newest snapshot to it if there is one. If log lines must be read from files first, returns
    /// a reading as [`Self::publish`] does.
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        newest: Option<&Arc<Published>>,
    ) -> io::Result<Option<(Reading, Unread)>> {
        let Subscribe {
            client,
            options,
            deliveries,
        } = subscribe;
        let mut session = Session {
            options,
            deliveries,
            first: None,
            has_more: false,
            is_waiting: false,
        };
        let mut reading = None;
        if let Some(newest) = newest {
            let (is_alive, first) = session.begin(client, newest, &mut self.waiting)?;
            if !is_alive {
                return Ok(None);
            }
            reading = first;
        }
        self.sessions.insert(client, session);
        Ok(reading)
    }

    pub(super) fn unsubscribe(&mut self, client: ClientId) {
        self.sessions.remove(&client);
    }

    /// Delivers a new snapshot to every session for which a snapshot is due. If the mailbox of a session is full, the session
    /// lags. A session that lags skips this snapshot and gets a later snapshot.
    ///
    /// Returns the readings that other sessions wait for, with the log lines to read. [`Self::deliver`] ends a reading. Also returns
    /// the last error.
    pub(super) fn publish(
        &mut self,
        newest: &Arc<Published>,
    ) -> (Vec<(Reading, Unread)>, io::Result<()>) {
        let Self {
            sessions,
            history,
            waiting,
        } = self;
        let seq = newest.seq();
        let mut failed = Ok(());
        let mut reach = 1;
        // Whether log lines after a position must be read from files, by the id of the position.
        let mut needs_reading: HashMap<u64, bool> = HashMap::new();
        let mut readings = Vec::new();
        sessions.retain(|client, session| {
            reach = reach.max(session.reach());
            if session.has_more || session.is_waiting {
                return true;
            }
            let Some(first) = session.first else {
                return match session.begin(*client, newest, waiting) {
                    Ok((is_alive, reading)) => {
                        readings.extend(reading);
                        is_alive
                    }
                    Err(error) => {
                        failed = Err(error);
                        true
                    }
                };
            };
            let every = u64::from(session.options.every.get());
            if !(seq - first).is_multiple_of(every) {
                return true;
            }
            let since = since(history, seq - every);
            let variant = session.options.variant;
            if let Some(since) = since.filter(|_| variant.logs == LogMode::New) {
                let needs_reading = needs_reading.entry(since.id).or_insert_with(|| {
                    let Some(unread) = newest.unread(since) else {
                        return false;
                    };
                    // Another session at this position can already wait for its log lines.
                    if !waiting.contains_key(&since.id) {
                        readings.push((Reading::new(newest, since, None), unread));
                    }
                    true
                });
                if *needs_reading {
                    session.is_waiting = true;
                    waiting.entry(since.id).or_default().push(Waiting {
                        client: *client,
                        requested: false,
                    });
                    return true;
                }
            }
            let request = LineRequest {
                since,
                ..LineRequest::first(variant)
            };
            match newest.line(request) {
                Ok(snapshot) => session.deliver(snapshot).is_ok(),
                Err(error) => {
                    failed = Err(error);
                    true
                }
            }
        });
        history.push_back(newest.since().clone());
        let surplus = history.len().saturating_sub(reach.min(MAX_HISTORY));
        history.drain(..surplus);
        (readings, failed)
    }

    /// Delivers the newest snapshot again to a session that lags. This time, the snapshot contains the events and log lines after
    /// the session's position. If log lines must be read from files first, returns a reading as [`Self::publish`] does.
    pub(super) fn catch_up(
        &mut self,
        behind: &CatchUp,
        newest: &Arc<Published>,
    ) -> io::Result<Option<(Reading, Unread)>> {
        let Some(session) = self.sessions.get_mut(&behind.client) else {
            return Ok(None);
        };
        let since = &behind.since;
        let waits = Waiting {
            client: behind.client,
            requested: true,
        };
        if session.options.variant.logs == LogMode::New {
            match self.waiting.entry(since.id) {
                Entry::Occupied(mut waiting) => {
                    session.is_waiting = true;
                    waiting.get_mut().push(waits);
                    return Ok(None);
                }
                Entry::Vacant(waiting) => {
                    if let Some(unread) = newest.unread(since) {
                        session.is_waiting = true;
                        waiting.insert(vec![waits]);
                        return Ok(Some((Reading::new(newest, since, None), unread)));
                    }
                }
            }
        }
        session.requested(&Reading::new(newest, since, None), None)?;
        Ok(None)
    }

    /// Ends a reading: delivers its snapshot, with the log lines of `piece`, to the sessions that wait for it.
    pub(super) fn deliver(&mut self, reading: &Reading, piece: &LogPiece) -> io::Result<()> {
        let mut delivered = Ok(());
        let waiting = self.waiting.remove(&reading.since.id);
        for Waiting { client, requested } in waiting.unwrap_or_default() {
            let Some(session) = self.sessions.get_mut(&client) else {
                continue;
            };
            session.is_waiting = false;
            let done = if requested {
                session.requested(reading, Some(piece))
            } else {
                session.due(reading, piece)
            };
            if done.is_err() {
                delivered = done;
            }
        }
        delivered
    }

    /// Sends the final delivery to every session.
    pub(super) fn end(&self, end: &Delivery) {
        // `do_send` ignores the limit of the mailbox, because every session must get its final delivery.
        for session in self.sessions.values() {
            session.deliveries.do_send(end.clone());
        }
    }
}

impl Reading {
    fn new(
        published: &Arc<Published>,
        since: &StreamPosition,
        resume: Option<ResumeOutcome>,
    ) -> Self {
        Self {
            published: Arc::clone(published),
            since: since.clone(),
            resume,
        }
    }
}

impl Session {
    /// Returns the number of stream positions that must be stored for this session. This number is the client's option `every`,
    /// because the client gets only every n-th snapshot. Returns 0 if the client asked for neither events nor new log lines,
    /// because its snapshots then need no stream position.
    fn reach(&self) -> usize {
        let Options { variant, every, .. } = &self.options;
        if variant.logs == LogMode::New || variant.sections.has(Section::Events) {
            usize::try_from(every.get()).unwrap_or(usize::MAX)
        } else {
            0
        }
    }

    /// Delivers the first snapshot. Returns whether the session is alive, and a reading if the session must wait for it.
    fn begin(
        &mut self,
        client: ClientId,
        newest: &Arc<Published>,
        waiting: &mut HashMap<u64, Vec<Waiting>>,
    ) -> io::Result<(bool, Option<(Reading, Unread)>)> {
        self.first = Some(newest.seq());
        let mut request = LineRequest::first(self.options.variant);
        let resumed = self.options.resume.take();
        let resumed = resumed.map(|cursor| newest.resume(&cursor));
        if let Some((since, outcome)) = &resumed {
            request.since = since.as_ref();
            request.resume = Some(*outcome);
            // Other clients hardly ever have the same cursor.
            request.lagging = true;
        }
        if let Some(since) = request.since
            && request.variant.logs == LogMode::New
            && !since.begins_logs
            && let Some(unread) = newest.unread(since)
        {
            let requested = true;
            self.is_waiting = true;
            waiting.insert(since.id, vec![Waiting { client, requested }]);
            let reading = Reading::new(newest, since, request.resume);
            return Ok((true, Some((reading, unread))));
        }
        let snapshot = newest.line(request)?;
        // The mailbox of a new session is empty, so `deliver` fails only if the session has ended.
        Ok((self.deliver(snapshot).is_ok(), None))
    }

    /// Delivers a snapshot that the session has requested, or its first snapshot.
    fn requested(&mut self, reading: &Reading, piece: Option<&LogPiece>) -> io::Result<()> {
        let snapshot = reading.published.line(LineRequest {
            variant: self.options.variant,
            since: Some(&reading.since),
            piece,
            resume: reading.resume,
            lagging: true,
        })?;
        self.has_more = snapshot.more;
        // `do_send` ignores the limit of the mailbox. This is safe, because a session sends one request and then waits.
        self.deliveries.do_send(Delivery::Snapshot(snapshot));
        Ok(())
    }

    /// Delivers a snapshot that is due, after its log lines were read.
    fn due(&mut self, reading: &Reading, piece: &LogPiece) -> io::Result<()> {
        let snapshot = reading.published.line(LineRequest {
            variant: self.options.variant,
            since: Some(&reading.since),
            piece: Some(piece),
            resume: None,
            lagging: false,
        })?;
        // If the session has ended, it unsubscribes itself.
        let _ = self.deliver(snapshot);
        Ok(())
    }

    /// Delivers a snapshot. Fails if the session has ended. Does not fail if the mailbox is full.
    fn deliver(&mut self, snapshot: Arc<EncodedSnapshot>) -> Result<(), ()> {
        let more = snapshot.more;
        match self.deliveries.try_send(Delivery::Snapshot(snapshot)) {
            Ok(()) => {
                self.has_more = more;
                Ok(())
            }
            Err(SendError::Full(_)) => Ok(()),
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
