//! The figures of other programs: files in the text format of Prometheus in the directory `TEXTFILE_DIR`. They are read only on request.

mod merge;
mod parse;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::sync::Mutex;
use tracing::warn;

use super::blocking::Blocking;
use crate::messages::ReadTextfiles;
use crate::model::{TextfileProblem, Textfiles};
use reader::Reader;

/// Requests within this time get the same reading.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Timeout of a reading. Prometheus waits 10 s for a scrape by default.
const DEADLINE: Duration = Duration::from_secs(3);

/// The actor that reads the files on request.
pub struct TextfileCollector {
    /// None without a directory. A request waits while another request reads.
    folder: Option<Arc<Mutex<Folder>>>,
}

struct Folder {
    path: PathBuf,
    reader: Blocking<Reader, Arc<Textfiles>>,
    newest: Option<(Instant, Arc<Textfiles>)>,
    /// The error of the newest reading, if it hung.
    hang: Option<String>,
}

impl TextfileCollector {
    /// Creates the collector of a directory, if there is one. It reads nothing yet. `is_published` returns whether the agent itself has a
    /// metric with this name.
    #[must_use]
    pub fn new(folder: Option<PathBuf>, is_published: fn(&str) -> bool) -> Self {
        let folder = folder.map(|path| {
            let reader = Reader::new(path.clone(), is_published);
            Arc::new(Mutex::new(Folder {
                path,
                reader: Blocking::new("text files", reader).within(DEADLINE),
                newest: None,
                hang: None,
            }))
        });
        Self { folder }
    }
}

impl Actor for TextfileCollector {
    type Context = Context<Self>;
}

impl Handler<ReadTextfiles> for TextfileCollector {
    type Result = ResponseFuture<Arc<Textfiles>>;

    fn handle(&mut self, _: ReadTextfiles, _: &mut Self::Context) -> Self::Result {
        let folder = self.folder.clone();
        Box::pin(async move {
            match folder {
                Some(folder) => folder.lock().await.read().await,
                None => Arc::default(),
            }
        })
    }
}

impl Folder {
    async fn read(&mut self) -> Arc<Textfiles> {
        if let Some((at, newest)) = &self.newest
            && at.elapsed() < MAX_AGE
        {
            return Arc::clone(newest);
        }
        let newest = match self.reader.read(Reader::read).await {
            Ok(newest) => {
                self.hang = None;
                newest
            }
            Err(error) => self.hanging(error),
        };
        self.newest = Some((Instant::now(), Arc::clone(&newest)));
        newest
    }

    /// Returns a reading without figures. Logs the error once.
    fn hanging(&mut self, error: String) -> Arc<Textfiles> {
        let path = self.path.display().to_string();
        if self.hang.is_none() {
            warn!(file = %path, %error, "figures of a text file left out");
        }
        self.hang = Some(error.clone());
        Arc::new(Textfiles {
            problems: vec![TextfileProblem { path, error }],
            ..Textfiles::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use actix::Actor as _;

    use super::TextfileCollector;
    use crate::messages::ReadTextfiles;
    use crate::model::Textfiles;

    /// Runs the script for SMART figures with a fake smartctl, and reads its file.
    #[test]
    fn the_figures_of_the_smart_script_are_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("smartmon.prom");
        let fake = root.join("tests/fixtures/smart");
        let path = format!("{}:{}", fake.display(), env::var("PATH").unwrap());
        let script = Command::new("sh")
            .arg(root.join("config/smart/smartmon.sh"))
            .arg(&file)
            .env("PATH", path)
            .status();
        assert!(script.unwrap().success());
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1, "the script left a file");
        let mut reader = super::Reader::new(folder.path().to_owned(), |_| false);
        let read = reader.read();
        assert_eq!(read.problems, []);
        let lines: Vec<String> = read
            .families
            .iter()
            .flat_map(|family| {
                family.samples.iter().map(|sample| {
                    let labels = sample.labels.iter().map(|(_, value)| value.as_str());
                    let labels: Vec<_> = labels.collect();
                    format!("{} {} {}", family.name, labels.join(" "), sample.value)
                })
            })
            .collect();
        for line in [
            "smartmon_smartctl_version 7.3 1",
            "smartmon_device_active /dev/sda sat 1",
            "smartmon_device_active /dev/sdb sat 0",
            "smartmon_device_smart_healthy /dev/sda sat 1",
            "smartmon_device_smart_healthy /dev/nvme0 nvme 0",
            "smartmon_reallocated_sector_ct_raw_value /dev/sda sat 5 8",
            "smartmon_reallocated_sector_ct_threshold /dev/sda sat 5 10",
            "smartmon_power_on_hours_raw_value /dev/sda sat 9 5557",
            "smartmon_airflow_temperature_cel_raw_value /dev/sda sat 190 34",
            "smartmon_total_lbas_written_raw_value /dev/sda sat 241 28213047123",
            "smartmon_temperature_celsius_raw_value /dev/nvme0 nvme 194 41",
            "smartmon_data_units_written_raw_value /dev/nvme0 nvme -1 9876543210",
            "smartmon_grown_defects_count_raw_value /dev/bus/0 megaraid,8 -1 12",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
        }
        let info = "Seagate \"BarraCuda\" 3.5 ST2000DM008-2FR102 ZFL0ABCD 0001 1";
        assert!(lines.iter().any(|line| line.ends_with(info)), "{lines:#?}");
        let sleeping = lines.iter().filter(|line| line.contains("/dev/sdb"));
        assert_eq!(sleeping.count(), 2);
    }

    #[actix::test]
    async fn requests_at_the_same_time_get_the_same_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.prom"), "a 1\n").unwrap();
        let path = Some(folder.path().to_owned());
        let collector = TextfileCollector::new(path, |_| false).start();
        let read = || collector.send(ReadTextfiles);
        let (first, second) = futures_util::future::join(read(), read()).await;
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &second.unwrap()));
        assert_eq!(first.families.len(), 1);
        let off = TextfileCollector::new(None, |_| false).start();
        assert_eq!(
            *off.send(ReadTextfiles).await.unwrap(),
            Textfiles::default()
        );
    }
}
