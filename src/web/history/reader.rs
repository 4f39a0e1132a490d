//! Reads the history on disk.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use tracing::warn;

use super::database::{BUSY_TIMEOUT, is_damage};
use super::event::Event;
use super::samples::Samples;
use super::tier::Tier;
use super::{MAX_EVENTS, block};

/// The part of a range that one tier has.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The samples of each block, oldest first.
    pub(super) blocks: Vec<Samples>,
    /// The time of the oldest sample, and the time up to which all samples are in the blocks.
    pub(super) span: Option<(i64, i64)>,
}

/// Reads the database.
#[derive(Debug)]
pub(super) struct Reader {
    file: PathBuf,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Reader {
    /// The reader of a database. `connection` is none until the first reading, and again after an error.
    pub(super) fn new(file: PathBuf, connection: Arc<Mutex<Option<Connection>>>) -> Self {
        Self { file, connection }
    }

    /// Reads the samples of one tier of a host from `from` to `to`: only the series that `wanted` accepts.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub(super) fn part(
        &self,
        host: &str,
        tier: Tier,
        (from, to): (i64, i64),
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<Part> {
        let rows = self.read(|connection| {
            let mut ids = connection.prepare_cached(
                "SELECT id FROM blocks \
                 WHERE host = ?1 AND tier = ?2 AND start BETWEEN ?3 AND ?4 ORDER BY start",
            )?;
            let first = tier.block_start(from);
            let ids = ids.query_map(params![host, tier as i64, first, to], |row| row.get(0))?;
            let ids = ids.collect::<rusqlite::Result<Vec<i64>>>()?;
            let mut select = connection.prepare_cached(
                "SELECT covered, samples FROM blocks WHERE id = ?1 AND covered > ?2",
            )?;
            let mut rows: Vec<(i64, Vec<u8>)> = Vec::new();
            for id in ids {
                let row = select.query_row([id, from], |row| Ok((row.get(0)?, row.get(1)?)));
                match row.optional() {
                    Ok(row) => rows.extend(row),
                    // Other blocks can still be read.
                    Err(error) if is_damage(&error) => {
                        warn!(host, %error, "a block of the history is damaged: its figures are lost");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(rows)
        })?;
        let mut part = Part::default();
        for (covered, block) in rows {
            match block::decode_where(&block, &wanted) {
                Ok(samples) => {
                    let first = part.span.map(|(first, _)| first);
                    let first = first.or_else(|| samples.times.first().copied());
                    part.span = first.map(|first| (first, covered));
                    part.blocks.push(samples);
                }
                Err(error) => {
                    warn!(host, %error, "a block of the history is damaged: its figures are lost");
                }
            }
        }
        Ok(part)
    }

    /// Returns the names of the series in the newest blocks of a host.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub(super) fn names(&self, host: &str) -> io::Result<Vec<String>> {
        let blocks = self.read(|connection| {
            let mut blocks = Vec::new();
            for tier in Tier::ALL {
                let mut select = connection.prepare_cached(
                    "SELECT samples FROM blocks WHERE host = ?1 AND tier = ?2 ORDER BY start DESC LIMIT 1",
                )?;
                let block = select.query_row(params![host, tier as i64], |row| row.get(0));
                blocks.extend(block.optional()?);
            }
            Ok::<Vec<Vec<u8>>, rusqlite::Error>(blocks)
        })?;
        let samples = blocks.iter().filter_map(|block| block::decode(block).ok());
        Ok(samples.flat_map(|samples| samples.names).collect())
    }

    /// Returns the oldest events of a host between two times, at most one more than [`MAX_EVENTS`].
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub(super) fn events(
        &self,
        host: &str,
        (from, to): (i64, i64),
        container: Option<&str>,
    ) -> io::Result<Vec<Event>> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT at, container, kind, text, severity FROM events \
                 WHERE host = ?1 AND at BETWEEN ?2 AND ?3 AND (?4 IS NULL OR container = ?4) \
                 ORDER BY at, id LIMIT ?5",
            )?;
            let most = MAX_EVENTS as i64 + 1;
            let rows = select.query_map(params![host, from, to, container, most], |row| {
                let container: String = row.get(1)?;
                Ok(Event {
                    at: row.get(0)?,
                    container: (!container.is_empty()).then_some(container),
                    kind: row.get(2)?,
                    text: row.get(3)?,
                    severity: match row.get_ref(4)?.as_str().unwrap_or_default() {
                        "critical" => "critical",
                        "warning" => "warning",
                        _ => "info",
                    },
                })
            })?;
            rows.collect()
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> io::Result<T> {
        let mut held = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let connection = match held.take() {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection =
                    Connection::open_with_flags(&self.file, flags).map_err(io::Error::other)?;
                connection
                    .busy_timeout(BUSY_TIMEOUT)
                    .map_err(io::Error::other)?;
                connection
            }
        };
        let answer = read(&connection).map_err(io::Error::other)?;
        *held = Some(connection);
        Ok(answer)
    }
}
