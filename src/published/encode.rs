//! Encodes a snapshot as a JSON line for each variant.
//!
//! A variant is a choice of sections, log mode and encoding. A section or a variant is encoded when an output asks for it. It is
//! encoded only once, even if many clients want it, with two exceptions. Clients with different previous snapshots can need
//! different JSON lines of one variant. If the cache for clients that lag is full, a JSON line is encoded again for each of them.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::ParamSwitch;

use super::json::append_json;
use super::spare::{MAX_SPARE_FACTOR, Spare};
use super::{EncodedSnapshot, LogPiece, Published, StreamPosition};
use crate::model::{Encoding, LogMode, Logs, ResumeOutcome, Section, Snapshot, Variant};

/// Limit on the cached JSON lines for clients that lag, in bytes, if there are few clients. Clients with the same variant and the
/// same position share one cached line.
const MIN_LAGGING_BYTES: usize = 2 * 1024 * 1024;
/// Many clients write at different speeds. For each client, the limit is this much higher.
const LAGGING_BYTES_OF_CLIENT: usize = 16 * 1024;
/// Limit on the cached JSON lines for any number of clients that lag. Without a line in the cache, its log lines are read again.
const MAX_LAGGING_BYTES: usize = 16 * 1024 * 1024;
/// The compression level of zstd. Level 1 with [`PARAMETERS`] is faster than zstd's default level 3.
///
/// Compared with level 3, compression takes 11 to 24 % less time. The section `containers` and the logs of web servers become 3
/// to 13 % smaller. Logs with long texts become 5 % larger.
const LEVEL: i32 = 1;
/// The parameters of zstd. With `HashLog(13)`, zstd uses a smaller hash table than level 1 uses by default. `TargetLength(2)`
/// makes zstd search at fewer places. As a side effect, it switches off the compression of literals. `LiteralCompressionMode`
/// keeps this compression on.
const PARAMETERS: [CParameter; 4] = [
    CParameter::HashLog(13),
    CParameter::MinMatch(6),
    CParameter::TargetLength(2),
    CParameter::LiteralCompressionMode(ParamSwitch::Enable),
];
/// Compression makes most snapshots smaller by more than this factor.
const USUAL_RATIO: usize = 5;
/// Minimum free space in the output buffer for one step of the compressor, in bytes.
const MIN_SPACE: usize = 4096;

/// The parts and JSON lines of one snapshot that are already encoded.
#[derive(Default)]
pub(super) struct Encodings {
    sections: HashMap<Part, Vec<u8>>,
    /// The buffers of the sections that have changed since the previous snapshot. They are used again.
    outdated: HashMap<Part, Vec<u8>>,
    /// The cached JSON lines.
    lines: HashMap<Key, Arc<EncodedSnapshot>>,
    /// The JSON lines in `lines` that are for clients that lag, oldest first.
    lagging: VecDeque<Key>,
    /// Number of bytes of these JSON lines.
    lagging_bytes: usize,
    compressor: Compressor,
    spare: Spare,
}

/// A JSON line that a client needs.
#[derive(Debug, Clone, Copy)]
pub struct LineRequest<'r> {
    /// The content and encoding of the line.
    pub variant: Variant,
    /// Whether the line has only the events and log lines after the position `since`, and not the other sections.
    pub is_news: bool,
    /// The client's position. The line has the events after it. None for the events after the previous snapshot.
    ///
    /// For [`LogMode::New`], the line has the log lines after the position. For [`LogMode::Tail`] or without a position, the line
    /// has the tails of the logs.
    pub since: Option<&'r StreamPosition>,
    /// The log lines of [`Published::unread`], if there are any.
    pub piece: Option<&'r LogPiece>,
    /// What became of the client's cursor. Only for the first line to a client that has sent a cursor.
    pub resume: Option<ResumeOutcome>,
    /// Whether the client lags. Only a limited number of lines for clients that lag is cached.
    pub lagging: bool,
}

impl<'r> LineRequest<'r> {
    /// Returns the request of a client that has no position.
    #[must_use]
    pub fn first(variant: Variant) -> Self {
        Self {
            variant,
            is_news: false,
            since: None,
            piece: None,
            resume: None,
            lagging: false,
        }
    }

    /// Returns the position after which the line has log lines. None if the line has the tails of the logs, or no logs.
    fn begin_of_logs(&self) -> Option<&'r StreamPosition> {
        let has_new = self.variant.logs == LogMode::New;
        self.since.filter(|since| has_new && !since.begins_logs)
    }

    fn key(&self, published: &Published) -> Key {
        let has_events = self.variant.sections.has(Section::Events);
        let events_after = has_events.then(|| match (self.since, self.resume) {
            (None, _) => published.events_before,
            (Some(since), Some(_)) => since.events,
            // Only a client that resumes gets events from before the agent's start.
            (Some(since), None) => since.events.max(published.old_events()),
        });
        Key {
            variant: self.variant,
            is_news: self.is_news,
            since: self.begin_of_logs().map(|since| since.id),
            events_after,
            resume: self.resume,
        }
    }
}

/// What a cached JSON line depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    variant: Variant,
    is_news: bool,
    /// The id of the client's position. None if the line has the tails of the logs.
    since: Option<u64>,
    /// The number of events before the first event of the line. None if the line has no field `events`.
    events_after: Option<u64>,
    resume: Option<ResumeOutcome>,
}

/// A part of a JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Head,
    Section(Section),
    /// The fields after the sections, up to the beginning of the field `agent`.
    Foot,
    /// The rest of the field `agent`.
    Agent,
}

impl fmt::Debug for Encodings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encodings")
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl Encodings {
    /// Returns the number of cached JSON lines.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Returns the requested JSON line if it is cached.
    pub(super) fn cached_line(
        &self,
        published: &Published,
        request: LineRequest<'_>,
    ) -> Option<Arc<EncodedSnapshot>> {
        self.lines.get(&request.key(published)).cloned()
    }

    /// Returns the requested JSON line. Encodes the line if it is not cached.
    ///
    /// Caches the line for other clients. Caches a limited number of bytes for clients that lag: their newest lines, because
    /// clients at the same position ask for the same line at about the same time.
    pub(super) fn line(
        &mut self,
        published: &Published,
        request: LineRequest<'_>,
    ) -> io::Result<Arc<EncodedSnapshot>> {
        let key = request.key(published);
        if let Some(made) = self.lines.get(&key) {
            return Ok(Arc::clone(made));
        }
        let LineRequest {
            variant,
            is_news,
            since: position,
            resume,
            lagging,
            ..
        } = request;
        let (since, events_after) = (request.begin_of_logs(), key.events_after);
        let piece = request.piece.filter(|_| since.is_some());
        let (news, is_empty) = news_fields(published, variant, since, piece, events_after)?;
        let after = match (piece, position) {
            (Some(piece), _) => piece.position().clone(),
            (None, Some(since)) => published.position_after(since),
            (None, None) => published.since().clone(),
        };
        let stream = stream_fields(published, variant, &after, resume)?;
        let pieces = if is_news {
            news_line(published, news, &stream)?
        } else {
            self.encode_parts(variant, &published.snapshot)?;
            pieces(&self.sections, variant, &published.snapshot, &news, &stream)?
        };
        let shared = match variant.encoding {
            Encoding::Json if is_news => pieces.concat().into(),
            Encoding::Json => self.spare.concat(&pieces),
            Encoding::Zstd => self.compressor.compress(&pieces)?.into(),
        };
        let made = Arc::new(EncodedSnapshot {
            seq: published.seq(),
            follows: since.map(|since| since.id),
            events_after,
            old_events: published.old_events(),
            since: after,
            is_news,
            is_empty,
            more: piece.is_some_and(LogPiece::has_more),
            variant,
            shared,
        });
        self.lines.insert(key, Arc::clone(&made));
        if lagging {
            self.lagging.push_back(key);
            self.lagging_bytes += made.shared.len();
            let clients = published.snapshot().agent.clients;
            self.drop_surplus(clients);
        }
        Ok(made)
    }

    /// Encodes those parts of the JSON line that are not encoded yet.
    fn encode_parts(&mut self, variant: Variant, snapshot: &Snapshot) -> io::Result<()> {
        for part in parts(variant) {
            if let Entry::Vacant(entry) = self.sections.entry(part) {
                let mut json = self.outdated.remove(&part).unwrap_or_default();
                json.clear();
                encode(part, snapshot, &mut json)?;
                json.shrink_to(MAX_SPARE_FACTOR * json.len());
                entry.insert(json);
            }
        }
        Ok(())
    }

    /// Drops the oldest cached JSON lines for clients that lag, until the others are within the limit.
    fn drop_surplus(&mut self, clients: u64) {
        let clients = usize::try_from(clients).unwrap_or(usize::MAX);
        let limit = clients.saturating_mul(LAGGING_BYTES_OF_CLIENT);
        let limit = limit.clamp(MIN_LAGGING_BYTES, MAX_LAGGING_BYTES);
        while self.lagging_bytes > limit
            && let Some(oldest) = self.lagging.pop_front()
        {
            let line = self.lines.remove(&oldest);
            self.lagging_bytes -= line.map_or(0, |line| line.shared.len());
        }
    }

    /// Returns the encodings for the snapshot `now`. Takes over every encoded section that has not changed since the snapshot
    /// `then`, the buffers of the other sections, and the compressor. So the sections are encoded again if a client still needs the snapshot
    /// `then`.
    ///
    /// A section changes only when its source has finished another round.
    pub(super) fn reuse(&mut self, then: &Snapshot, now: &Snapshot) -> Self {
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
            (Section::Stopped, Arc::ptr_eq(&then.stopped, &now.stopped)),
            (Section::Kernel, is_same(&then.kernel, &now.kernel)),
            (Section::Textfile, is_same(&then.textfile, &now.textfile)),
        ];
        let is_same = |part: &Part| matches!(part, Part::Section(section) if same.contains(&(*section, true)));
        if !std::ptr::eq(then, now) {
            self.spare.age();
        }
        let sections = self.sections.drain();
        let (sections, outdated) = sections.partition(|(part, _)| is_same(part));
        Self {
            sections,
            outdated,
            lines: HashMap::new(),
            lagging: VecDeque::new(),
            lagging_bytes: 0,
            compressor: std::mem::take(&mut self.compressor),
            spare: self.spare.clone(),
        }
    }
}

impl Drop for Encodings {
    fn drop(&mut self) {
        let lines = self.lines.drain().map(|(_, line)| line);
        let lines = lines.filter(|line| line.variant.encoding == Encoding::Json && !line.is_news);
        if let Some(largest) = lines.max_by_key(|line| line.shared.len()) {
            self.spare.keep(largest);
        }
    }
}

/// Returns whether both are the same reading.
fn is_same<T>(then: &Option<Arc<T>>, now: &Option<Arc<T>>) -> bool {
    then.as_ref().map(Arc::as_ptr) == now.as_ref().map(Arc::as_ptr)
}

/// Returns the JSON text of the fields with the new log lines and events, with a comma before each field. Also returns whether there
/// are none.
fn news_fields(
    published: &Published,
    variant: Variant,
    since: Option<&StreamPosition>,
    piece: Option<&LogPiece>,
    events_after: Option<u64>,
) -> io::Result<(Vec<u8>, bool)> {
    let (mut fields, mut is_empty) = (Vec::new(), true);
    if variant.logs == LogMode::New {
        let lines = published.log_lines(since, piece);
        is_empty &= lines.is_empty();
        fields = lines.json()?;
    }
    if events_after.is_some() {
        let (events, dropped) = published.events(events_after);
        let events: Vec<_> = events.collect();
        is_empty &= events.is_empty() && dropped == 0;
        field(&mut fields, b',', "events", &events)?;
        if dropped > 0 {
            field(&mut fields, b',', "events_dropped", &dropped)?;
        }
    }
    Ok((fields, is_empty))
}

/// Returns the JSON text of the first fields of `agent`, with a comma after each field: the cursor of the position `after`, and what
/// became of the client's cursor.
fn stream_fields(
    published: &Published,
    variant: Variant,
    after: &StreamPosition,
    resume: Option<ResumeOutcome>,
) -> io::Result<Vec<u8>> {
    let mut fields = Vec::new();
    if variant.has_cursor {
        let cursor = published.cursor(after, variant.logs == LogMode::New);
        write!(fields, "\"cursor\":\"{cursor}\",")?;
    }
    if let Some(outcome) = resume {
        write!(fields, "\"resume\":\"{}\",", outcome.text())?;
    }
    Ok(fields)
}

/// Returns a JSON line with only events and log lines, without its end. `news` is the JSON text of the events and log lines, and
/// `stream` the JSON text of the first fields of `agent`.
fn news_line(
    published: &Published,
    news: Vec<u8>,
    stream: &[u8],
) -> io::Result<Vec<Cow<'static, [u8]>>> {
    let Snapshot {
        timestamp, agent, ..
    } = &**published.snapshot();
    let mut head = Vec::new();
    let timestamp = published.changed_at.as_ref().unwrap_or(timestamp);
    field(&mut head, b'{', "timestamp", timestamp)?;
    field(&mut head, b',', "live", &true)?;
    let mut foot = br#","agent":{"#.to_vec();
    foot.extend_from_slice(stream);
    write!(
        foot,
        "\"run\":\"{}\",\"seq\":{},\"skipped\":",
        agent.run, agent.seq
    )?;
    Ok(vec![head.into(), news.into(), foot.into()])
}

/// Returns the JSON line in pieces, without its end. The end begins with the value of `skipped`, which differs between clients.
///
/// `sections` has all encoded parts of the line. `news` is the JSON text of the new events and log lines. The function puts `news`
/// before the fields after the sections. `stream` is the JSON text of the first fields of `agent`.
fn pieces<'p>(
    sections: &'p HashMap<Part, Vec<u8>>,
    variant: Variant,
    snapshot: &'p Snapshot,
    news: &'p [u8],
    stream: &'p [u8],
) -> io::Result<Vec<Cow<'p, [u8]>>> {
    let mut pieces = Vec::new();
    for part in parts(variant) {
        match part {
            Part::Section(Section::Logs) => tails(&snapshot.logs, &mut pieces)?,
            Part::Foot => pieces.push(news.into()),
            Part::Agent => pieces.push(stream.into()),
            Part::Head | Part::Section(_) => {}
        }
        let encoded = sections.get(&part);
        pieces.extend(encoded.map(|encoded| Cow::from(&encoded[..])));
    }
    Ok(pieces)
}

/// Returns the parts of a JSON line that do not differ between clients with the same variant, in their order.
fn parts(variant: Variant) -> impl Iterator<Item = Part> {
    let shared = move |section: &Section| {
        let of_its_own = match section {
            Section::Logs => variant.logs == LogMode::New,
            Section::Events => true,
            _ => false,
        };
        variant.sections.has(*section) && !of_its_own
    };
    let all = Section::ALL.into_iter().map(|(_, section)| section);
    [Part::Head]
        .into_iter()
        .chain(all.filter(shared).map(Part::Section))
        .chain([Part::Foot, Part::Agent])
}

/// Appends the pieces of the section `logs`. The pieces borrow the log lines, which are already encoded.
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

/// Appends one part of a JSON line to `json`, which is empty.
fn encode(part: Part, snapshot: &Snapshot, json: &mut Vec<u8>) -> io::Result<()> {
    match part {
        Part::Head => {
            field(json, b'{', "timestamp", &snapshot.timestamp)?;
            field(json, b',', "status", &snapshot.status)?;
        }
        Part::Section(section) => match section {
            Section::System => field(json, b',', "system", &snapshot.system)?,
            Section::Containers => field(json, b',', "containers", &snapshot.containers)?,
            Section::DockerMeta => field(json, b',', "docker_meta", &snapshot.docker_meta)?,
            Section::Kernel => {
                if let Some(kernel) = &snapshot.kernel {
                    field(json, b',', "kernel", kernel)?;
                }
            }
            Section::Textfile => {
                if let Some(textfile) = &snapshot.textfile {
                    field(json, b',', "textfile", textfile)?;
                }
            }
            Section::Stopped => {
                field(json, b',', "stopped", &snapshot.stopped)?;
                if let Some(dropped) = snapshot.stopped_dropped {
                    field(json, b',', "stopped_dropped", &dropped)?;
                }
            }
            // `tails` adds the log lines, which are already encoded. `Encodings::line` adds the events, which differ between
            // clients.
            Section::Logs | Section::Events => {}
        },
        Part::Foot => {
            field(json, b',', "sources", &snapshot.sources)?;
            if let Some(outputs) = &snapshot.outputs {
                field(json, b',', "outputs", outputs)?;
            }
            field(json, b',', "host", &snapshot.host)?;
            json.extend_from_slice(br#","agent":{"#);
        }
        Part::Agent => {
            append_json(json, &snapshot.agent)?;
            json.remove(0);
            // `skipped` is the last field of the model, so the text ends with `"skipped":0}`. `0}` is cut off here. Each output
            // appends its own count. The socket has a count for each client.
            json.truncate(json.len() - "0}".len());
        }
    }
    Ok(())
}

fn field(json: &mut Vec<u8>, before: u8, name: &str, value: &impl Serialize) -> io::Result<()> {
    json.push(before);
    write!(json, "\"{name}\":")?;
    append_json(json, value)
}

/// Compresses the shared part of each JSON line into a zstd frame without its last block. Each output appends the last block.
#[derive(Default)]
struct Compressor(Option<Encoder<'static>>);

impl Compressor {
    /// Returns all blocks of a frame except the last block.
    fn compress(&mut self, pieces: &[Cow<'_, [u8]>]) -> io::Result<Vec<u8>> {
        let encoder = match &mut self.0 {
            Some(encoder) => {
                encoder.reinit()?;
                encoder
            }
            none => none.insert(encoder()?),
        };
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut frame = Vec::with_capacity(length / USUAL_RATIO + MIN_SPACE);
        for piece in pieces {
            let mut input = InBuffer::around(piece);
            while input.pos() < piece.len() {
                append(&mut frame, |out| encoder.run(&mut input, out))?;
            }
        }
        // `flush` ends the block, but not the frame. Each output appends the last block of the frame.
        while append(&mut frame, |out| encoder.flush(out))? > 0 {}
        frame.shrink_to_fit();
        Ok(frame)
    }
}

fn encoder() -> io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(LEVEL)?;
    for parameter in PARAMETERS {
        encoder.set_parameter(parameter)?;
    }
    Ok(encoder)
}

/// Makes enough space in the frame, and then appends the output of `write`.
fn append<T>(
    frame: &mut Vec<u8>,
    write: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<T>,
) -> io::Result<T> {
    if frame.capacity() - frame.len() < MIN_SPACE {
        frame.reserve(frame.len() / 2 + MIN_SPACE);
    }
    let length = frame.len();
    write(&mut OutBuffer::around_pos(frame, length))
}

#[cfg(test)]
mod tests;
