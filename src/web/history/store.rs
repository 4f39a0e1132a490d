//! The history on disk, in a SQLite database.
//!
//! The table `journal` has the newest samples, one row for each second. When a window of time has ended, its samples are added to the table
//! `blocks`: as they are, and as averages for the coarser [`Tier`]s. Then their rows of the journal are deleted. The table `events` has the
//! events.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use tracing::warn;

use super::database::{connect, is_damage, set_aside, shorten};
use super::event::Event;
use super::memory::{Entry, Window};
use super::reader::Reader;
use super::samples::{MAX_STORED_SERIES, Samples};
use super::tier::Tier;
use super::{Retention, WINDOW_MS, block};

/// The name of the database in its folder.
const FILE: &str = "history.db";
/// The number of blocks that are deleted at once if the database is too large.
const DELETED_AT_ONCE: usize = 16;
/// The pause after windows could not be stored.
const REST: Duration = Duration::from_secs(5);
/// The level of compression of the journal.
const JOURNAL_LEVEL: i32 = 1;
/// Maximum size of the entries in one row of the journal, in bytes.
const MAX_JOURNAL_ROW: usize = 64 << 20;

/// The database. One connection writes, another one reads at the same time.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    /// None while a damaged database could not be replaced.
    writer: Option<Connection>,
    /// None after an error. The next reader connects again.
    reader: Arc<Mutex<Option<Connection>>>,
    /// Maximum size of the database in bytes.
    limit: u64,
    retention: Retention,
    /// No windows are stored before this time, because the last attempt has failed.
    rests_until: Option<Instant>,
    /// Locked while the server runs.
    _lock: File,
}

impl Store {
    /// Opens the database in a folder, and creates both if they are missing. Returns the samples of the journal too, oldest first. A
    /// damaged database is renamed, and a new one is created.
    ///
    /// # Errors
    /// Fails if the folder cannot be used, or if another server uses it.
    pub(super) fn open(
        folder: &Path,
        limit: u64,
        retention: Retention,
    ) -> io::Result<(Self, Vec<Entry>)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another server uses this folder"),
            TryLockError::Error(error) => error,
        })?;
        let file = folder.join(FILE);
        let opened = connect(&file).and_then(|writer| {
            let journal = read_journal(&writer)?;
            Ok((writer, journal))
        });
        let (writer, journal) = match opened {
            Ok(opened) => opened,
            Err(error) if is_damage(&error) => {
                set_aside(&file)?;
                (connect(&file).map_err(io::Error::other)?, Vec::new())
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let store = Self {
            file,
            writer: Some(writer),
            reader: Arc::default(),
            limit,
            retention,
            rests_until: None,
            _lock: lock,
        };
        Ok((store, journal))
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.file.clone(), Arc::clone(&self.reader))
    }

    /// Writes new samples and events.
    ///
    /// # Errors
    /// Fails if the disk is full or the database is damaged. Nothing is written then.
    pub(super) fn append<'e>(
        &mut self,
        entries: &[u8],
        highest_number: u64,
        events: impl Iterator<Item = (&'e str, &'e Event)>,
    ) -> io::Result<()> {
        self.write(|transaction| {
            if !entries.is_empty() {
                let packed = zstd::bulk::compress(entries, JOURNAL_LEVEL)?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO journal (highest_number, entries) VALUES (?1, ?2)",
                )?;
                insert.execute(params![number(highest_number), packed])?;
            }
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO events (host, at, container, kind, text, severity) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (host, event) in events {
                let container = event.container.as_deref().unwrap_or_default();
                insert.execute(params![
                    host,
                    event.at,
                    container,
                    event.kind,
                    event.text,
                    event.severity
                ])?;
            }
            Ok(())
        })
    }

    /// Whether windows are not stored for a moment, because the last attempt has failed. An attempt takes a while.
    pub(super) fn is_resting(&self) -> bool {
        self.rests_until.is_some_and(|end| Instant::now() < end)
    }

    /// Adds the samples of windows to the blocks.
    ///
    /// # Errors
    /// Fails if the disk is full or the database is damaged. Nothing is written then.
    pub(super) fn merge(&mut self, windows: &[Arc<Window>]) -> io::Result<()> {
        let merged = self.write(|transaction| {
            let mut windows = windows.iter();
            windows.try_for_each(|window| merge(transaction, window))
        });
        let failed_at = merged.is_err().then(Instant::now);
        self.rests_until = failed_at.map(|at| at + REST);
        merged
    }

    /// Deletes the entries of the journal whose samples are in blocks: all with numbers below `lowest_number`. Deletes what is older
    /// than its retention at the time `deleted_at`, and the oldest blocks and events beyond the limit.
    ///
    /// # Errors
    /// Fails if the disk is full or the database is damaged. Nothing is deleted then.
    pub(super) fn clean(&mut self, lowest_number: u64, deleted_at: Option<i64>) -> io::Result<()> {
        let (limit, retention) = (self.limit, self.retention);
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM journal WHERE highest_number < ?1",
                [number(lowest_number)],
            )?;
            if let Some(now) = deleted_at {
                delete_old(transaction, retention, now)?;
            }
            delete_beyond(transaction, limit)
        })?;
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        shorten(writer).map_err(io::Error::other)
    }

    /// Runs `write` in a transaction. After damage, goes on with a new database.
    fn write(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> Result<(), Failure>,
    ) -> io::Result<()> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.replace_damaged()?,
        };
        let writer = self.writer.insert(writer);
        let written = writer.transaction().map_err(Failure::from);
        let written = written.and_then(|transaction| {
            write(&transaction)?;
            transaction.commit().map_err(Failure::from)
        });
        match written {
            Ok(()) => Ok(()),
            Err(Failure::Database(error)) if is_damage(&error) => {
                // The connections must not write to the files any more.
                self.writer = None;
                *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(io::Error::other(error))
            }
            Err(Failure::Database(error)) => Err(io::Error::other(error)),
            Err(Failure::Encoding(error)) => Err(error),
        }
    }

    /// Renames the damaged database, and creates a new one.
    fn replace_damaged(&self) -> io::Result<Connection> {
        set_aside(&self.file)?;
        connect(&self.file).map_err(io::Error::other)
    }
}

/// Why a transaction failed.
#[derive(Debug)]
enum Failure {
    Database(rusqlite::Error),
    Encoding(io::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Encoding(error)
    }
}

/// SQLite has no unsigned integers.
fn number(window: u64) -> i64 {
    i64::try_from(window).unwrap_or(i64::MAX)
}

/// Reads the journal. A row that cannot be read is left out.
fn read_journal(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut rows = connection.prepare("SELECT entries FROM journal ORDER BY id")?;
    let rows = rows.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    let mut entries = Vec::new();
    let mut failed = 0;
    for row in rows {
        match zstd::bulk::decompress(&row?, MAX_JOURNAL_ROW) {
            Ok(lines) => {
                for line in lines
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                {
                    match serde_json::from_slice(line) {
                        Ok(entry) => entries.push(entry),
                        Err(_) => failed += 1,
                    }
                }
            }
            Err(_) => failed += 1,
        }
    }
    if failed > 0 {
        warn!(failed, "samples of the history cannot be read");
    }
    Ok(entries)
}

/// Adds the samples of a window to the blocks of all tiers.
fn merge(transaction: &Transaction<'_>, window: &Window) -> Result<(), Failure> {
    let (host, start) = (window.host.as_str(), window.start);
    let end = start + WINDOW_MS;
    let mut full = load(transaction, host, Tier::Full, start)?;
    // Without the other samples of the time, an average must not be replaced.
    let is_complete = !full.times.is_empty();
    full.merge(&window.samples, window.gap);
    save(transaction, host, Tier::Full, start, end, &mut full)?;

    let mut minutes = load(transaction, host, Tier::Minute, start)?;
    let has_minutes = !minutes.times.is_empty();
    let step = Tier::Minute.step_ms();
    for minute in (start..end).step_by(step as usize) {
        if let Some(figures) = full.average(minute, minute + step)
            && (is_complete || !minutes.has(minute))
        {
            minutes.replace(minute, figures.into_iter());
        }
    }
    save(transaction, host, Tier::Minute, start, end, &mut minutes)?;

    if let Some(figures) = full.average(start, end) {
        let mut windows = load(transaction, host, Tier::TenMinutes, start)?;
        if is_complete || !windows.has(start) {
            windows.replace(start, figures.into_iter());
            save(
                transaction,
                host,
                Tier::TenMinutes,
                start,
                end,
                &mut windows,
            )?;
        }
    }

    let hour = start - start.rem_euclid(Tier::Hour.step_ms());
    if let Some(figures) = minutes.average(hour, hour + Tier::Hour.step_ms()) {
        let mut hours = load(transaction, host, Tier::Hour, start)?;
        // An average of an hour is complete only if the averages of its minutes are.
        if has_minutes || !hours.has(hour) {
            hours.replace(hour, figures.into_iter());
            save(transaction, host, Tier::Hour, start, end, &mut hours)?;
        }
    }
    Ok(())
}

/// Reads the block with the time `at`. Returns no samples if there is none, or if it is damaged.
fn load(
    transaction: &Transaction<'_>,
    host: &str,
    tier: Tier,
    at: i64,
) -> rusqlite::Result<Samples> {
    let mut select = transaction.prepare_cached(
        "SELECT samples FROM blocks WHERE host = ?1 AND tier = ?2 AND start = ?3",
    )?;
    let block: Option<Vec<u8>> = select
        .query_row(params![host, tier as i64, tier.block_start(at)], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(block) = block else {
        return Ok(Samples::default());
    };
    Ok(block::decode(&block).unwrap_or_else(|error| {
        warn!(host, %error, "a block of the history is damaged: its figures are lost");
        Samples::default()
    }))
}

fn save(
    transaction: &Transaction<'_>,
    host: &str,
    tier: Tier,
    at: i64,
    covered: i64,
    samples: &mut Samples,
) -> Result<(), Failure> {
    if samples.times.is_empty() {
        return Ok(());
    }
    samples.limit(MAX_STORED_SERIES);
    let block = block::encode(samples)?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO blocks (host, tier, start, covered, samples) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (host, tier, start) DO UPDATE SET \
         covered = max(covered, excluded.covered), samples = excluded.samples",
    )?;
    insert.execute(params![
        host,
        tier as i64,
        tier.block_start(at),
        covered,
        block
    ])?;
    Ok(())
}

/// Deletes blocks and events whose retention has passed.
fn delete_old(
    transaction: &Transaction<'_>,
    retention: Retention,
    now: i64,
) -> rusqlite::Result<()> {
    for tier in Tier::ALL {
        transaction.execute(
            "DELETE FROM blocks WHERE tier = ?1 AND start < ?2",
            params![tier as i64, now - retention.ms(tier) - tier.block_ms()],
        )?;
    }
    let longest = Tier::ALL.map(|tier| retention.ms(tier)).into_iter().max();
    transaction.execute(
        "DELETE FROM events WHERE at < ?1",
        [now - longest.unwrap_or_default()],
    )?;
    Ok(())
}

/// Deletes the oldest blocks and events until the used part of the database is smaller than `limit` bytes.
fn delete_beyond(transaction: &Transaction<'_>, limit: u64) -> Result<(), Failure> {
    let pragma =
        |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let page = pragma("page_size")?;
    loop {
        let used = (pragma("page_count")? - pragma("freelist_count")?).saturating_mul(page);
        if u64::try_from(used).unwrap_or_default() <= limit {
            return Ok(());
        }
        let deleted = transaction.execute(
            "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks ORDER BY covered LIMIT ?1)",
            [DELETED_AT_ONCE as i64],
        )?;
        let oldest: Option<i64> =
            transaction.query_row("SELECT min(start) FROM blocks", [], |row| row.get(0))?;
        transaction.execute(
            "DELETE FROM events WHERE at < ?1",
            [oldest.unwrap_or(i64::MAX)],
        )?;
        if deleted == 0 {
            return Ok(());
        }
    }
}
