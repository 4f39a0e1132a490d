//! The SQLite database of the history: opening, damage and free pages.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tracing::warn;

/// The version of the tables.
const VERSION: i64 = 1;
/// How long a statement waits for another one that holds a lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The database file becomes shorter by this number of free pages at once.
const PAGES_AT_ONCE: u32 = 500;
/// Shortening the file stops after this time. The next call goes on.
const LONGEST_VACUUM: Duration = Duration::from_millis(200);
/// The number of damaged databases that are kept. The last one is replaced.
const MAX_DAMAGED: u32 = 5;

const TABLES: &str = "
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY,
        highest_number INTEGER NOT NULL,
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
    CREATE INDEX blocks_by_age ON blocks (covered);
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

/// Opens the database to write, and creates the tables if they are missing.
pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    // Only this user can read the database, as the page can need a password.
    let created = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file);
    created.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
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

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Renames a damaged database, so that a new one can be created. Does nothing if it was renamed before.
pub(super) fn set_aside(file: &Path) -> io::Result<()> {
    let named = |number: u32| match number {
        1 => file.with_extension("db.damaged"),
        number => file.with_extension(format!("db.damaged-{number}")),
    };
    let free = (1..MAX_DAMAGED).find(|number| !named(*number).exists());
    let kept_as = named(free.unwrap_or(MAX_DAMAGED));
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let renamed = |suffix| match fs::rename(with(file, suffix), with(&kept_as, suffix)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(false),
        Ok(()) => Ok(true),
    };
    // The newest samples are in the second file.
    renamed("-wal")?;
    let is_renamed = renamed("")?;
    renamed("-shm")?;
    if is_renamed {
        warn!(
            file = %kept_as.display(),
            "the history is damaged: its database was renamed, and a new history begins"
        );
    }
    Ok(())
}

/// Shortens the database file by its free pages.
pub(super) fn shorten(writer: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    let free = || writer.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    while free()? > i64::from(PAGES_AT_ONCE) && begun.elapsed() < LONGEST_VACUUM {
        // The statement frees one page for each row of its answer, so all rows must be read.
        writer.pragma(None, "incremental_vacuum", PAGES_AT_ONCE, |_| Ok(()))?;
    }
    Ok(())
}
