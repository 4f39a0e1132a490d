//! A history of a year for one host, as the server writes it, but in a short time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use system_agent::model::Snapshot;
use system_agent::web::{History, HistorySettings, Retention};

use crate::figures::Figures;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The number of different snapshots.
const SNAPSHOTS: usize = 500;

/// Writes the history of a year to a folder: one sample in ten minutes, then one a minute for the last day, and one in 5 s for the
/// last hour. Older samples are stored as averages of ten minutes and more, so more samples would give blocks of the same size.
pub(crate) fn write_year(folder: &Path, host: &str, recorded: &Arc<Value>) {
    let settings = HistorySettings {
        folder: Some(folder.to_owned()),
        limit: 1 << 30,
        retention: Retention::default(),
    };
    let mut figures = Figures::new(recorded, host);
    let snapshots: Vec<Snapshot> = (0..SNAPSHOTS)
        .map(|_| serde_json::from_slice(&figures.next()).unwrap())
        .collect();
    let started = Instant::now();
    let history = History::open(&settings).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let mut at = now - 365 * DAY;
    let mut samples: u64 = 0;
    while at < now {
        history.record(host, &snapshots[samples as usize % SNAPSHOTS], at);
        samples += 1;
        let age = now - at;
        let step = if age <= HOUR {
            5000
        } else if age <= DAY {
            MINUTE
        } else {
            10 * MINUTE
        };
        // The server writes once a second.
        if step > 5000 || samples.is_multiple_of(12) {
            history.write(at, true);
        }
        at += step;
    }
    history.write(now, true);
    drop(history);
    println!(
        "\na year of one host: {:.1} MiB on disk; {samples} samples were written in {:.0} s",
        size(folder) as f64 / 1_048_576.0,
        started.elapsed().as_secs_f64()
    );
}

/// The size of the files in a folder, in bytes.
pub(crate) fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// Returns a new folder for a history.
pub(crate) fn folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// Whether only the host with a history of a year has this range.
pub(crate) fn is_long(range: Duration) -> bool {
    range > Duration::from_secs(3600)
}
