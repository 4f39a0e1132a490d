//! The figures of other programs: files in the text format of Prometheus in the directory `TEXTFILE_DIR`.
//!
//! [`TextfileCollector`] reads them for a request, and at each interval of the system while a client gets them. If nobody wants them, it
//! reads them once a minute, because `sources` tells of files that cannot be used. A reading parses only files that have changed.

mod merge;
mod parse;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Recipient, ResponseFuture, WrapFuture,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::blocking::Blocking;
use crate::messages::{Collected, ReadTextfiles, StopCollecting, TextfileReading};
use crate::model::Textfiles;
use reader::Reader;
use tracing::warn;

/// Requests within this time get the same reading.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Timeout of a reading. Prometheus waits 10 s for a scrape by default.
const DEADLINE: Duration = Duration::from_secs(3);
/// Time between two readings while nobody wants the figures and all files can be used.
const IDLE: Duration = Duration::from_secs(60);

/// The actor that reads the files, for clients, for requests and for `sources`.
pub struct TextfileCollector {
    /// None without a directory. A request waits while another request reads.
    folder: Option<Arc<Mutex<Folder>>>,
}

struct Folder {
    path: PathBuf,
    reader: Blocking<Reader, Arc<Textfiles>>,
    pace: Pace,
    /// Whether clients want the figures.
    wanted: watch::Receiver<bool>,
    sink: Recipient<TextfileReading>,
    newest: Option<(Instant, Arc<Textfiles>)>,
    /// Whether the newest reading hung.
    hangs: bool,
}

/// The time between two readings that nobody has asked for.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// While a client wants the figures, or while a file cannot be used. So a mended file does not count as broken for long.
    short: Duration,
    /// At other times.
    idle: Duration,
}

impl TextfileCollector {
    /// Creates the collector of a directory, if there is one. Each reading goes to `sink`. While `wanted` is true, there is a reading
    /// every `every`. `is_published` returns whether the agent itself has a metric with this name.
    #[must_use]
    pub fn new(
        folder: Option<PathBuf>,
        every: Duration,
        is_published: fn(&str) -> bool,
        wanted: watch::Receiver<bool>,
        sink: Recipient<TextfileReading>,
    ) -> Self {
        let pace = Pace {
            short: every,
            idle: IDLE.max(every),
        };
        let folder = folder.map(|path| {
            let folder = Folder::new(path, pace, is_published, wanted, sink);
            Arc::new(Mutex::new(folder))
        });
        Self { folder }
    }
}

/// Reads the files of a directory once.
pub async fn read_once(
    folder: PathBuf,
    is_published: fn(&str) -> bool,
) -> Collected<Arc<Textfiles>> {
    let path = folder.display().to_string();
    let reader = Reader::new(folder, is_published);
    let mut reader = Blocking::new("text files", reader).within(DEADLINE);
    let began = Instant::now();
    let read = reader.read(Reader::read).await;
    let read = read.unwrap_or_else(|error| Arc::new(Textfiles::failed(path, error)));
    collected(&read, began.elapsed())
}

fn collected(read: &Arc<Textfiles>, duration: Duration) -> Collected<Arc<Textfiles>> {
    Collected {
        sample: Some(Arc::clone(read)),
        error: read.error(),
        collected_at: SystemTime::now(),
        duration,
        stretched: None,
    }
}

impl Actor for TextfileCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(folder) = &self.folder {
            ctx.spawn(read_when_due(Arc::clone(folder)).into_actor(self));
        }
    }
}

impl Handler<StopCollecting> for TextfileCollector {
    type Result = ();

    fn handle(&mut self, _: StopCollecting, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<ReadTextfiles> for TextfileCollector {
    type Result = ResponseFuture<Arc<Textfiles>>;

    fn handle(&mut self, _: ReadTextfiles, _: &mut Self::Context) -> Self::Result {
        let folder = self.folder.clone();
        Box::pin(async move {
            match folder {
                Some(folder) => folder.lock().await.read_if_older(MAX_AGE).await,
                None => Arc::default(),
            }
        })
    }
}

/// Reads the directory whenever a reading is due. Ends with the sender of `wanted`.
async fn read_when_due(folder: Arc<Mutex<Folder>>) {
    let (pace, mut wanted) = {
        let folder = folder.lock().await;
        (folder.pace, folder.wanted.clone())
    };
    // Each tick only compares times, unless a reading is due. A request can have read the directory since the previous tick.
    let mut ticks = interval(pace.short);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let mut folder = folder.lock().await;
                // A reading must not wait for another tick because it took some time itself.
                let due = folder.interval().saturating_sub(pace.short / 2);
                folder.read_if_older(due).await;
            }
            changed = wanted.changed() => match changed {
                // The reading tells the aggregator the new interval.
                Ok(()) => drop(folder.lock().await.read().await),
                Err(_) => return,
            },
        }
    }
}

impl Folder {
    fn new(
        path: PathBuf,
        pace: Pace,
        is_published: fn(&str) -> bool,
        wanted: watch::Receiver<bool>,
        sink: Recipient<TextfileReading>,
    ) -> Self {
        let reader = Reader::new(path.clone(), is_published);
        Self {
            path,
            reader: Blocking::new("text files", reader).within(DEADLINE),
            pace,
            wanted,
            sink,
            newest: None,
            hangs: false,
        }
    }

    /// Returns the time between two readings that nobody has asked for.
    fn interval(&self) -> Duration {
        let newest = self.newest.as_ref();
        let is_broken = newest.is_some_and(|(_, newest)| newest.problems().next().is_some());
        match is_broken || *self.wanted.borrow() {
            true => self.pace.short,
            false => self.pace.idle,
        }
    }

    /// Returns the newest reading. Reads again if it is older than `age`.
    async fn read_if_older(&mut self, age: Duration) -> Arc<Textfiles> {
        match &self.newest {
            Some((at, newest)) if at.elapsed() < age => Arc::clone(newest),
            _ => self.read().await,
        }
    }

    /// Reads the directory, and publishes the reading.
    async fn read(&mut self) -> Arc<Textfiles> {
        let began = Instant::now();
        let newest = match self.reader.read(Reader::read).await {
            Ok(newest) => {
                self.hangs = false;
                newest
            }
            Err(error) => self.hanging(error),
        };
        self.newest = Some((Instant::now(), Arc::clone(&newest)));
        // Each source adds only one reading at a time. If the mailbox is closed, the agent is stopping.
        self.sink.do_send(TextfileReading {
            collected: collected(&newest, began.elapsed()),
            interval: self.interval(),
        });
        newest
    }

    /// Returns a reading without figures. Logs the error once.
    fn hanging(&mut self, error: String) -> Arc<Textfiles> {
        let path = self.path.display().to_string();
        if !std::mem::replace(&mut self.hangs, true) {
            warn!(file = %path, %error, "figures of a text file left out");
        }
        Arc::new(Textfiles::failed(path, error))
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    use actix::{Actor, Addr, Context, Handler};
    use tokio::sync::{Mutex, mpsc, watch};
    use tokio::time::timeout;

    use super::{Folder, Pace, TextfileCollector};
    use crate::messages::{ReadTextfiles, StopCollecting, TextfileReading};
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
        assert_eq!(read.error(), None);
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

    /// A fake aggregator that passes the readings on.
    struct Sink(mpsc::UnboundedSender<TextfileReading>);

    impl Actor for Sink {
        type Context = Context<Self>;
    }

    impl Handler<TextfileReading> for Sink {
        type Result = ();

        fn handle(&mut self, reading: TextfileReading, _: &mut Self::Context) {
            let _ = self.0.send(reading);
        }
    }

    struct Started {
        collector: Addr<TextfileCollector>,
        wanted: watch::Sender<bool>,
        readings: mpsc::UnboundedReceiver<TextfileReading>,
    }

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(3600);

    fn start(folder: &Path, pace: Pace) -> Started {
        let (sink, readings) = mpsc::unbounded_channel();
        let (wanted, wants) = watch::channel(false);
        let sink = Sink(sink).start().recipient();
        let folder = Folder::new(folder.to_owned(), pace, |_| false, wants, sink);
        let folder = Some(Arc::new(Mutex::new(folder)));
        Started {
            collector: TextfileCollector { folder }.start(),
            wanted,
            readings,
        }
    }

    impl Started {
        async fn next(&mut self) -> TextfileReading {
            let next = timeout(Duration::from_secs(20), self.readings.recv()).await;
            next.unwrap().unwrap()
        }

        /// Waits for a reading with this interval and this error.
        async fn until(&mut self, interval: Duration, error: Option<&str>) {
            loop {
                let reading = self.next().await;
                if reading.interval == interval && reading.collected.error.as_deref() == error {
                    return;
                }
            }
        }

        /// Whether no reading comes for ten short intervals.
        async fn is_idle(&mut self) -> bool {
            timeout(SHORT * 10, self.readings.recv()).await.is_err()
        }
    }

    #[actix::test]
    async fn the_files_are_read_seldom_while_nobody_wants_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.prom");
        fs::write(&path, "a 1\n").unwrap();
        let pace = Pace {
            short: SHORT,
            idle: LONG,
        };
        let mut started = start(folder.path(), pace);
        started.until(LONG, None).await;
        assert!(started.is_idle().await);
        started.wanted.send_replace(true);
        for _ in 0..3 {
            started.until(SHORT, None).await;
        }
        started.wanted.send_replace(false);
        started.until(LONG, None).await;
        assert!(started.is_idle().await);
        // A request is answered at once, and the aggregator gets the reading, too. A broken file is looked at until it is mended.
        fs::write(&path, "a\n").unwrap();
        let read = started.collector.send(ReadTextfiles).await.unwrap();
        let broken = format!("{}: line 1: invalid value", path.display());
        assert_eq!(read.error(), Some(broken.clone()));
        for _ in 0..3 {
            started.until(SHORT, Some(&broken)).await;
        }
        fs::write(&path, "a 2\n").unwrap();
        started.until(LONG, None).await;
        assert!(started.is_idle().await);
        started.collector.do_send(StopCollecting);
    }

    #[actix::test]
    async fn a_broken_file_is_found_while_nobody_wants_the_figures() {
        let folder = tempfile::tempdir().unwrap();
        let pace = Pace {
            short: SHORT,
            idle: SHORT * 3,
        };
        let mut started = start(folder.path(), pace);
        started.until(SHORT * 3, None).await;
        fs::write(folder.path().join("a.prom"), "a\n").unwrap();
        let broken = format!("{}/a.prom: line 1: invalid value", folder.path().display());
        started.until(SHORT, Some(&broken)).await;
        let read = super::read_once(folder.path().to_owned(), |_| false).await;
        assert_eq!(read.error, Some(broken));
        assert_eq!(read.sample.unwrap().files.len(), 1);
    }

    #[actix::test]
    async fn requests_at_the_same_time_get_the_same_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.prom"), "a 1\n").unwrap();
        let pace = Pace {
            short: LONG,
            idle: LONG,
        };
        let started = start(folder.path(), pace);
        let read = || started.collector.send(ReadTextfiles);
        let (first, second) = futures_util::future::join(read(), read()).await;
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &second.unwrap()));
        assert_eq!(first.families.len(), 1);
        let off = TextfileCollector { folder: None }.start();
        assert_eq!(
            *off.send(ReadTextfiles).await.unwrap(),
            Textfiles::default()
        );
    }
}
