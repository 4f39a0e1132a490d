//! A snapshot as lines of JSON: each section encoded once, each line put together once, for as many clients as ask for it, and
//! neither for none.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::ParamSwitch;

use super::{EncodedSnapshot, Published, Since};
use crate::model::{Encoding, LogMode, Logs, Section, Snapshot, Variant};

/// The most renderings for clients that are behind which are kept for others that are as far behind.
const MOST_BEHIND: usize = 64;
/// How zstd goes about it. Of what snapshots are made of, harder (its own default level is 3) makes no less; its fastest level,
/// looking for matches at fewer places and in a smaller table of them, makes 3 to 13 % less of containers and web servers'
/// logs, 5 % more of logs of long texts, and takes 11 to 24 % less time.
const LEVEL: i32 = 1;
const HOW: [CParameter; 4] = [
    CParameter::HashLog(13),
    CParameter::MinMatch(6),
    CParameter::TargetLength(2),
    CParameter::LiteralCompressionMode(ParamSwitch::Enable),
];
/// Less than snapshots are compressed to, as a rule.
const USUAL_RATIO: usize = 5;
/// The least room for a step of the compressor, in bytes.
const ROOM: usize = 4096;

/// What has been encoded of a snapshot.
#[derive(Default)]
pub(super) struct Encodings {
    sections: HashMap<Part, Vec<u8>>,
    /// With the snapshot that their log lines follow on, and the last event before theirs.
    lines: HashMap<(Variant, Option<u64>, Option<u64>), Arc<EncodedSnapshot>>,
    /// How many of those are for clients that are behind.
    behind: usize,
    compressor: Compressor,
}

/// A piece of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Head,
    Section(Section),
    Foot,
}

impl fmt::Debug for Encodings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encodings")
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl Encodings {
    /// How many lines have been made.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// A variant's line, made now unless it was made before, with the events after `since`; where there is none, with those
    /// after the last snapshot. For [`LogMode::New`], with the log lines after `since`; with those of the tail where there is
    /// none. It is kept for others unless it is one of too many for clients that are `behind`.
    pub(super) fn line(
        &mut self,
        published: &Published,
        variant: Variant,
        since: Option<&Since>,
        behind: bool,
    ) -> io::Result<Arc<EncodedSnapshot>> {
        let events_after = variant
            .sections
            .has(Section::Events)
            .then(|| since.map_or(published.events_before, |since| since.events));
        let since = since.filter(|_| variant.logs == LogMode::New);
        let key = (variant, since.map(|since| since.seq), events_after);
        if let Some(made) = self.lines.get(&key) {
            return Ok(Arc::clone(made));
        }
        let mut news = match variant.logs {
            LogMode::New => published.log_lines(since).json()?,
            LogMode::Tail => Vec::new(),
        };
        if events_after.is_some() {
            let (events, dropped) = published.events(events_after);
            field(&mut news, b',', "events", &events.collect::<Vec<_>>())?;
            if dropped > 0 {
                field(&mut news, b',', "events_dropped", &dropped)?;
            }
        }
        let pieces = pieces(&mut self.sections, variant, &published.snapshot, &news)?;
        let shared = match variant.encoding {
            Encoding::Json => pieces.concat(),
            Encoding::Zstd => self.compressor.compress(&pieces)?,
        };
        let made = Arc::new(EncodedSnapshot {
            seq: published.seq(),
            follows: since.map(|since| since.seq),
            events_after,
            since: published.since(),
            variant,
            shared: Bytes::from(shared),
        });
        if !behind || self.behind < MOST_BEHIND {
            self.behind += usize::from(behind);
            self.lines.insert(key, Arc::clone(&made));
        }
        Ok(made)
    }

    /// What was encoded of the snapshot `then` and holds for the one after it, as the sample is the same: a source may be read
    /// less often than snapshots leave.
    pub(super) fn pass_on(&mut self, then: &Snapshot, now: &Snapshot) -> Self {
        let same = [
            (Section::System, Arc::ptr_eq(&then.system, &now.system)),
            (
                Section::Containers,
                Arc::ptr_eq(&then.containers, &now.containers),
            ),
            (
                Section::DockerMeta,
                Arc::ptr_eq(&then.docker_meta, &now.docker_meta),
            ),
        ];
        let same = same.into_iter().filter(|(_, same)| *same);
        let sections =
            same.filter_map(|(section, _)| self.sections.remove_entry(&Part::Section(section)));
        Self {
            sections: sections.collect(),
            compressor: std::mem::take(&mut self.compressor),
            ..Self::default()
        }
    }
}

/// All of a line up to the value of `skipped`, in pieces, where `news` come before the last. What is missing of the sections is
/// encoded.
fn pieces<'p>(
    sections: &'p mut HashMap<Part, Vec<u8>>,
    variant: Variant,
    snapshot: &'p Snapshot,
    news: &'p [u8],
) -> io::Result<Vec<Cow<'p, [u8]>>> {
    let shared = |section: &Section| {
        let of_its_own = match section {
            Section::Logs => variant.logs == LogMode::New,
            Section::Events => true,
            _ => false,
        };
        variant.sections.has(*section) && !of_its_own
    };
    let all = Section::ALL.into_iter().map(|(_, section)| section);
    let parts: Vec<Part> = [Part::Head]
        .into_iter()
        .chain(all.filter(shared).map(Part::Section))
        .chain([Part::Foot])
        .collect();
    for part in &parts {
        if !sections.contains_key(part) {
            sections.insert(*part, encode(*part, snapshot)?);
        }
    }
    let mut pieces = Vec::new();
    for part in &parts {
        match part {
            Part::Section(Section::Logs) => tails(&snapshot.logs, &mut pieces)?,
            Part::Foot => pieces.push(news.into()),
            Part::Head | Part::Section(_) => {}
        }
        let encoded = sections.get(part);
        pieces.extend(encoded.map(|encoded| Cow::from(&encoded[..])));
    }
    Ok(pieces)
}

/// The section of the logs, in pieces: the lines, which are encoded already, as they are.
fn tails<'p>(logs: &'p Logs, pieces: &mut Vec<Cow<'p, [u8]>>) -> io::Result<()> {
    let mut before = br#","logs":{"#.to_vec();
    for (name, lines) in logs {
        serde_json::to_writer(&mut before, name)?;
        before.push(b':');
        pieces.push(std::mem::replace(&mut before, vec![b',']).into());
        pieces.push(lines.json().as_bytes().into());
    }
    if logs.is_empty() {
        pieces.push(before.into());
    }
    pieces.push(b"}".into());
    Ok(())
}

/// A part of the line, of which the sections may be left out.
fn encode(part: Part, snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    match part {
        Part::Head => {
            field(&mut json, b'{', "timestamp", &snapshot.timestamp)?;
            field(&mut json, b',', "status", &snapshot.status)?;
        }
        Part::Section(section) => match section {
            Section::System => field(&mut json, b',', "system", &snapshot.system)?,
            Section::Containers => field(&mut json, b',', "containers", &snapshot.containers)?,
            Section::DockerMeta => field(&mut json, b',', "docker_meta", &snapshot.docker_meta)?,
            // Encoded already: see `tails`. Not shared: see `Encodings::line`.
            Section::Logs | Section::Events => {}
        },
        Part::Foot => {
            field(&mut json, b',', "sources", &snapshot.sources)?;
            field(&mut json, b',', "host", &snapshot.host)?;
            field(&mut json, b',', "agent", &snapshot.agent)?;
            // `…"skipped":0}`, by the order of the model's fields: each session adds its own count.
            json.truncate(json.len() - "0}".len());
        }
    }
    Ok(json)
}

fn field(json: &mut Vec<u8>, before: u8, name: &str, value: &impl Serialize) -> io::Result<()> {
    json.push(before);
    write!(json, "\"{name}\":")?;
    Ok(serde_json::to_writer(json, value)?)
}

/// Compresses lines, as far as they are shared, into frames that each session ends by itself.
#[derive(Default)]
struct Compressor(Option<Encoder<'static>>);

impl Compressor {
    /// All blocks of a frame but the last.
    fn compress(&mut self, pieces: &[Cow<'_, [u8]>]) -> io::Result<Vec<u8>> {
        let encoder = match &mut self.0 {
            Some(encoder) => {
                encoder.reinit()?;
                encoder
            }
            none => none.insert(encoder()?),
        };
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut frame = Vec::with_capacity(length / USUAL_RATIO + ROOM);
        for piece in pieces {
            let mut input = InBuffer::around(piece);
            while input.pos() < piece.len() {
                append(&mut frame, |out| encoder.run(&mut input, out))?;
            }
        }
        // Ends the block, not the frame.
        while append(&mut frame, |out| encoder.flush(out))? > 0 {}
        frame.shrink_to_fit();
        Ok(frame)
    }
}

fn encoder() -> io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(LEVEL)?;
    for parameter in HOW {
        encoder.set_parameter(parameter)?;
    }
    Ok(encoder)
}

/// Adds what `write` writes, for which there is some room.
fn append<T>(
    frame: &mut Vec<u8>,
    write: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<T>,
) -> io::Result<T> {
    if frame.capacity() - frame.len() < ROOM {
        frame.reserve(frame.len() / 2 + ROOM);
    }
    let length = frame.len();
    write(&mut OutBuffer::around_pos(frame, length))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use serde_json::{Value, json};

    use super::{Compressor, Part};
    use crate::model::{
        ContainerEvent, EncodedLines, EndedLog, EventAction, Events, LogLines, LogSample, Options,
        Place, Positions, Section, Snapshot, SystemMetrics, Timestamp,
    };
    use crate::published::{EncodedSnapshot, Published, Since};

    fn snapshot() -> Snapshot {
        let recorded = include_str!("../../tests/fixtures/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(recorded).unwrap();
        snapshot.logs = Arc::default();
        snapshot.agent.seq = 7;
        snapshot.agent.skipped = 0;
        snapshot
    }

    fn published(logs: LogSample) -> Published {
        Published::new(snapshot(), logs, (Arc::default(), 0), Instant::now(), None)
    }

    fn made(published: &Published, options: &str, since: Option<&Since>) -> Arc<EncodedSnapshot> {
        let variant = Options::parse(options.as_bytes()).unwrap().variant;
        published.line(variant, since, true).unwrap()
    }

    fn bytes(encoded: &EncodedSnapshot, skipped: u64) -> Vec<u8> {
        [&encoded.shared, encoded.ending(skipped).as_ref()].concat()
    }

    fn value(encoded: &EncodedSnapshot) -> Value {
        serde_json::from_slice(&bytes(encoded, 0)).unwrap()
    }

    #[test]
    fn a_session_completes_the_line_with_its_own_count() {
        let published = published(LogSample::default());
        let whole = made(&published, "{}", None);
        assert_eq!((whole.seq, whole.follows), (7, None));
        for skipped in [0, 1, u64::MAX] {
            let mut expected = snapshot();
            expected.timestamp = published.snapshot.timestamp;
            expected.agent.skipped = skipped;
            let mut line = serde_json::to_string(&expected).unwrap();
            line.push('\n');
            assert_eq!(String::from_utf8(bytes(&whole, skipped)).unwrap(), line);
        }
    }

    #[test]
    fn sections_are_left_out_and_the_envelope_stays() {
        let published = published(LogSample::default());
        let whole = value(&made(&published, "{}", None));
        let part = value(&made(&published, r#"{"sections":["docker_meta"]}"#, None));
        let none = value(&made(&published, r#"{"sections":[]}"#, None));
        let mut expected = whole;
        let fields = expected.as_object_mut().unwrap();
        for section in ["system", "containers", "logs", "events"] {
            assert!(fields.remove(section).is_some());
        }
        assert_eq!(part, expected);
        expected.as_object_mut().unwrap().remove("docker_meta");
        assert_eq!(none, expected);
    }

    #[test]
    fn a_variant_is_made_once() {
        let published = published(LogSample::default());
        let one = made(&published, r#"{"encoding":"zstd"}"#, None);
        let other = made(&published, r#"{"encoding":"zstd","every":2}"#, None);
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(published.lines_made(), 1);
        made(&published, "{}", None);
        assert_eq!(published.lines_made(), 2);
    }

    #[test]
    fn what_was_encoded_serves_while_the_sample_is_the_same() {
        let before = published(LogSample::default());
        made(&before, "{}", None);
        let meta = |published: &Published| {
            published.encodings().sections[&Part::Section(Section::DockerMeta)].as_ptr()
        };
        let known = meta(&before);
        let mut now = snapshot();
        now.agent.seq = 8;
        now.docker_meta = Arc::clone(&before.snapshot.docker_meta);
        now.system = Arc::new(SystemMetrics {
            cpu_percent: [12.5],
            ..SystemMetrics::default()
        });
        let events = (Arc::default(), 0);
        let after = Published::new(
            now.clone(),
            LogSample::default(),
            events,
            Instant::now(),
            Some(&before),
        );
        assert_eq!(value(&made(&after, "{}", None)), json!(now));
        assert_eq!(meta(&after), known);
    }

    #[test]
    fn a_frame_is_one_line_whatever_its_end() {
        let published = published(LogSample::default());
        let plain = made(&published, "{}", None);
        let frame = made(&published, r#"{"encoding":"zstd"}"#, None);
        for skipped in [0, 12_345, u64::MAX] {
            let unpacked = zstd::decode_all(&bytes(&frame, skipped)[..]).unwrap();
            assert_eq!(unpacked, bytes(&plain, skipped));
        }
        // Frames follow one another.
        let stream = [bytes(&frame, 1), bytes(&frame, 2)].concat();
        let unpacked = zstd::decode_all(&stream[..]).unwrap();
        assert_eq!(unpacked, [bytes(&plain, 1), bytes(&plain, 2)].concat());
    }

    #[test]
    fn compression_may_be_repeated_with_lines_of_any_length() {
        let mut compressor = Compressor::default();
        for length in [1, 200_000, 3, 3_000_000] {
            let line: Vec<u8> = (0..length)
                .map(|i: u32| (i.wrapping_mul(i) % 251) as u8)
                .collect();
            let mut frame = compressor.compress(&[line.as_slice().into()]).unwrap();
            // An empty last block.
            frame.extend_from_slice(&[1, 0, 0]);
            assert_eq!(zstd::decode_all(&frame[..]).unwrap(), line);
        }
    }

    #[test]
    fn events_are_those_after_what_was_told_and_shared_where_they_are_the_same() {
        let mut events = Events::default();
        for second in 0..5 {
            events.push(ContainerEvent {
                time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
                action: EventAction::Die,
                container: "web".to_owned(),
                id: "0123456789ab".to_owned(),
                image: "nginx".to_owned(),
                exit_code: Some(3),
                health: None,
                renamed_from: None,
            });
        }
        let published = Published::new(
            snapshot(),
            LogSample::default(),
            (Arc::new(events), 3),
            Instant::now(),
            None,
        );
        let at = |events, seq| Since {
            events,
            ..since(seq, &[])
        };
        let seconds = |snapshot: &Arc<EncodedSnapshot>| -> Vec<String> {
            let value = value(snapshot);
            assert!(value.get("events_dropped").is_none());
            let events = value["events"].as_array().unwrap().iter();
            events
                .map(|event| event["time"].as_str().unwrap()[17..19].to_owned())
                .collect()
        };
        let newcomers = made(&published, "{}", None);
        assert_eq!(seconds(&newcomers), ["03", "04"]);
        let expected = json!({
            "time": "1970-01-01T00:00:03.000Z", "action": "die", "container": "web", "id": "0123456789ab",
            "image": "nginx", "exit_code": 3
        });
        assert_eq!(value(&newcomers)["events"][0], expected);
        let others = made(&published, "{}", Some(&at(3, 6)));
        assert!(Arc::ptr_eq(&newcomers, &others));
        assert_eq!(
            (newcomers.events_after, newcomers.since.events),
            (Some(3), 5)
        );
        let late = made(&published, "{}", Some(&at(1, 2)));
        assert_eq!(seconds(&late), ["01", "02", "03", "04"]);
        assert!(others.lacks_something_after(&at(1, 2)) && !late.lacks_something_after(&at(1, 2)));
        assert!(!late.lacks_something_after(&at(2, 5)));
        // Who does not want them shares what others get, whenever that was.
        let without = r#"{"sections":["system"]}"#;
        let [one, other] = [1, 5].map(|events| made(&published, without, Some(&at(events, 2))));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(value(&one).get("events").is_none());
        assert!(!one.lacks_something_after(&at(1, 2)));
    }

    #[test]
    fn events_that_are_no_longer_known_are_counted() {
        let mut events = Events::default();
        for _ in 0..Events::MOST + 44 {
            events.push(ContainerEvent {
                time: Timestamp(SystemTime::UNIX_EPOCH),
                action: EventAction::Start,
                container: "web".to_owned(),
                id: "0123456789ab".to_owned(),
                image: "nginx".to_owned(),
                exit_code: None,
                health: None,
                renamed_from: None,
            });
        }
        let published = Published::new(
            snapshot(),
            LogSample::default(),
            (Arc::new(events), 4),
            Instant::now(),
            None,
        );
        let value = value(&made(&published, "{}", None));
        assert_eq!(value["events"].as_array().unwrap().len(), Events::MOST);
        assert_eq!(value["events_dropped"], 40);
    }

    fn log(container: &str, texts: &[&str], end: u64, origin: u64) -> Arc<LogLines> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let place = Place {
            container: Arc::from(container),
            end,
            origin,
        };
        let lines = EncodedLines::following(&EncodedLines::default(), 0..0, &texts, 0);
        Arc::new(LogLines::new(Arc::new(lines), place))
    }

    fn since(seq: u64, positions: &[(&str, u64)]) -> Since {
        let positions = positions.iter().map(|&(id, end)| (Arc::from(id), end));
        Since {
            seq,
            positions: Arc::new(positions.collect::<Positions>()),
            events: 0,
        }
    }

    fn ended(name: &str, id: &str, position: u64, lines: Option<Arc<LogLines>>) -> EndedLog {
        EndedLog {
            name: name.to_owned(),
            container: Arc::from(id),
            position,
            lines,
        }
    }

    #[test]
    fn new_lines_are_those_after_a_position_and_what_was_lost_is_counted() {
        let logs = LogSample {
            logs: Arc::new(
                [
                    ("new".to_owned(), log("4", &["n1", "n2"], 12, 5)),
                    ("quiet".to_owned(), log("2", &["q"], 9, 0)),
                    ("web".to_owned(), log("1", &["w1", "w2", "w3"], 100, 0)),
                ]
                .into(),
            ),
            ended: Arc::new(vec![
                ended("gone", "9", 8, None),
                ended("web", "0", 3, Some(log("0", &["last"], 3, 0))),
            ]),
            ..LogSample::default()
        };
        let published = published(logs);
        let options = r#"{"logs":"new","sections":["logs"]}"#;
        let first = value(&made(&published, options, None));
        assert_eq!(
            first["logs"],
            json!({"new": ["n1", "n2"], "quiet": ["q"], "web": ["last", "w1", "w2", "w3"]})
        );
        assert_eq!(first["logs_dropped"], json!({}));

        let before = since(6, &[("0", 2), ("1", 98), ("2", 9), ("9", 8)]);
        let news = made(&published, options, Some(&before));
        assert_eq!(news.follows, Some(6));
        let news = value(&news);
        assert_eq!(
            news["logs"],
            json!({"new": ["n1", "n2"], "web": ["last", "w2", "w3"]})
        );
        // Of a container that was not known all of its lines count.
        assert_eq!(news["logs_dropped"], json!({"new": 5}));

        let long_before = since(2, &[("0", 3), ("1", 40), ("2", 9), ("4", 12), ("9", 6)]);
        let news = value(&made(&published, options, Some(&long_before)));
        assert_eq!(news["logs"], json!({"web": ["w1", "w2", "w3"]}));
        assert_eq!(news["logs_dropped"], json!({"gone": 2, "web": 57}));
        assert_eq!(published.lines_made(), 3);
    }

    /// What the build before the one that moved the outputs into one stage sent for a recorded snapshot.
    #[test]
    fn the_lines_are_byte_for_byte_what_they_were() {
        let recorded = include_str!("../../tests/fixtures/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(recorded).unwrap();
        let events = std::mem::take(&mut snapshot.events);
        let mut newest = Events::default();
        events.into_iter().for_each(|event| newest.push(event));
        let odd = [
            "2026-01-01T00:00:00Z a",
            "2026-01-01T00:00:01Z \u{1b}[31m\"ä\u{fffd}\t\\",
            "",
        ];
        let logs = LogSample {
            logs: Arc::new(
                [
                    ("db".to_owned(), log("1", &odd, 12, 5)),
                    ("web".to_owned(), log("2", &["q"], 9, 0)),
                ]
                .into(),
            ),
            ended: Arc::new(vec![
                ended("gone", "9", 8, None),
                ended("web", "0", 3, Some(log("0", &["last"], 3, 0))),
            ]),
            ..LogSample::default()
        };
        snapshot.logs = Arc::clone(&logs.logs);
        let told = newest.end().saturating_sub(1);
        let published = Published::new(
            snapshot,
            logs,
            (Arc::new(newest), told),
            Instant::now(),
            None,
        );
        let before = since(6, &[("0", 2), ("1", 3), ("9", 6)]);
        let mut lines = String::new();
        for (options, since) in [
            ("{}", None),
            (r#"{"sections":["system"]}"#, None),
            (r#"{"sections":["docker_meta","events"]}"#, Some(&before)),
            (r#"{"sections":[]}"#, None),
            (r#"{"logs":"new"}"#, None),
            (
                r#"{"logs":"new","sections":["logs","events"]}"#,
                Some(&before),
            ),
        ] {
            let line = made(&published, options, since);
            lines += &format!(
                "{options}\n{}",
                String::from_utf8(bytes(&line, 17)).unwrap()
            );
        }
        crate::recorded::compare("wire/lines.txt", &lines);
    }

    #[test]
    fn what_is_kept_for_those_who_are_behind_is_bounded() {
        let published = published(LogSample::default());
        for seq in 0..1000 {
            made(&published, r#"{"logs":"new"}"#, Some(&since(seq, &[])));
        }
        assert_eq!(published.lines_made(), super::MOST_BEHIND);
    }
}
