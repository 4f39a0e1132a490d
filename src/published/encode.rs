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

use super::{EncodedSnapshot, Published, StreamPosition};
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
        since: Option<&StreamPosition>,
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
mod tests;
