//! Log lines: the stream of new lines, older lines, and the download of a log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::lines::LogLine;
use super::sse::{ALIVE_INTERVAL, Events, Gone, body, last_id};
use super::{App, LONGEST_NAME, Query, answer_with, failure, no_such_host, too_many};
use crate::client::Backoff;
use crate::model::{LogRange, MOST_RANGE_LINES, RangeEnd, text_of, time_of};
use crate::web::millis;
use crate::web::source::{ContainerLines, NewLines, Source};

/// The default and the largest number of lines with which a stream begins.
const TAIL: i64 = 200;
const MOST_TAIL: i64 = 5000;
/// Maximum number of containers of a stream.
const MAX_CONTAINERS: usize = 100;
/// A stream of at most this many containers begins with lines of the log files, if the agent has too few lines at hand.
const MAX_FILLED: usize = 4;
/// Limits on one event: lines, and their text in bytes.
const MAX_LINES: usize = 500;
const MAX_BYTES: usize = 512 * 1024;
/// The default and the largest number of older lines in an answer.
const OLDER: i64 = 500;
const MOST_OLDER: i64 = 2000;
/// Maximum length of a search, in bytes.
const LONGEST_SEARCH: usize = 1024;
/// Number of pieces of a download that wait for the browser.
const PIECES: usize = 2;
/// The size of a piece of a download, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct Lines<'l> {
    lines: &'l [LogLine],
}

#[derive(Serialize)]
struct Dropped<'c> {
    container: &'c str,
    count: u64,
}

#[derive(Serialize)]
struct Away<'t> {
    error: &'t str,
}

#[derive(Serialize)]
struct Older {
    lines: Vec<LogLine>,
    /// The position for the next request.
    before: Option<String>,
}

/// Streams new log lines. The agent is asked for log lines only while this stream is open.
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = Query::of(&uri);
    let containers: Vec<String> = query
        .get("containers")
        .map(|names| names.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    if containers.len() > MAX_CONTAINERS || containers.iter().any(|name| !is_name(name)) {
        let text = format!("containers: accepted: up to {MAX_CONTAINERS} names of containers");
        return failure(StatusCode::BAD_REQUEST, &text);
    }
    let tail = match query.number("tail", 0, MOST_TAIL) {
        Ok(tail) => usize::try_from(tail.unwrap_or(TAIL)).unwrap_or_default(),
        Err(text) => return failure(StatusCode::BAD_REQUEST, &text),
    };
    let Some(source) = app.hosts.source(&host) else {
        return no_such_host();
    };
    let Some((events, answer)) = Events::start(&app.log_streams, &headers) else {
        return too_many("log streams");
    };
    let mut follower = Follower {
        app,
        host,
        source,
        containers,
        // After a cut, the stream continues and does not begin again.
        tail: last_id(&headers).is_none().then_some(tail),
        cursor: last_id(&headers).map(str::to_owned),
        early: HashSet::new(),
        events,
    };
    tokio::spawn(async move {
        // The browser has gone. Dropping the follower closes its connection to the agent.
        let _ = follower.run().await;
    });
    answer
}

/// Sends the new lines of a host to one browser. A slow browser delays only its own connection to the agent.
struct Follower {
    app: Arc<App>,
    host: String,
    source: Source,
    /// The wanted containers. Empty: all.
    containers: Vec<String>,
    /// The number of lines with which the stream begins. None after the first lines.
    tail: Option<usize>,
    cursor: Option<String>,
    /// The ids of lines that came from a log file, and that the agent can send again.
    early: HashSet<String>,
    events: Events,
}

impl Follower {
    /// Sends lines until the browser has gone. Connects again after each failure.
    async fn run(&mut self) -> Result<(), Gone> {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let why = match self.connect().await? {
                Ok(lines) => self.pass_on(lines, &mut backoff, &mut told).await?,
                Err(why) => why,
            };
            if why != told {
                let away = serde_json::to_vec(&Away { error: &why }).unwrap_or_default();
                self.events.send("away", None, &away).await?;
                told = why;
            }
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = self.events.gone() => return Err(Gone),
            }
        }
    }

    async fn connect(&self) -> Result<Result<NewLines, String>, Gone> {
        let containers = match self.containers.is_empty() {
            // Only a fleet needs the names.
            true => self.app.hosts.containers(&self.host).unwrap_or_default(),
            false => self.containers.clone(),
        };
        tokio::select! {
            lines = self.source.follow(self.cursor.as_deref(), &containers) => Ok(lines),
            () = self.events.gone() => Err(Gone),
        }
    }

    /// Sends lines until the connection fails. Returns the reason.
    async fn pass_on(
        &mut self,
        mut lines: NewLines,
        backoff: &mut Backoff,
        told: &mut String,
    ) -> Result<String, Gone> {
        let mut alive = interval(ALIVE_INTERVAL);
        loop {
            let next = {
                let mut next = std::pin::pin!(lines.next());
                loop {
                    tokio::select! {
                        next = next.as_mut() => break next,
                        _ = alive.tick() => self.events.alive().await?,
                        () = self.events.gone() => return Err(Gone),
                    }
                }
            };
            let (all, cursor) = match next {
                Ok(next) => next,
                Err(why) => return Ok(why),
            };
            backoff.reset();
            told.clear();
            self.send(all, cursor).await?;
        }
    }

    async fn send(&mut self, all: Vec<ContainerLines>, cursor: Option<String>) -> Result<(), Gone> {
        let mut lines = Vec::new();
        let mut dropped = Vec::new();
        for one in all {
            if !self.containers.is_empty() && !self.containers.contains(&one.container) {
                continue;
            }
            if one.dropped > 0 {
                dropped.push((one.container.clone(), one.dropped));
            }
            let new = one.lines.iter();
            let new = new.map(|line| LogLine::of(&one.container, line));
            lines.extend(new.filter(|line| !self.early.remove(&line.id)));
        }
        lines.sort_by_key(|line| line.time);
        if let Some(tail) = self.tail {
            lines = self.with_older(lines, tail).await;
            lines.drain(..lines.len().saturating_sub(tail));
            // An agent that has just started has no lines yet.
            if !lines.is_empty() || tail == 0 {
                self.tail = None;
            }
        }
        for (container, count) in &dropped {
            let count = *count;
            let told = serde_json::to_vec(&Dropped { container, count }).unwrap_or_default();
            self.events.send("dropped", None, &told).await?;
        }
        let mut rest = lines.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece(rest));
            rest = later;
            // Only after the last of these lines, the cursor is the position.
            let id = cursor.as_deref().filter(|_| rest.is_empty());
            let text = serde_json::to_vec(&Lines { lines: now }).unwrap_or_default();
            self.events.send("lines", id, &text).await?;
        }
        if cursor.is_some() {
            self.cursor = cursor;
        }
        Ok(())
    }

    /// Adds lines of the log files, if there are fewer than `tail` lines.
    async fn with_older(&mut self, mut lines: Vec<LogLine>, tail: usize) -> Vec<LogLine> {
        let is_filled = (1..=MAX_FILLED).contains(&self.containers.len());
        if !is_filled || lines.len() >= tail {
            return lines;
        }
        let mut known: HashSet<String> = lines.iter().map(|line| line.id.clone()).collect();
        for container in &self.containers.clone() {
            let mut range = LogRange::of(container);
            range.lines = tail.min(MOST_RANGE_LINES);
            let oldest = lines.iter().find(|line| line.container == *container);
            range.before = oldest.and_then(|line| line.time.checked_add(Duration::from_nanos(1)));
            // Without the older lines, the stream begins with fewer lines.
            let older = self.source.older_lines(&range).await.unwrap_or_default();
            let older = older.lines.iter().map(|line| LogLine::of(container, line));
            let older: Vec<_> = older.filter(|line| known.insert(line.id.clone())).collect();
            // If the agent has not read the log of a new container yet, a later snapshot has these lines too.
            if oldest.is_none() {
                self.early.extend(older.iter().map(|line| line.id.clone()));
            }
            lines.extend(older);
        }
        lines.sort_by_key(|line| line.time);
        lines
    }
}

/// Returns how many of these lines fit in one event, at least one.
fn piece(lines: &[LogLine]) -> usize {
    let mut bytes = 0;
    let fits = lines.iter().take(MAX_LINES).take_while(|line| {
        bytes += line.text.len();
        bytes <= MAX_BYTES
    });
    fits.count().max(1)
}

/// Sends older lines of one container.
pub(super) async fn older(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = Query::of(&uri);
    let range = match range_of(&query) {
        Ok(range) => range,
        Err(text) => return failure(StatusCode::BAD_REQUEST, &text),
    };
    let Some(source) = app.hosts.source(&host) else {
        return no_such_host();
    };
    let Ok(_permit) = app.readings.try_acquire() else {
        return too_many("requests for older lines");
    };
    match source.older_lines(&range).await {
        Ok(older) => {
            let lines = older.lines.iter();
            let lines = lines.map(|line| LogLine::of(&range.container, line));
            let answer = Older {
                lines: lines.collect(),
                before: older.reached.map(text_of),
            };
            answer_with(&headers, &answer)
        }
        Err(text) => failure(StatusCode::SERVICE_UNAVAILABLE, &text),
    }
}

fn range_of(query: &Query) -> Result<LogRange, String> {
    let container = query.get("container").filter(|name| is_name(name));
    let container = container.ok_or("container: accepted: the name of a container")?;
    let mut range = LogRange::of(container);
    if let Some(before) = query.get("before") {
        let at = before.parse().ok().and_then(time);
        // The id of a line has its exact time.
        let of_line = || {
            let rest = before.strip_prefix(container)?.strip_prefix(':')?;
            time_of(rest.rsplit_once(':')?.0)
        };
        let before = at.or_else(|| time_of(before)).or_else(of_line);
        range.before = Some(before.ok_or(
            "before: accepted: milliseconds since 1970, the id of a line, or the value of `before` in an answer",
        )?);
    }
    let limit = query.number("limit", 1, MOST_OLDER)?.unwrap_or(OLDER);
    range.lines = usize::try_from(limit).unwrap_or_default();
    if let Some(search) = query.get("search") {
        if search.len() > LONGEST_SEARCH {
            return Err(format!(
                "search: too long; accepted: {LONGEST_SEARCH} bytes"
            ));
        }
        range.grep = Some(search.to_owned());
        // A text that is no regular expression is looked for as it is.
        if range.regex().is_none() {
            range.grep = Some(regex::escape(search));
        }
    }
    Ok(range)
}

/// Sends the log of a container as a file.
pub(super) async fn download(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    uri: Uri,
) -> Response {
    let query = Query::of(&uri);
    let asked = range_of(&query).and_then(|mut range| {
        range.from = RangeEnd::Oldest;
        range.lines = MOST_RANGE_LINES;
        // A range begins after its first time, and `from` includes it.
        let from = query.time("from")?.and_then(time);
        range.after = from.and_then(|from| from.checked_sub(Duration::from_nanos(1)));
        range.before = query.time("to")?.and_then(time);
        Ok(range)
    });
    let mut range = match asked {
        Ok(range) => range,
        Err(text) => return failure(StatusCode::BAD_REQUEST, &text),
    };
    let Some(source) = app.hosts.source(&host) else {
        return no_such_host();
    };
    let Ok(permit) = Arc::clone(&app.readings).try_acquire_owned() else {
        return too_many("downloads");
    };
    // The first answer decides whether there is a file.
    let mut older = match source.older_lines(&range).await {
        Ok(older) => older,
        Err(text) => return failure(StatusCode::SERVICE_UNAVAILABLE, &text),
    };
    let name: String = range.container.chars().filter(is_plain).take(100).collect();
    let (pieces, receiver) = mpsc::channel::<Bytes>(PIECES);
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let mut text = Vec::with_capacity(PIECE_BYTES);
            for line in &older.lines {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
                if text.len() >= PIECE_BYTES {
                    let full = std::mem::replace(&mut text, Vec::with_capacity(PIECE_BYTES));
                    if pieces.send(full.into()).await.is_err() {
                        return;
                    }
                }
            }
            if !text.is_empty() && pieces.send(text.into()).await.is_err() {
                return;
            }
            let Some(reached) = older.reached.filter(|reached| range.after < Some(*reached)) else {
                return;
            };
            range.after = Some(reached);
            older = match source.older_lines(&range).await {
                Ok(older) => older,
                Err(error) => {
                    // The file has begun, so its last line tells that it is not complete.
                    let text = format!("the log could not be read further: {error}\n");
                    let _ = pieces.send(text.into()).await;
                    return;
                }
            };
        }
    });
    let mut answer = Response::new(body(receiver));
    let all = answer.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    all.insert(header::CONTENT_TYPE, kind);
    let disposition = format!("attachment; filename=\"{name}.log\"");
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        all.insert(header::CONTENT_DISPOSITION, disposition);
    }
    answer
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME
}

fn is_plain(one: &char) -> bool {
    one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-')
}

/// Returns a time in milliseconds since 1970.
fn time(at: i64) -> Option<SystemTime> {
    let at = Duration::from_millis(u64::try_from(at).ok()?);
    let time = UNIX_EPOCH.checked_add(at)?;
    // A time after the year 9999 has no text.
    (millis(time) <= super::MAX_TIME).then_some(time)
}
