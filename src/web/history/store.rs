//! The history on disk, in a SQLite database.
//!
//! The table `journal` has the newest samples, one row for each second. When a window of time has ended, its samples move to the table
//! `blocks`, as they are and as averages of the coarser [`Tier`]s, in one transaction. The table `events` has the events.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};
use tracing::warn;

use super::block;
use super::event::Event;
use super::memory::{Entry, Window};
use super::samples::{MAX_SERIES, Samples};
use super::{Kept, MAX_EVENTS, WINDOW_MS};

/// The name of the database in its folder.
const FILE: &str = "history.db";
/// The version of the tables.
const VERSION: i64 = 1;
/// How long a statement waits for another one that holds a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of blocks that are deleted at once if the database is too large.
const DELETED_AT_ONCE: usize = 16;
/// The number of free pages that are given back to the file system at once.
const PAGES_AT_ONCE: u32 = 2000;
/// The level of compression of the journal.
const JOURNAL_LEVEL: i32 = 1;
/// Maximum size of the entries in one row of the journal, in bytes.
const MAX_JOURNAL_ROW: usize = 64 << 20;

const TABLES: &str = "
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY,
        newest_window INTEGER NOT NULL,
        entries BLOB NOT NULL
    ) STRICT;
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        host TEXT NOT NULL,
        tier INTEGER NOT NULL,
        start INTEGER NOT NULL,
        covered INTEGER NOT NULL,
        samples BLOB NOT NULL,
        UNIQUE (host, tier, start)
    ) STRICT;
    CREATE INDEX blocks_by_age ON blocks (start);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        host TEXT NOT NULL,
        at INTEGER NOT NULL,
        container TEXT NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        severity TEXT NOT NULL,
        UNIQUE (host, at, container, kind)
    ) STRICT;
    CREATE INDEX events_by_age ON events (at);
";

/// The time between two samples of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// The samples as they came.
    Full,
    Minute,
    TenMinutes,
    Hour,
}

impl Tier {
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Minute, Self::TenMinutes, Self::Hour];

    /// The time between two samples, in milliseconds. 0 for [`Self::Full`].
    pub(super) const fn step_ms(self) -> i64 {
        match self {
            Self::Full => 0,
            Self::Minute => 60_000,
            Self::TenMinutes => 600_000,
            Self::Hour => 3_600_000,
        }
    }

    /// The time of a block, in milliseconds.
    const fn block_ms(self) -> i64 {
        match self {
            Self::Full => WINDOW_MS,
            Self::Minute => 3_600_000,
            Self::TenMinutes => 86_400_000,
            Self::Hour => 7 * 86_400_000,
        }
    }

    /// The time at which the block with the time `at` begins.
    const fn block_start(self, at: i64) -> i64 {
        at - at.rem_euclid(self.block_ms())
    }
}

/// The part of a range that one tier has.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The samples of each block, oldest first.
    pub(super) blocks: Vec<Samples>,
    /// The time of the oldest sample, and the time up to which all samples are in the blocks.
    pub(super) span: Option<(i64, i64)>,
}

/// The database. One connection writes, another one reads at the same time.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    writer: Connection,
    /// None after an error. The next reader connects again.
    reader: Arc<Mutex<Option<Connection>>>,
    /// Maximum size of the database in bytes.
    limit: u64,
    kept: Kept,
    /// Locked while the server runs.
    _lock: File,
}

/// Reads the database.
#[derive(Debug)]
pub(super) struct Reader {
    file: PathBuf,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Store {
    /// Opens the database in a folder, and creates both if they are missing. Returns the samples of the journal too, oldest first. A
    /// damaged database is renamed, and a new one is created.
    ///
    /// # Errors
    /// Fails if the folder cannot be used, or if another server uses it.
    pub(super) fn open(folder: &Path, limit: u64, kept: Kept) -> io::Result<(Self, Vec<Entry>)> {
        fs::create_dir_all(folder)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
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
                set_aside(&file, &error)?;
                (connect(&file).map_err(io::Error::other)?, Vec::new())
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let store = Self {
            file,
            writer,
            reader: Arc::default(),
            limit,
            kept,
            _lock: lock,
        };
        Ok((store, journal))
    }

    pub(super) fn reader(&self) -> Reader {
        Reader {
            file: self.file.clone(),
            connection: Arc::clone(&self.reader),
        }
    }

    /// Writes new samples and events.
    ///
    /// # Errors
    /// Fails if the disk is full or the database is damaged. Nothing is written then.
    pub(super) fn append<'e>(
        &mut self,
        entries: &[u8],
        newest_window: u64,
        events: impl Iterator<Item = (&'e str, &'e Event)>,
    ) -> io::Result<()> {
        self.write(|transaction, _| {
            if !entries.is_empty() {
                let packed = zstd::bulk::compress(entries, JOURNAL_LEVEL)?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO journal (newest_window, entries) VALUES (?1, ?2)",
                )?;
                insert.execute(params![number(newest_window), packed])?;
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

    /// Moves the samples of windows to the blocks. Deletes what is older than it must be, and the journal of windows before
    /// `oldest_window`.
    ///
    /// # Errors
    /// Fails if the disk is full or the database is damaged. Nothing is written then.
    pub(super) fn compact(
        &mut self,
        windows: &[Arc<Window>],
        oldest_window: u64,
        now: i64,
    ) -> io::Result<()> {
        self.write(|transaction, store| {
            for window in windows {
                merge(transaction, window)?;
            }
            transaction.execute(
                "DELETE FROM journal WHERE newest_window < ?1",
                [number(oldest_window)],
            )?;
            delete_old(transaction, store.1, now)?;
            delete_beyond(transaction, store.0)
        })?;
        let free = self
            .writer
            .pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        if free.is_ok_and(|free| free > i64::from(PAGES_AT_ONCE)) {
            let vacuum = format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})");
            self.writer
                .execute_batch(&vacuum)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Runs `write` in a transaction. After damage, goes on with a new database.
    fn write(
        &mut self,
        write: impl FnOnce(&Transaction<'_>, (u64, Kept)) -> Result<(), Failure>,
    ) -> io::Result<()> {
        let settings = (self.limit, self.kept);
        let written = self.writer.transaction().map_err(Failure::from);
        let written = written.and_then(|transaction| {
            write(&transaction, settings)?;
            transaction.commit().map_err(Failure::from)
        });
        match written {
            Ok(()) => Ok(()),
            Err(Failure::Database(error)) if is_damage(&error) => {
                self.start_again(&error)?;
                Err(io::Error::other(error))
            }
            Err(Failure::Database(error)) => Err(io::Error::other(error)),
            Err(Failure::Encoding(error)) => Err(error),
        }
    }

    /// Renames the damaged database and creates a new one.
    fn start_again(&mut self, error: &rusqlite::Error) -> io::Result<()> {
        // The connections must not write to the files any more.
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.writer = Connection::open_in_memory().map_err(io::Error::other)?;
        set_aside(&self.file, error)?;
        self.writer = connect(&self.file).map_err(io::Error::other)?;
        Ok(())
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

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Renames a damaged database, so that a new one can be created. Replaces an earlier damaged one.
fn set_aside(file: &Path, error: &rusqlite::Error) -> io::Result<()> {
    let kept_as = file.with_extension("db.damaged");
    fs::rename(file, &kept_as)?;
    for suffix in ["db-wal", "db-shm"] {
        match fs::remove_file(file.with_extension(suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    warn!(
        %error,
        file = %kept_as.display(),
        "the history is damaged: its database was renamed, and a new history begins"
    );
    Ok(())
}

/// Opens the database to write, and creates the tables if they are missing.
fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A process that is killed loses nothing with NORMAL. A power cut can lose the newest transactions, and damages nothing.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 8388608;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -4096;",
    )?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    } else if version != VERSION {
        return Err(rusqlite::Error::ToSqlConversionFailure(
            format!(
                "a later version of System Agent has written {}",
                file.display()
            )
            .into(),
        ));
    }
    Ok(connection)
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
    full.merge(&window.samples, window.gap);
    save(transaction, host, Tier::Full, start, end, &mut full)?;

    let mut minutes = load(transaction, host, Tier::Minute, start)?;
    let step = Tier::Minute.step_ms();
    for minute in (start..end).step_by(step as usize) {
        if let Some(figures) = full.average(minute, minute + step) {
            minutes.replace(minute, figures.into_iter());
        }
    }
    save(transaction, host, Tier::Minute, start, end, &mut minutes)?;

    if let Some(figures) = full.average(start, end) {
        let mut windows = load(transaction, host, Tier::TenMinutes, start)?;
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

    let hour = start - start.rem_euclid(Tier::Hour.step_ms());
    if let Some(figures) = minutes.average(hour, hour + Tier::Hour.step_ms()) {
        let mut hours = load(transaction, host, Tier::Hour, start)?;
        hours.replace(hour, figures.into_iter());
        save(transaction, host, Tier::Hour, start, end, &mut hours)?;
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
    samples.limit(MAX_SERIES);
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

/// Deletes blocks and events that are older than they must be.
fn delete_old(transaction: &Transaction<'_>, kept: Kept, now: i64) -> rusqlite::Result<()> {
    for tier in Tier::ALL {
        transaction.execute(
            "DELETE FROM blocks WHERE tier = ?1 AND start < ?2",
            params![tier as i64, now - kept.ms(tier) - tier.block_ms()],
        )?;
    }
    let longest = Tier::ALL.map(|tier| kept.ms(tier)).into_iter().max();
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
            "DELETE FROM blocks WHERE id IN (SELECT id FROM blocks ORDER BY start LIMIT ?1)",
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

impl Reader {
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
            let mut select = connection.prepare_cached(
                "SELECT covered, samples FROM blocks \
                 WHERE host = ?1 AND tier = ?2 AND start BETWEEN ?3 AND ?4 ORDER BY start",
            )?;
            let first = tier.block_start(from);
            let rows = select.query_map(params![host, tier as i64, first, to], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
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
