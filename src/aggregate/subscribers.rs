//! The sessions that get snapshots. Decides which session gets which snapshot, and in which variant.
//!
//! A stream position tells which events and log lines a session has received. If a session needs more log lines than a snapshot
//! has, its JSON line waits until they are read from the log files. This module does not read files: it returns a [`Reading`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use actix::Recipient;
use actix::dev::SendError;

use super::history::{HistoryRing, Progress};
use super::publications::Publications;
use super::readings::{Reading, ReadingKey};
use crate::messages::{CatchUp, ClientId, Delivery, HistorySent, Subscribe};
use crate::model::{LogMode, Options, Section};
use crate::published::{
    EncodedSnapshot, LineRequest, LogPiece, Published, StreamPosition, Unread, history_line,
};

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
    /// The sessions that wait for log lines from the log files. Each entry is a [`Reading`] that has not ended.
    waiting: HashMap<ReadingKey, Vec<Waiting>>,
    publications: Publications,
}

/// A session that waits for log lines from the log files.
struct Waiting {
    client: ClientId,
    /// Whether the session has requested the log lines with [`CatchUp`], or has sent a cursor.
    requested: bool,
}

struct Session {
    options: Options,
    deliveries: Recipient<Delivery>,
    /// The number of the first snapshot that was delivered to this session. None before the first snapshot.
    first: Option<u64>,
    /// Whether the JSON line that was delivered last has not all log lines up to its snapshot. The session then requests more as
    /// soon as it has sent this JSON line, and until then gets no other.
    has_more: bool,
    /// Whether the session waits for a reading, or for the end of the history. Until then it gets no other snapshot, so that the order of
    /// its log lines does not change.
    is_waiting: bool,
    /// How much of the history the session has received. None after the end, and for a session that gets no history.
    history: Option<Progress>,
    /// The position after the JSON line that was delivered last.
    position: Option<StreamPosition>,
    /// Whether this position is newer than the snapshot of the JSON line. Otherwise, it is the position of that snapshot.
    is_between: bool,
}

impl Subscribers {
    /// Returns whether a session gets new log lines between two snapshots.
    pub(super) fn follow_logs(&self) -> bool {
        let follows =
            |session: &Session| session.is_live() && session.options.variant.logs == LogMode::New;
        self.sessions.values().any(follows)
    }

    /// Returns whether a session gets this section.
    pub(super) fn want(&self, section: Section) -> bool {
        let wants = |session: &Session| session.options.variant.sections.has(section);
        self.sessions.values().any(wants)
    }

    /// Returns whether there are live sessions.
    pub(super) fn have_live(&self) -> bool {
        self.sessions.values().any(Session::is_live)
    }

    /// Returns the snapshots from which sessions get their log lines and events.
    pub(super) fn publications(&self) -> &Publications {
        &self.publications
    }

    /// Returns the number of sessions.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session, and delivers the newest snapshot to it if there is one. If log lines must be read from files first, returns
    /// a reading as [`Self::publish`] does.
    ///
    /// If the session gets the history, delivers the first line of it. The newest snapshot comes after the last line.
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        history: &HistoryRing,
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
            history: None,
            position: None,
            is_between: false,
        };
        if let Some(period) = session.options.history {
            let cursor = session.options.resume.as_ref();
            let newest = self.publications.newest(false);
            let after = cursor
                .zip(newest)
                .and_then(|(it, newest)| newest.time_of(it));
            session.history = Some(history.begin(period, after, Instant::now()));
        }
        self.sessions.insert(client, session);
        self.advance(client, history)
    }

    /// Delivers the next line of the history to a session that has sent the previous line. After the last line, delivers the newest
    /// snapshot, as [`Self::subscribe`] does.
    pub(super) fn history_sent(
        &mut self,
        HistorySent { client }: HistorySent,
        history: &HistoryRing,
    ) -> io::Result<Option<(Reading, Unread)>> {
        let session = self.sessions.get(&client);
        if session.is_none_or(|session| session.history.is_none()) {
            return Ok(None);
        }
        self.advance(client, history)
    }

    /// Delivers the next line of the history, or the first snapshot, to a session that has no snapshot yet.
    fn advance(
        &mut self,
        client: ClientId,
        history: &HistoryRing,
    ) -> io::Result<Option<(Reading, Unread)>> {
        let Some(session) = self.sessions.get_mut(&client) else {
            return Ok(None);
        };
        let next = session.history.as_mut().and_then(|at| history.next(at));
        if let Some(next) = next {
            let line = history_line(&next, session.options.variant.encoding)?;
            session.is_waiting = true;
            // `do_send` ignores the limit of the mailbox. This is safe, because a session gets one line and then answers.
            session.deliveries.do_send(Delivery::History(line));
            return Ok(None);
        }
        session.history = None;
        session.is_waiting = false;
        // The cursor of a live client can be newer than the newest snapshot.
        let with_news = session.options.resume.is_some();
        let Some(newest) = self.publications.newest(with_news) else {
            return Ok(None);
        };
        let (is_alive, reading) = session.begin(client, newest, &mut self.waiting)?;
        if !is_alive {
            self.sessions.remove(&client);
        }
        Ok(reading.filter(|_| is_alive))
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
            publications,
        } = self;
        let seq = newest.seq();
        let reads_previous = |session: &Session| session.is_reading_up_to(seq - 1);
        let keep_previous = sessions.values().any(reads_previous);
        publications.add(Arc::clone(newest), keep_previous);
        let mut failed = Ok(());
        let mut reach = 1;
        let mut due = DueLines::new(newest, false, waiting);
        sessions.retain(|client, session| {
            reach = reach.max(session.reach());
            if session.has_more || session.is_waiting {
                return true;
            }
            let Some(first) = session.first else {
                return match session.begin(*client, newest, due.waiting) {
                    Ok((is_alive, reading)) => {
                        due.readings.extend(reading);
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
            let own = session.position.clone();
            let own = own.filter(|_| session.is_between_snapshots());
            let since = own.as_ref().or_else(|| since(history, seq - every));
            let due = due.line_of(*client, session, since);
            due.unwrap_or_else(|error| {
                failed = Err(error);
                true
            })
        });
        let readings = due.readings;
        history.push_back(newest.since().clone());
        let surplus = history.len().saturating_sub(reach.min(MAX_HISTORY));
        history.drain(..surplus);
        (readings, failed)
    }

    /// Delivers the events and log lines after the newest snapshot to every live session. Returns readings as [`Self::publish`] does.
    pub(super) fn publish_news(
        &mut self,
        newest: &Arc<Published>,
    ) -> (Vec<(Reading, Unread)>, io::Result<()>) {
        let Self {
            sessions,
            waiting,
            publications,
            ..
        } = self;
        publications.add_news(Arc::clone(newest));
        let mut failed = Ok(());
        let mut due = DueLines::new(newest, true, waiting);
        sessions.retain(|client, session| {
            let is_due = session.is_live() && !session.has_more && !session.is_waiting;
            let Some(since) = session.position.clone().filter(|_| is_due) else {
                return true;
            };
            let due = due.line_of(*client, session, Some(&since));
            due.unwrap_or_else(|error| {
                failed = Err(error);
                true
            })
        });
        (due.readings, failed)
    }

    /// Delivers a snapshot again to a session that lags. This time, the snapshot contains the events and log lines after the
    /// session's position. If log lines must be read from files first, returns a reading as [`Self::publish`] does.
    pub(super) fn catch_up(&mut self, behind: &CatchUp) -> io::Result<Option<(Reading, Unread)>> {
        let Some(session) = self.sessions.get_mut(&behind.client) else {
            return Ok(None);
        };
        let CatchUp { since, is_news, .. } = behind;
        let is_news = *is_news && session.is_live();
        let max_line = session.options.variant.max_line;
        let (publications, with_news) = (&self.publications, session.is_between_snapshots());
        let Some(newest) = publications.newest(with_news) else {
            return Ok(None);
        };
        let newest = Reading::new(newest, since, is_news, max_line);
        if session.options.variant.logs != LogMode::New {
            session.requested(&newest, None, publications)?;
            return Ok(None);
        }
        let waits = Waiting {
            client: behind.client,
            requested: true,
        };
        let waiting = match self.waiting.entry(newest.key()) {
            Entry::Occupied(mut waiting) => {
                session.is_waiting = true;
                waiting.get_mut().push(waits);
                return Ok(None);
            }
            Entry::Vacant(waiting) => waiting,
        };
        let unfinished = publications.unfinished(since, with_news);
        let unfinished =
            unfinished.map(|previous| Reading::new(previous, since, is_news, max_line));
        for reading in unfinished.iter().chain([&newest]) {
            let line = reading.line_of(session.options.variant);
            if let Some(line) = reading.published.cached_line(line) {
                session.answer(line, reading, publications);
                return Ok(None);
            }
            if let Some(unread) = reading.published.unread(since, max_line) {
                session.is_waiting = true;
                waiting.insert(vec![waits]);
                return Ok(Some((reading.clone(), unread)));
            }
        }
        session.requested(&newest, None, publications)?;
        Ok(None)
    }

    /// Ends a reading: delivers its snapshot, with the log lines of `piece`, to the sessions that wait for it.
    pub(super) fn deliver(&mut self, reading: &Reading, piece: &LogPiece) -> io::Result<()> {
        let mut delivered = Ok(());
        let waiting = self.waiting.remove(&reading.key());
        for Waiting { client, requested } in waiting.unwrap_or_default() {
            let Some(session) = self.sessions.get_mut(&client) else {
                continue;
            };
            session.is_waiting = false;
            let done = if requested {
                session.requested(reading, Some(piece), &self.publications)
            } else {
                session.due(reading, piece, &self.publications)
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

/// Delivers one publication to many sessions, and collects the readings that other sessions wait for.
struct DueLines<'s> {
    published: &'s Arc<Published>,
    is_news: bool,
    waiting: &'s mut HashMap<ReadingKey, Vec<Waiting>>,
    /// Whether log lines must be read from files.
    needs_reading: HashMap<ReadingKey, bool>,
    readings: Vec<(Reading, Unread)>,
}

impl<'s> DueLines<'s> {
    fn new(
        published: &'s Arc<Published>,
        is_news: bool,
        waiting: &'s mut HashMap<ReadingKey, Vec<Waiting>>,
    ) -> Self {
        Self {
            published,
            is_news,
            waiting,
            needs_reading: HashMap::new(),
            readings: Vec::new(),
        }
    }

    /// Delivers the JSON line after the position `since` to a session. If log lines must be read from files first, the session
    /// waits. Returns whether the session is alive.
    fn line_of(
        &mut self,
        client: ClientId,
        session: &mut Session,
        since: Option<&StreamPosition>,
    ) -> io::Result<bool> {
        let (published, is_news) = (self.published, self.is_news);
        let variant = session.options.variant;
        if let Some(since) = since.filter(|_| variant.logs == LogMode::New) {
            let reading = Reading::new(published, since, is_news, variant.max_line);
            let key = reading.key();
            let (readings, waiting) = (&mut self.readings, &mut *self.waiting);
            let needs_reading = self.needs_reading.entry(key).or_insert_with(|| {
                let Some(unread) = published.unread(since, key.max_line) else {
                    return false;
                };
                // Another session at this position can already wait for its log lines.
                if !waiting.contains_key(&key) {
                    readings.push((reading, unread));
                }
                true
            });
            if *needs_reading {
                session.is_waiting = true;
                let requested = false;
                let waits = Waiting { client, requested };
                waiting.entry(key).or_default().push(waits);
                return Ok(true);
            }
        }
        let line = published.line(LineRequest {
            since,
            is_news,
            ..LineRequest::first(variant)
        })?;
        Ok((is_news && line.is_empty) || session.deliver(line, published).is_ok())
    }
}

impl Session {
    fn is_live(&self) -> bool {
        self.options.live
    }

    /// Returns whether the session can have events and log lines that came after the newest snapshot.
    fn is_between_snapshots(&self) -> bool {
        self.is_live() || self.is_between
    }

    /// Returns whether the session has received a part of the log lines up to the snapshot `seq`, or waits for the first part.
    fn is_reading_up_to(&self, seq: u64) -> bool {
        let position = self.position.as_ref().map_or(0, |position| position.seq);
        (self.has_more && position == seq) || (self.is_waiting && position + 1 >= seq)
    }

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
        waiting: &mut HashMap<ReadingKey, Vec<Waiting>>,
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
            && let Some(unread) = newest.unread(since, request.variant.max_line)
        {
            let requested = true;
            self.is_waiting = true;
            let mut reading = Reading::new(newest, since, false, request.variant.max_line);
            reading.resume = request.resume;
            waiting.insert(reading.key(), vec![Waiting { client, requested }]);
            return Ok((true, Some((reading, unread))));
        }
        let snapshot = newest.line(request)?;
        // The mailbox of a new session is empty, so `deliver` fails only if the session has ended.
        Ok((self.deliver(snapshot, newest).is_ok(), None))
    }

    /// Delivers a snapshot that the session has requested, or its first snapshot.
    fn requested(
        &mut self,
        reading: &Reading,
        piece: Option<&LogPiece>,
        publications: &Publications,
    ) -> io::Result<()> {
        let line = reading.published.line(LineRequest {
            piece,
            ..reading.line_of(self.options.variant)
        })?;
        self.answer(line, reading, publications);
        Ok(())
    }

    /// Delivers a JSON line that the session has requested.
    fn answer(
        &mut self,
        line: Arc<EncodedSnapshot>,
        reading: &Reading,
        publications: &Publications,
    ) {
        let snapshot = self.continued(line, &reading.published, publications);
        self.has_more = snapshot.more;
        self.position = Some(snapshot.since.clone());
        self.is_between = reading.published.has_news();
        // `do_send` ignores the limit of the mailbox. This is safe, because a session sends one request and then waits.
        self.deliveries.do_send(Delivery::Snapshot(snapshot));
    }

    /// Delivers a snapshot that is due, after its log lines were read.
    fn due(
        &mut self,
        reading: &Reading,
        piece: &LogPiece,
        publications: &Publications,
    ) -> io::Result<()> {
        let snapshot = reading.published.line(LineRequest {
            piece: Some(piece),
            lagging: false,
            ..reading.line_of(self.options.variant)
        })?;
        let snapshot = self.continued(snapshot, &reading.published, publications);
        if !(snapshot.is_news && snapshot.is_empty && !snapshot.more) {
            // If the session has ended, it unsubscribes itself.
            let _ = self.deliver(snapshot, &reading.published);
        }
        Ok(())
    }

    /// Returns a JSON line of `published`. If a newer snapshot came while its log lines were read, the session must request the newer
    /// log lines, because it did not get the newer snapshot.
    fn continued(
        &self,
        line: Arc<EncodedSnapshot>,
        published: &Arc<Published>,
        publications: &Publications,
    ) -> Arc<EncodedSnapshot> {
        let newest = publications.newest(self.is_between_snapshots());
        let is_newest = newest.is_none_or(|newest| Arc::ptr_eq(newest, published));
        // A session that could not read all log lines waits for the next snapshot.
        let is_at_end = line.since.id == published.since().id;
        if line.more || is_newest || !is_at_end {
            return line;
        }
        Arc::new(EncodedSnapshot {
            more: true,
            ..(*line).clone()
        })
    }

    /// Delivers a snapshot. Fails if the session has ended. Does not fail if the mailbox is full.
    fn deliver(&mut self, snapshot: Arc<EncodedSnapshot>, of: &Published) -> Result<(), ()> {
        let (more, position) = (snapshot.more, snapshot.since.clone());
        match self.deliveries.try_send(Delivery::Snapshot(snapshot)) {
            Ok(()) => {
                self.has_more = more;
                self.position = Some(position);
                self.is_between = of.has_news();
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
