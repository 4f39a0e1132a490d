//! Tests of the aggregator. This file is long: all of these tests use the same fake sessions and samples.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::subscribers::MAX_HISTORY;
use super::{Aggregator, FIRST_SNAPSHOT_WITHIN, NewestSamples, SourceState};
use crate::messages::{
    AddOutput, CatchUp, Collected, Delivery, DockerSample, HistorySent, KernelReading, LogSample,
    News, Publication, StopPublishing, Subscribe, SystemSample, TextfileReading, Unsubscribe,
};
use crate::model::{
    ContainerEvent, EncodedLines, EventAction, Events, FileLog, FileOffset, FilePlace, LogLines,
    LogMode, LogPosition, LogRange, Options, Place, RangeLines, ReadLimits, ReadLines, ReadLog,
    Sections, StderrLines, StreamLine, Timestamp,
};
use crate::published::EncodedSnapshot;
use crate::supervisor::Supervisor;

const INTERVAL: Duration = Duration::from_secs(5);

/// A fake session. Reports the time in seconds and the snapshot's number for each delivery. The final delivery has no number.
struct Session(mpsc::UnboundedSender<(f64, Option<u64>)>, Instant);

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Session {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        let seq = match delivery {
            Delivery::Snapshot(encoded) => Some(encoded.seq),
            Delivery::End(_) => None,
            Delivery::History(_) => panic!("a history for a client that did not ask"),
        };
        let _ = self.0.send((self.1.elapsed().as_secs_f64(), seq));
    }
}

/// A fake output. Reports the number of each snapshot and the number of clients in the snapshot. Reports None at the end.
struct Output(mpsc::UnboundedSender<Option<(u64, u64)>>);

impl Actor for Output {
    type Context = Context<Self>;
}

impl Handler<Publication> for Output {
    type Result = ();

    fn handle(&mut self, publication: Publication, _: &mut Self::Context) {
        let seen = match publication {
            Publication::Published(published) => {
                Some((published.seq(), published.snapshot().agent.clients))
            }
            Publication::End(_) => None,
        };
        let _ = self.0.send(seen);
    }
}

fn output(aggregator: &Addr<Aggregator>) -> mpsc::UnboundedReceiver<Option<(u64, u64)>> {
    let (notes, seen) = mpsc::unbounded_channel();
    let output = Output(notes).start().recipient();
    aggregator.do_send(AddOutput {
        output,
        sections: Sections::DEFAULT,
    });
    seen
}

type Deliveries = mpsc::UnboundedReceiver<(f64, Option<u64>)>;

fn subscribe(aggregator: &Addr<Aggregator>, client: u64, start: Instant) -> Deliveries {
    let (notes, deliveries) = mpsc::unbounded_channel();
    aggregator.do_send(Subscribe {
        client,
        options: Options::default(),
        deliveries: Session(notes, start).start().recipient(),
    });
    deliveries
}

fn aggregator() -> Addr<Aggregator> {
    aggregator_of(
        SourceState::disabled("docker"),
        SourceState::disabled("logs"),
    )
}

fn aggregator_of(
    docker: SourceState<DockerSample>,
    logs: SourceState<LogSample>,
) -> Addr<Aggregator> {
    new_aggregator(docker, logs).start()
}

fn new_aggregator(docker: SourceState<DockerSample>, logs: SourceState<LogSample>) -> Aggregator {
    let newest = NewestSamples {
        system: SourceState::enabled("system", INTERVAL),
        docker,
        logs,
        kernel: None,
        textfile: None,
        reports: Arc::default(),
        run: "0123456789abcdef".to_owned(),
    };
    Aggregator::new(INTERVAL, newest, Supervisor::default())
}

fn sample() -> Collected<SystemSample> {
    collected(SystemSample::default())
}

fn collected<T>(sample: T) -> Collected<T> {
    Collected {
        sample: Some(sample),
        error: None,
        collected_at: SystemTime::now(),
        duration: Duration::ZERO,
        stretched: None,
    }
}

async fn next(deliveries: &mut Deliveries) -> (f64, Option<u64>) {
    let (at, seq) = deliveries.recv().await.unwrap();
    ((at * 10.0).round() / 10.0, seq)
}

#[actix::test]
async fn the_first_snapshot_goes_out_when_all_sources_have_answered() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    let mut deliveries = subscribe(&aggregator, 1, start);
    tokio::time::sleep(Duration::from_secs(1)).await;
    aggregator.do_send(sample());
    assert_eq!(next(&mut deliveries).await, (1.0, Some(1)));
    // More samples do not change the times of the next snapshots.
    aggregator.do_send(sample());
    assert_eq!(next(&mut deliveries).await, (6.2, Some(2)));
    assert_eq!(next(&mut deliveries).await, (11.2, Some(3)));
}

#[actix::test]
async fn a_source_that_does_not_answer_delays_the_first_snapshot_by_a_limited_time() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    let mut deliveries = subscribe(&aggregator, 1, start);
    let within = FIRST_SNAPSHOT_WITHIN.as_secs_f64();
    assert_eq!(next(&mut deliveries).await, (within, Some(1)));
    assert_eq!(next(&mut deliveries).await, (within + 5.2, Some(2)));
}

#[actix::test]
async fn a_new_client_gets_the_newest_snapshot_immediately() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    aggregator.do_send(sample());
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut deliveries = subscribe(&aggregator, 1, start);
    assert_eq!(next(&mut deliveries).await, (7.0, Some(2)));
    assert_eq!(next(&mut deliveries).await, (10.2, Some(3)));
    aggregator.do_send(Unsubscribe { client: 1 });
    tokio::time::sleep(INTERVAL * 2).await;
    assert!(deliveries.try_recv().is_err());
}

#[actix::test]
async fn an_output_gets_every_snapshot_and_does_not_count_as_a_client() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    let mut early = output(&aggregator);
    let mut client = subscribe(&aggregator, 1, start);
    aggregator.do_send(sample());
    assert_eq!(early.recv().await, Some(Some((1, 1))));
    assert_eq!(next(&mut client).await.1, Some(1));
    // An output that is added later gets the newest snapshot immediately.
    let mut late = output(&aggregator);
    for seq in [1, 2] {
        assert_eq!(late.recv().await, Some(Some((seq, 1))));
    }
    assert_eq!(early.recv().await, Some(Some((2, 1))));
    aggregator.do_send(StopPublishing { within: INTERVAL });
    assert_eq!(
        (early.recv().await, late.recv().await),
        (Some(None), Some(None))
    );
    assert_eq!(output(&aggregator).recv().await, Some(None));
}

#[actix::test]
async fn stopping_ends_present_and_later_sessions() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    aggregator.do_send(sample());
    let mut early = subscribe(&aggregator, 1, start);
    assert_eq!(next(&mut early).await.1, Some(1));
    aggregator.do_send(StopPublishing { within: INTERVAL });
    assert_eq!(next(&mut early).await.1, None);
    let mut late = subscribe(&aggregator, 2, start);
    assert_eq!(next(&mut late).await.1, None);
    tokio::time::sleep(INTERVAL * 2).await;
    assert!(early.try_recv().is_err() && late.try_recv().is_err());
}

/// A fake session that passes each delivery to the test.
struct Keep(mpsc::UnboundedSender<Delivery>);

impl Actor for Keep {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Keep {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        let _ = self.0.send(delivery);
    }
}

type Kept = mpsc::UnboundedReceiver<Delivery>;

fn keep(aggregator: &Addr<Aggregator>, client: u64, options: Options) -> Kept {
    let (notes, kept) = mpsc::unbounded_channel();
    aggregator.do_send(Subscribe {
        client,
        options,
        deliveries: Keep(notes).start().recipient(),
    });
    kept
}

async fn snapshot(kept: &mut Kept) -> Arc<EncodedSnapshot> {
    match kept.recv().await {
        Some(Delivery::Snapshot(snapshot)) => snapshot,
        other => panic!("expected a snapshot, got {other:?}"),
    }
}

#[actix::test]
async fn sessions_with_the_same_options_share_one_encoded_variant() {
    let aggregator = aggregator();
    let [mut one, mut other] = [1, 2].map(|client| keep(&aggregator, client, Options::default()));
    aggregator.do_send(sample());
    let (one, other) = (snapshot(&mut one).await, snapshot(&mut other).await);
    assert!(Arc::ptr_eq(&one, &other));
}

fn new_lines(every: u32) -> Options {
    let mut options = Options::default();
    options.variant.logs = LogMode::New;
    options.every = NonZeroU32::new(every).unwrap();
    options
}

/// Returns the numbers of the next `count` snapshots. With each number, returns the number of the snapshot after which the log
/// lines begin. `known` has the numbers of snapshots by the ids of their positions.
async fn followed(
    kept: &mut Kept,
    count: usize,
    known: &mut HashMap<u64, u64>,
) -> Vec<(u64, Option<u64>)> {
    let mut followed = Vec::new();
    for _ in 0..count {
        let snapshot = snapshot(kept).await;
        known.insert(snapshot.since.id, snapshot.seq);
        followed.push((snapshot.seq, snapshot.follows.map(|id| known[&id])));
    }
    followed
}

#[actix::test]
async fn new_log_lines_begin_after_the_previous_snapshot_of_the_session() {
    tokio::time::pause();
    let aggregator = aggregator();
    let mut known = HashMap::new();
    let mut first = keep(&aggregator, 1, new_lines(1));
    let mut third = keep(&aggregator, 2, new_lines(3));
    aggregator.do_send(sample());
    assert_eq!(
        followed(&mut first, 4, &mut known).await,
        [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3))]
    );
    // This session subscribes later, and gets only every fifth snapshot.
    let mut fifth = keep(&aggregator, 3, new_lines(5));
    assert_eq!(
        followed(&mut fifth, 3, &mut known).await,
        [(4, None), (9, Some(4)), (14, Some(9))]
    );
    assert_eq!(
        followed(&mut third, 4, &mut known).await,
        [(1, None), (4, Some(1)), (7, Some(4)), (10, Some(7))]
    );
}

#[actix::test]
async fn a_session_that_asks_to_catch_up_gets_all_new_log_lines() {
    tokio::time::pause();
    let aggregator = aggregator();
    let mut kept = keep(&aggregator, 1, new_lines(100));
    let mut each = keep(&aggregator, 3, new_lines(1));
    aggregator.do_send(sample());
    let first = snapshot(&mut kept).await;
    assert_eq!((first.seq, first.follows), (1, None));
    // The position of snapshot 1 is no longer stored, so the log lines begin after the oldest stored position.
    let late = snapshot(&mut kept).await;
    let mut known = HashMap::new();
    followed(&mut each, 101, &mut known).await;
    let follows = late.follows.map(|id| known[&id]);
    assert_eq!((late.seq, follows), (101, Some(101 - MAX_HISTORY as u64)));
    aggregator.do_send(CatchUp {
        client: 1,
        since: first.since.clone(),
        is_news: false,
    });
    let whole = snapshot(&mut kept).await;
    assert_eq!((whole.seq, whole.follows), (101, Some(first.since.id)));
    // The second request gets the same encoded variant. An unknown client gets nothing.
    for client in [1, 2] {
        aggregator.do_send(CatchUp {
            client,
            since: first.since.clone(),
            is_news: false,
        });
    }
    assert!(Arc::ptr_eq(&snapshot(&mut kept).await, &whole));
    assert!(kept.try_recv().is_err());
}

fn options(text: &str) -> Options {
    Options::parse(text.as_bytes()).unwrap()
}

/// Returns the JSON line of the next delivery.
async fn line(kept: &mut Kept) -> serde_json::Value {
    let snapshot = snapshot(kept).await;
    let line = [&snapshot.shared, snapshot.ending(0).as_ref()].concat();
    serde_json::from_slice(&line).unwrap()
}

/// Returns the first `count` events of containers with the names 0, 1 and so on.
fn events(count: u64) -> Arc<Events> {
    let mut events = Events::default();
    for number in 0..count {
        let event = ContainerEvent {
            time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(number)),
            action: EventAction::Start,
            container: number.to_string(),
            id: "0123456789ab".to_owned(),
            image: String::new(),
            exit_code: None,
            health: None,
            renamed_from: None,
        };
        events.push(event, false);
    }
    Arc::new(events)
}

fn containers(line: &serde_json::Value) -> Vec<&str> {
    let events = line["events"].as_array().unwrap();
    let names = events.iter().map(|event| event["container"].as_str());
    names.map(Option::unwrap).collect()
}

#[actix::test]
async fn events_between_snapshots_come_once_also_to_a_client_that_resumes() {
    tokio::time::pause();
    let docker = |count| DockerSample {
        events: events(count),
        ..DockerSample::default()
    };
    let enabled = SourceState::enabled("docker", INTERVAL);
    let aggregator = aggregator_of(enabled, SourceState::disabled("logs"));
    aggregator.do_send(sample());
    aggregator.do_send(collected(docker(1)));
    let mut live = keep(
        &aggregator,
        1,
        options(r#"{"sections":["events"],"live":true}"#),
    );
    let first = line(&mut live).await;
    assert_eq!(
        (containers(&first), &first["live"]),
        (vec!["0"], &serde_json::Value::Null)
    );
    aggregator.do_send(News(events(3)));
    let news = line(&mut live).await;
    assert_eq!(
        (containers(&news), news["live"].as_bool()),
        (vec!["1", "2"], Some(true))
    );
    // The cursor of the first line is older than these events.
    let cursor = first["agent"]["cursor"].as_str().unwrap();
    let resuming = format!(r#"{{"sections":["events"],"resume":"{cursor}"}}"#);
    let mut resumed = keep(&aggregator, 2, options(&resuming));
    assert_eq!(containers(&line(&mut resumed).await), ["1", "2"]);
    aggregator.do_send(News(events(4)));
    assert_eq!(containers(&line(&mut live).await), ["3"]);
    aggregator.do_send(collected(docker(5)));
    assert_eq!(containers(&line(&mut live).await), ["4"]);
    assert_eq!(containers(&line(&mut resumed).await), ["3", "4"]);
    for client in [&mut live, &mut resumed] {
        assert!(containers(&line(client).await).is_empty());
    }
}

#[actix::test]
async fn the_kernels_own_figures_are_wanted_while_a_client_gets_them() {
    tokio::time::pause();
    let (wants_kernel, mut wanted) = watch::channel(false);
    let disabled = (
        SourceState::disabled("docker"),
        SourceState::disabled("logs"),
    );
    let aggregator = new_aggregator(disabled.0, disabled.1);
    let aggregator = aggregator.with_kernel(wants_kernel).start();
    aggregator.do_send(sample());
    let reading = || KernelReading(Arc::default());
    // The aggregator drops a reading if no client wants it.
    aggregator.do_send(reading());
    let mut plain = keep(&aggregator, 1, Options::default());
    assert!(line(&mut plain).await.get("kernel").is_none());
    assert!(!*wanted.borrow());
    let mut client = keep(&aggregator, 2, options(r#"{"sections":["kernel"]}"#));
    assert!(line(&mut client).await.get("kernel").is_none());
    assert!(*wanted.borrow_and_update());
    aggregator.do_send(reading());
    assert!(line(&mut client).await["kernel"].is_object());
    assert!(line(&mut plain).await.get("kernel").is_none());
    aggregator.do_send(Unsubscribe { client: 2 });
    wanted.changed().await.unwrap();
    assert!(!*wanted.borrow());
}

#[actix::test]
async fn text_files_are_a_source_and_a_section_for_clients_that_ask() {
    tokio::time::pause();
    let (wants_textfile, mut wanted) = watch::channel(false);
    let mut aggregator = new_aggregator(
        SourceState::disabled("docker"),
        SourceState::disabled("logs"),
    );
    aggregator.newest.textfile = Some(SourceState::enabled("textfile", INTERVAL));
    let aggregator = aggregator.with_textfile(wants_textfile).start();
    let reading = |error: Option<&str>, interval| TextfileReading {
        collected: Collected {
            error: error.map(str::to_owned),
            ..collected(Arc::default())
        },
        interval,
    };
    aggregator.do_send(sample());
    let mut plain = keep(&aggregator, 1, Options::default());
    assert!(!*wanted.borrow_and_update());
    // The first snapshot waits for the first reading.
    let idle = INTERVAL * 12;
    aggregator.do_send(reading(Some("/t: cannot be read"), idle));
    let first = line(&mut plain).await;
    assert!(first.get("textfile").is_none());
    assert_eq!(first["status"], "degraded");
    let source = &first["sources"]["textfile"];
    assert_eq!(source["status"], "failing");
    assert_eq!(source["error"], "/t: cannot be read");
    assert_eq!(source["interval_ms"], 60_000);
    let mut client = keep(&aggregator, 2, options(r#"{"sections":["textfile"]}"#));
    let first = line(&mut client).await;
    assert!(first["textfile"].is_array() && first.get("system").is_none());
    assert!(*wanted.borrow_and_update());
    aggregator.do_send(reading(None, INTERVAL));
    let next = line(&mut client).await;
    assert_eq!(next["sources"]["textfile"]["status"], "ok");
    assert_eq!(next["sources"]["textfile"]["interval_ms"], 5000);
    aggregator.do_send(Unsubscribe { client: 2 });
    wanted.changed().await.unwrap();
    assert!(!*wanted.borrow());
}

/// Returns a reading of a log with the lines 1 to `count`.
fn log(count: u64) -> LogSample {
    let container: Arc<str> = "0123456789abcdef".into();
    let position = |line| LogPosition { line, place: None };
    let texts: Vec<_> = (1..=count).map(|number| format!("T {number}")).collect();
    let lines = EncodedLines::following(
        &EncodedLines::default(),
        0..0,
        &texts,
        &StderrLines::default(),
        0,
    );
    let place = Place {
        container: Arc::clone(&container),
        end: count,
        origin: position(0),
        created: 0,
    };
    let lines = Arc::new(LogLines::new(Arc::new(lines), place));
    LogSample {
        logs: Arc::new([("web".to_owned(), lines)].into()),
        positions: Arc::new(std::iter::once((container, position(count))).collect()),
        ..LogSample::default()
    }
}

#[actix::test]
async fn log_lines_come_once_also_if_the_newest_snapshot_has_no_logs() {
    tokio::time::pause();
    let logs = SourceState::enabled("logs", INTERVAL);
    let aggregator = aggregator_of(SourceState::disabled("docker"), logs);
    aggregator.do_send(sample());
    let options = options(r#"{"sections":["logs"],"logs":"new","live":true}"#);
    let mut live = keep(&aggregator, 1, options);
    assert!(
        line(&mut live).await["logs"]
            .as_object()
            .unwrap()
            .is_empty()
    );
    aggregator.do_send(collected(log(1)));
    aggregator.do_send(News(log(2)));
    assert_eq!(
        line(&mut live).await["logs"]["web"],
        serde_json::json!(["T 1", "T 2"])
    );
    // The same reading again has nothing new.
    aggregator.do_send(News(log(2)));
    aggregator.do_send(News(log(3)));
    assert_eq!(
        line(&mut live).await["logs"]["web"],
        serde_json::json!(["T 3"])
    );
    let snapshot = line(&mut live).await;
    assert!(
        snapshot["live"].is_null() && snapshot["logs"]["web"].is_null(),
        "{snapshot}"
    );
}

/// A fake log in files. Each reading gives at most ten log lines, and is counted.
#[derive(Default)]
struct TenLines(AtomicU64);

impl ReadLog for TenLines {
    fn is_in_files(&self) -> bool {
        true
    }

    fn read(&self, after: &LogPosition, to: &FilePlace, _: ReadLimits) -> io::Result<ReadLines> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let end = to.line.min(after.line + 10);
        let texts: Vec<_> = (after.line + 1..=end).map(|n| format!("T {n}")).collect();
        let lines = EncodedLines::following(
            &EncodedLines::default(),
            0..0,
            &texts,
            &StderrLines::default(),
            0,
        );
        Ok(ReadLines {
            lines: Arc::new(lines),
            new: 0..texts.len(),
            dropped: 0,
            end: in_file(end),
        })
    }

    fn range(&self, _: &LogRange) -> io::Result<RangeLines> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn in_file(line: u64) -> LogPosition {
    let at = FileOffset::default();
    let place = Some(Arc::new(FilePlace { at, line }));
    LogPosition { line, place }
}

/// Returns a reading of a log in files with the lines 1 to `count`. The sample itself has only the newest line.
fn log_in_files(count: u64, file: &Arc<TenLines>) -> LogSample {
    let container: Arc<str> = "0123456789abcdef".into();
    let newest = [format!("T {count}")];
    let lines = EncodedLines::following(
        &EncodedLines::default(),
        0..0,
        &newest,
        &StderrLines::default(),
        0,
    );
    let place = Place {
        container: Arc::clone(&container),
        end: count,
        origin: in_file(0),
        created: 0,
    };
    let lines = Arc::new(LogLines::new(Arc::new(lines), place));
    let file: Arc<dyn ReadLog> = Arc::<TenLines>::clone(file);
    LogSample {
        logs: Arc::new([("web".to_owned(), lines)].into()),
        files: Arc::new(std::iter::once((Arc::clone(&container), FileLog(file))).collect()),
        positions: Arc::new(std::iter::once((container, in_file(count))).collect()),
        ..LogSample::default()
    }
}

/// Sends a session's requests until it has received all log lines, and returns what it receives. `newest` is what it has received last.
async fn rest(
    aggregator: &Addr<Aggregator>,
    client: u64,
    session: &mut Kept,
    newest: &Arc<EncodedSnapshot>,
) -> Vec<Arc<EncodedSnapshot>> {
    let mut received = Vec::new();
    let mut newest = Arc::clone(newest);
    while newest.more {
        aggregator.do_send(CatchUp {
            client,
            since: newest.since.clone(),
            is_news: false,
        });
        newest = snapshot(session).await;
        received.push(Arc::clone(&newest));
    }
    received
}

#[actix::test]
async fn sessions_that_read_at_different_speeds_share_the_readings() {
    tokio::time::pause();
    let file = Arc::new(TenLines::default());
    let logs = SourceState::enabled("logs", INTERVAL);
    let aggregator = aggregator_of(SourceState::disabled("docker"), logs);
    aggregator.do_send(collected(log_in_files(1, &file)));
    aggregator.do_send(sample());
    let [mut one, mut two, mut three] =
        [1, 2, 3].map(|client| keep(&aggregator, client, new_lines(1)));
    for session in [&mut one, &mut two, &mut three] {
        snapshot(session).await;
    }
    aggregator.do_send(collected(log_in_files(35, &file)));
    let first = snapshot(&mut one).await;
    let mut received = [Arc::clone(&first)].to_vec();
    received.extend(rest(&aggregator, 1, &mut one, &first).await);
    assert_eq!(received.len(), 4);
    // The second session gets the same bytes without further readings.
    let second = snapshot(&mut two).await;
    assert!(Arc::ptr_eq(&second, &first));
    let of_second = rest(&aggregator, 2, &mut two, &second).await;
    let same = |(own, of_first)| Arc::ptr_eq(own, of_first);
    assert_eq!(of_second.len(), 3);
    assert!(of_second.iter().zip(&received[1..]).all(same));
    assert_eq!(file.0.load(Ordering::Relaxed), 4);
    // The third session requests them only after the next snapshot, and then comes to the position of the first session.
    let third = snapshot(&mut three).await;
    assert!(Arc::ptr_eq(&third, &first));
    aggregator.do_send(collected(log_in_files(65, &file)));
    let first = snapshot(&mut one).await;
    received.push(Arc::clone(&first));
    received.extend(rest(&aggregator, 1, &mut one, &first).await);
    let of_third = rest(&aggregator, 3, &mut three, &third).await;
    let bytes = |lines: &[Arc<EncodedSnapshot>]| -> Vec<_> {
        lines
            .iter()
            .map(|line| (line.since.id, line.shared.clone()))
            .collect()
    };
    assert_eq!(bytes(&of_third), bytes(&received[1..]));
    assert_eq!(file.0.load(Ordering::Relaxed), 7);
}

/// A fake session that reports each delivery: the number of samples in a history, or the number of a snapshot.
struct HistorySession(mpsc::UnboundedSender<(usize, Option<u64>)>);

impl Actor for HistorySession {
    type Context = Context<Self>;
}

impl Handler<Delivery> for HistorySession {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        let told = match delivery {
            Delivery::Snapshot(encoded) => (0, Some(encoded.seq)),
            Delivery::History(line) => match StreamLine::read(&line) {
                Ok(StreamLine::History(history)) => (history.times.len(), None),
                other => panic!("{other:?}"),
            },
            Delivery::End(_) => (0, None),
        };
        let _ = self.0.send(told);
    }
}

#[actix::test]
async fn the_history_comes_before_the_first_snapshot_and_has_what_came_meanwhile() {
    tokio::time::pause();
    let aggregator = new_aggregator(
        SourceState::disabled("docker"),
        SourceState::disabled("logs"),
    );
    let aggregator = aggregator.with_history(Duration::from_secs(600)).start();
    aggregator.send(sample()).await.unwrap();
    tokio::time::sleep(INTERVAL * 2).await;
    let (notes, mut deliveries) = mpsc::unbounded_channel();
    aggregator.do_send(Subscribe {
        client: 7,
        options: options(r#"{"history":true}"#),
        deliveries: HistorySession(notes).start().recipient(),
    });
    let (samples, seq) = deliveries.recv().await.unwrap();
    assert!(samples >= 2 && seq.is_none(), "{samples} {seq:?}");
    // The client reads slowly. It gets no snapshot before it has read the history.
    tokio::time::sleep(INTERVAL * 3).await;
    assert!(deliveries.try_recv().is_err());
    aggregator.do_send(HistorySent { client: 7 });
    let (more, seq) = deliveries.recv().await.unwrap();
    assert!(more >= 2 && seq.is_none(), "{more} {seq:?}");
    aggregator.do_send(HistorySent { client: 7 });
    // Each snapshot is a sample, so the first snapshot is the newest sample.
    let newest = (samples + more) as u64;
    assert_eq!(deliveries.recv().await.unwrap(), (0, Some(newest)));
    assert_eq!(deliveries.recv().await.unwrap(), (0, Some(newest + 1)));
    // A message too many has no effect.
    aggregator.do_send(HistorySent { client: 7 });
    assert_eq!(deliveries.recv().await.unwrap(), (0, Some(newest + 2)));
}

#[actix::test]
async fn a_client_that_reads_its_history_hears_that_the_agent_stops() {
    tokio::time::pause();
    let aggregator = aggregator();
    let (notes, mut deliveries) = mpsc::unbounded_channel();
    aggregator.do_send(Subscribe {
        client: 7,
        options: options(r#"{"history":true}"#),
        deliveries: HistorySession(notes).start().recipient(),
    });
    // There is no snapshot yet, so the history is empty.
    assert_eq!(deliveries.recv().await.unwrap(), (0, None));
    aggregator.do_send(StopPublishing {
        within: Duration::from_secs(1),
    });
    assert_eq!(deliveries.recv().await.unwrap(), (0, None));
}
