//! The cursor: the position of a client in the events and in the logs, as text. A client stores the cursor of the newest line that
//! it has processed. When it connects again, it sends the cursor, and the agent continues there.
//!
//! A cursor stays valid after a restart of the agent. Therefore it has the places in the log files, and not only numbers. The agent
//! stores no cursors.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ContainerEvent, Events, FileOffset, FilePlace, LogPosition, Positions};
use crate::hash::fnv;

/// The version of the format.
const VERSION: u8 = 1;
/// Number of bytes of a container's id in a cursor. The id itself has 32 bytes.
const ID_BYTES: usize = 6;
/// Limit on the logs in a cursor. If there are more, the cursor has those with the lowest ids, and is not complete.
const MAX_LOGS: usize = 2048;

/// Limit on the numbers of lines and the offsets in a cursor, so that sums cannot overflow.
const MAX_NUMBER: u64 = 1 << 60;

type ShortId = [u8; ID_BYTES];

/// The position of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Identifies the host.
    host: u32,
    /// Identifies the run of the agent that made the cursor.
    run: u64,
    /// The number of events up to the position, in that run.
    events: u64,
    /// The time of the newest event up to the position, or else of the snapshot, in nanoseconds since 1970.
    time: u64,
    /// Identifies the newest event up to the position. 0 if there is none.
    event: u32,
    /// The positions in the logs. None if the client has not asked for each log line once. The map has the hash of the standard library,
    /// because clients choose the keys.
    logs: Option<HashMap<ShortId, LogPosition>>,
    /// Whether `logs` has all logs of the client. A log that is missing in a complete cursor was created later.
    is_complete: bool,
}

/// The agent that makes and reads cursors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorOwner {
    /// The host's name.
    pub host: String,
    /// Identifies the run of the agent.
    pub run: u64,
}

/// The cursor that a client has sent, for the logs whose position is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    cursor: Arc<Cursor>,
    /// Whether this run of the agent has made the cursor. If not, the numbers of lines in the cursor have no meaning.
    same_run: bool,
}

/// What became of the cursor that a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResumeOutcome {
    /// The stream continues at the cursor.
    Continued,
    /// The cursor is from another host. The stream begins as for a client without a cursor.
    OtherHost,
}

impl ResumeOutcome {
    /// Returns the value of the field `agent.resume`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Continued => "continued",
            Self::OtherHost => "other_host",
        }
    }
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotACursor;

impl fmt::Display for NotACursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor")
    }
}

impl Cursor {
    /// Makes the cursor of a position without logs. `seen` is the number of events up to the position. `events` are the newest
    /// events, and `now` is the time of the snapshot in nanoseconds since 1970.
    #[must_use]
    pub fn of_events(owner: &CursorOwner, seen: u64, events: &Events, now: u64) -> Self {
        let newest = events.before(seen);
        Self {
            host: fnv(owner.host.as_bytes()),
            run: owner.run,
            events: seen,
            time: newest.map_or(now, nanoseconds),
            event: newest.map_or(0, identity),
            logs: None,
            is_complete: true,
        }
    }

    /// Adds the positions in the logs. `resumed` has the positions of logs that are not in `positions`.
    #[must_use]
    pub fn with_logs(self, positions: &Positions, resumed: Option<&Resumed>) -> Self {
        let mut logs: HashMap<ShortId, LogPosition> = HashMap::new();
        if let Some(resumed) = resumed {
            let ids = resumed.cursor.logs.iter().flat_map(HashMap::keys);
            logs.extend(ids.filter_map(|id| Some((*id, resumed.position_of(*id)?))));
        }
        let known = positions.iter();
        logs.extend(known.filter_map(|(id, at)| Some((short(id)?, at.clone()))));
        let is_complete = logs.len() <= MAX_LOGS && resumed.is_none_or(|it| it.cursor.is_complete);
        Self {
            logs: Some(logs),
            is_complete,
            ..self
        }
    }

    /// Returns the time of the position in milliseconds since 1970: the time of the newest event up to the position, or else of the
    /// snapshot. None if the cursor is from another host.
    #[must_use]
    pub fn milliseconds(&self, owner: &CursorOwner) -> Option<u64> {
        (!self.is_of_other_host(owner)).then_some(self.time / 1_000_000)
    }

    /// Returns the cursor as text. Its letters are those of base64url.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.host.to_le_bytes());
        bytes.extend_from_slice(&self.run.to_le_bytes());
        push(&mut bytes, self.events);
        bytes.extend_from_slice(&self.time.to_le_bytes());
        bytes.extend_from_slice(&self.event.to_le_bytes());
        bytes.push(match (&self.logs, self.is_complete) {
            (None, _) => 0,
            (Some(_), true) => 1,
            (Some(_), false) => 2,
        });
        let mut logs: Vec<_> = self.logs.iter().flatten().collect();
        logs.sort_unstable_by_key(|(id, _)| **id);
        for (id, position) in logs.into_iter().take(MAX_LOGS) {
            bytes.extend_from_slice(id);
            push(&mut bytes, position.line);
            match position.place.as_deref() {
                None => bytes.push(0),
                Some(FilePlace { at, line }) => {
                    bytes.push(1);
                    push(&mut bytes, *line);
                    push(&mut bytes, at.offset);
                    bytes.extend_from_slice(&at.fingerprint.to_le_bytes());
                }
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text of a cursor.
    ///
    /// # Errors
    /// Fails if the text is not a cursor.
    pub fn parse(text: &str) -> Result<Self, NotACursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        Self::read(&bytes).ok_or(NotACursor)
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        if take::<1>(from)? != [VERSION] {
            return None;
        }
        let mut cursor = Self {
            host: u32::from_le_bytes(take(from)?),
            run: u64::from_le_bytes(take(from)?),
            events: pull(from)?,
            time: u64::from_le_bytes(take(from)?),
            event: u32::from_le_bytes(take(from)?),
            logs: None,
            is_complete: true,
        };
        match take(from)? {
            [0] => {}
            [kind @ 1..=2] => {
                cursor.logs = Some(HashMap::new());
                cursor.is_complete = kind == 1;
            }
            [_] => return None,
        }
        while !from.is_empty() {
            let logs = cursor.logs.as_mut()?;
            let id = take(from)?;
            let line = pull(from)?;
            let place = match take(from)? {
                [0] => None,
                [1] => Some(FilePlace {
                    line: pull(from)?,
                    at: FileOffset {
                        inode: 0,
                        offset: pull(from)?,
                        fingerprint: u32::from_le_bytes(take(from)?),
                    },
                }),
                [_] => return None,
            };
            let offset = place.map_or(0, |place| place.at.offset);
            let is_possible =
                line.max(offset) < MAX_NUMBER && place.is_none_or(|place| place.line <= line);
            if !is_possible || logs.len() == MAX_LOGS {
                return None;
            }
            let place = place.map(Into::into);
            logs.insert(id, LogPosition { line, place });
        }
        Some(cursor)
    }

    /// Returns the number of events up to the cursor. `events` are the newest events in this run of the agent.
    #[must_use]
    pub fn events_in(&self, events: &Events, owner: &CursorOwner) -> u64 {
        if self.run == owner.run {
            return self.events.min(events.end());
        }
        let first = events.end() - events.newest().len() as u64;
        let is_last = |event: &ContainerEvent| {
            nanoseconds(event) == self.time && identity(event) == self.event
        };
        let seen = match events.newest().rposition(is_last) {
            Some(last) => last + 1,
            None => events
                .newest()
                .take_while(|event| nanoseconds(event) <= self.time)
                .count(),
        };
        first + seen as u64
    }

    /// Whether the cursor is from another host.
    #[must_use]
    pub fn is_of_other_host(&self, owner: &CursorOwner) -> bool {
        self.host != fnv(owner.host.as_bytes())
    }

    /// Prepares to continue the logs at the cursor. Returns none if the cursor has no positions in logs.
    #[must_use]
    pub fn resumed(self: &Arc<Self>, owner: &CursorOwner) -> Option<Resumed> {
        self.logs.is_some().then(|| Resumed {
            same_run: self.run == owner.run,
            cursor: Arc::clone(self),
        })
    }
}

impl Resumed {
    /// Returns the position of the client in a container's log. If the log is not in a complete cursor, and the container was created
    /// later, this is the beginning of the log. None if the position is not known. `created` is the time when the container was
    /// created, in Unix seconds.
    #[must_use]
    pub fn position(&self, container: &str, created: i64) -> Option<LogPosition> {
        let known = short(container).and_then(|id| self.position_of(id));
        let is_new =
            u64::try_from(created).is_ok_and(|created| created >= self.cursor.time / 1_000_000_000);
        known.or_else(|| (is_new && self.cursor.is_complete).then(LogPosition::beginning))
    }

    fn position_of(&self, id: ShortId) -> Option<LogPosition> {
        let position = self.cursor.logs.as_ref()?.get(&id)?;
        if self.same_run {
            return Some(position.clone());
        }
        Some(match position.place.as_deref() {
            Some(place) => LogPosition {
                line: position.line - place.line,
                place: Some(FilePlace { line: 0, ..*place }.into()),
            },
            None => LogPosition::default(),
        })
    }
}

fn short(container: &str) -> Option<ShortId> {
    let digits = container.get(..2 * ID_BYTES)?;
    let mut id = [0; ID_BYTES];
    for (byte, place) in id.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(id)
}

fn identity(event: &ContainerEvent) -> u32 {
    // All types of the model can be encoded.
    fnv(&serde_json::to_vec(event).unwrap_or_default())
}

fn nanoseconds(event: &ContainerEvent) -> u64 {
    let since_1970 = event.time.0.duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Appends a number in pieces of seven bits, the lowest first (LEB128).
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(from)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::{Cursor, CursorOwner, ID_BYTES, NotACursor};
    use crate::model::{
        ContainerEvent, EventAction, Events, FileOffset, FilePlace, LogPosition, Positions,
        Timestamp,
    };

    fn owner(run: u64) -> CursorOwner {
        CursorOwner {
            host: "web-1".to_owned(),
            run,
        }
    }

    fn event(nanoseconds: u64, container: &str) -> ContainerEvent {
        ContainerEvent {
            time: Timestamp(UNIX_EPOCH + Duration::from_nanos(nanoseconds)),
            action: EventAction::Start,
            container: container.to_owned(),
            id: "0123456789ab".to_owned(),
            image: "nginx".to_owned(),
            exit_code: None,
            health: None,
            renamed_from: None,
        }
    }

    fn events(all: &[(u64, &str)]) -> Events {
        let mut events = Events::default();
        for (nanoseconds, container) in all {
            events.push(event(*nanoseconds, container), false);
        }
        events
    }

    fn id(number: u64) -> Arc<str> {
        format!("{number:012x}{:052x}", 7).into()
    }

    fn place(line: u64, offset: u64) -> FilePlace {
        let at = FileOffset {
            inode: 0,
            offset,
            fingerprint: 0x1234_5678,
        };
        FilePlace { at, line }
    }

    #[test]
    fn a_cursor_of_another_run_has_places_but_no_numbers() {
        let known = LogPosition {
            line: 105,
            place: Some(place(100, 9000).into()),
        };
        let by_calls = LogPosition {
            line: 42,
            place: None,
        };
        let positions = Positions::from_iter([(id(1), known.clone()), (id(2), by_calls.clone())]);
        let none = Events::default();
        let cursor = Cursor::of_events(&owner(5), 0, &none, 77).with_logs(&positions, None);
        let cursor = Arc::new(Cursor::parse(&cursor.to_text()).unwrap());
        let same = cursor.resumed(&owner(5)).unwrap();
        assert_eq!(same.position(&id(1), 0), Some(known));
        assert_eq!(same.position(&id(2), 0), Some(by_calls));
        assert_eq!(same.position(&id(3), 0), Some(LogPosition::beginning()));
        // A container that was created before the cursor, and did not run then.
        assert_eq!(same.position(&id(3), -1), None);
        let other = cursor.resumed(&owner(6)).unwrap();
        let without_number = LogPosition {
            line: 5,
            place: Some(place(0, 9000).into()),
        };
        assert_eq!(other.position(&id(1), 0), Some(without_number.clone()));
        assert_eq!(other.position(&id(2), 0), Some(LogPosition::default()));
        // A cursor that is made while the positions are not known yet has the positions of the earlier cursor.
        let newest = (
            id(2),
            LogPosition {
                line: 9,
                place: None,
            },
        );
        let again = Cursor::of_events(&owner(6), 0, &none, 78);
        let again = again.with_logs(&Positions::from_iter([newest.clone()]), Some(&other));
        let again = Arc::new(Cursor::parse(&again.to_text()).unwrap());
        let again = again.resumed(&owner(6)).unwrap();
        assert_eq!(again.position(&id(1), 0), Some(without_number));
        assert_eq!(again.position(&id(2), 0), Some(newest.1));
    }

    #[test]
    fn events_continue_after_the_last_event_in_any_run() {
        let all = [(10, "a"), (20, "b"), (20, "c"), (30, "d")];
        let before = events(&all[..2]);
        let cursor = Cursor::of_events(&owner(5), 2, &before, 77);
        let cursor = Cursor::parse(&cursor.to_text()).unwrap();
        assert_eq!(cursor.events_in(&events(&all), &owner(5)), 2);
        // Another run has read the same events again, or only the later ones, or none.
        assert_eq!(cursor.events_in(&events(&all), &owner(6)), 2);
        assert_eq!(cursor.events_in(&events(&all[1..]), &owner(6)), 1);
        assert_eq!(cursor.events_in(&events(&all[3..]), &owner(6)), 0);
        assert_eq!(cursor.events_in(&Events::default(), &owner(6)), 0);
        // There was no event before the cursor, which was made at time 15.
        let cursor = Cursor::of_events(&owner(5), 0, &Events::default(), 15);
        assert_eq!(cursor.events_in(&events(&all), &owner(6)), 1);
        let other_host = CursorOwner {
            host: "web-2".to_owned(),
            run: 5,
        };
        assert!(cursor.is_of_other_host(&other_host) && !cursor.is_of_other_host(&owner(6)));
        assert!(Arc::new(cursor).resumed(&owner(5)).is_none());
    }

    #[test]
    fn with_too_many_logs_a_cursor_is_not_complete() {
        let at = LogPosition {
            line: 1,
            place: None,
        };
        let many = |count: u64| (0..count).map(|number| (id(number), at.clone())).collect();
        for (count, absent) in [(2048, Some(LogPosition::beginning())), (2049, None)] {
            let cursor = Cursor::of_events(&owner(5), 0, &Events::default(), 1);
            let text = cursor.with_logs(&many(count), None).to_text();
            let cursor = Arc::new(Cursor::parse(&text).unwrap());
            assert_eq!(
                cursor.resumed(&owner(5)).unwrap().position(&id(9999), 1),
                absent
            );
        }
    }

    #[test]
    fn the_longest_cursor_fits_into_a_first_line() {
        let at = LogPosition {
            line: (1 << 40) + 7,
            place: Some(place(1 << 40, 1 << 40).into()),
        };
        let all = (0..3000).map(|number| (id(number), at.clone())).collect();
        let cursor = Cursor::of_events(&owner(u64::MAX), u64::MAX, &Events::default(), u64::MAX);
        let text = cursor.with_logs(&all, None).to_text();
        assert!(text.len() < 88 * 1024, "{}", text.len());
    }

    proptest! {
        #[test]
        fn a_cursor_that_is_read_equals_the_written_cursor(
            run in any::<u64>(),
            seen in any::<u64>(),
            now in any::<u64>(),
            logs in prop::collection::btree_map(0..1_u64 << (8 * ID_BYTES), (any::<u32>(), any::<u32>(), any::<bool>()), 0..40)
        ) {
            let positions = logs.into_iter().map(|(number, (line, skipped, has_place))| {
                let line = u64::from(line);
                let place = has_place.then(|| place(line, 7 * line).into());
                (id(number), LogPosition { line: line + u64::from(skipped), place })
            });
            let cursor = Cursor::of_events(&owner(run), seen, &Events::default(), now);
            let cursor = cursor.with_logs(&positions.collect(), None);
            prop_assert_eq!(Cursor::parse(&cursor.to_text()), Ok(cursor));
        }
    }

    #[test]
    fn other_text_is_not_a_cursor() {
        let cursor = Cursor::of_events(&owner(5), 3, &Events::default(), 77).to_text();
        for text in [
            "",
            "x",
            "A",
            "AAAA",
            "not a cursor",
            &cursor[1..],
            &format!("{cursor}AA"),
            &cursor[..cursor.len() - 4],
        ] {
            assert_eq!(Cursor::parse(text), Err(NotACursor), "{text}");
        }
    }

    #[test]
    fn fuzz_cursor() {
        let at = LogPosition {
            line: 105,
            place: Some(place(100, 9000).into()),
        };
        let positions = Positions::from_iter([(id(1), at)]);
        let cursor = Cursor::of_events(&owner(5), 3, &Events::default(), 77);
        let seeds = [
            cursor.to_text(),
            cursor.with_logs(&positions, None).to_text(),
        ];
        let seeds: Vec<&[u8]> = seeds.iter().map(String::as_bytes).collect();
        crate::fuzzing::run("cursor", &seeds, |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes)
                && let Ok(cursor) = Cursor::parse(text)
            {
                assert_eq!(Cursor::parse(&cursor.to_text()), Ok(cursor));
            }
        });
    }
}
