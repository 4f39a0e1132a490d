use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Current, HistoryRing, LINE_FIGURES, MAX_CONTAINERS};
use crate::model::{
    CONTAINER_SERIES, Encoding, HOST_SERIES, History, Snapshot, StreamLine, SystemMetrics,
    Timestamp,
};
use crate::published::history_line;

const INTERVAL: Duration = Duration::from_secs(5);
const MINUTES_10: Duration = Duration::from_secs(600);
const ALL: Current = Current {
    system: true,
    docker: true,
};

/// A history, and the time of the next sample.
struct Recorder {
    ring: HistoryRing,
    interval: Duration,
    start: Instant,
    /// The number of recorded snapshots.
    count: u32,
    snapshot: Snapshot,
}

impl Recorder {
    fn new(period: Duration, interval: Duration) -> Self {
        let mut snapshot = Snapshot::recorded();
        snapshot.containers = Arc::default();
        Self {
            ring: HistoryRing::new(period, interval),
            interval,
            start: Instant::now(),
            count: 0,
            snapshot,
        }
    }

    fn now(&self) -> Instant {
        self.start + self.interval * self.count
    }

    /// The time of the snapshot `number` in milliseconds since 1970.
    fn time(&self, number: u32) -> u64 {
        1_800_000_000_000 + (self.interval * number).as_millis() as u64
    }

    /// Records a snapshot with these containers. CPU use of the host and of the containers is the number of the snapshot.
    fn record(&mut self, names: &[&str], current: Current) {
        let number = self.count;
        let one = Snapshot::recorded().containers[0].clone();
        let containers = names.iter().map(|name| crate::model::Container {
            name: format!("/{name}").into(),
            cpu_percent: f64::from(number),
            ..one.clone()
        });
        self.snapshot.containers = Arc::new(containers.collect());
        let system = Arc::make_mut(&mut self.snapshot.system);
        system.cpu_percent = [f64::from(number)];
        self.snapshot.agent.seq = u64::from(number);
        let time = UNIX_EPOCH + Duration::from_millis(self.time(number));
        self.snapshot.timestamp = Timestamp(time);
        let now = self.now();
        self.ring.record(&self.snapshot, current, now);
        self.count += 1;
    }

    /// The lines that a new client gets.
    fn lines(&self, period: Duration, after: Option<u64>) -> Vec<History> {
        let mut progress = self.ring.begin(period, after, self.now());
        std::iter::from_fn(|| self.ring.next(&mut progress)).collect()
    }

    fn line(&self) -> History {
        let lines = self.lines(MINUTES_10 * 6, None);
        assert_eq!(lines.len(), 1);
        lines.into_iter().next().unwrap()
    }
}

fn column(figures: impl IntoIterator<Item = Option<u32>>) -> Vec<Option<f32>> {
    let figures = figures.into_iter();
    figures.map(|it| it.map(|it| it as f32)).collect()
}

#[test]
fn the_samples_of_the_period_are_kept_oldest_first() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    assert_eq!(recorder.line().times, Vec::<u64>::new());
    for _ in 0..500 {
        recorder.record(&["web"], ALL);
    }
    let history = recorder.line();
    assert_eq!(history.interval_ms, 5000);
    let expected: Vec<_> = (380..500).map(|number| recorder.time(number)).collect();
    assert_eq!(history.times, expected);
    let numbers = column((380..500).map(Some));
    assert_eq!(history.host["cpu"].0, numbers);
    assert_eq!(history.containers["web"]["cpu"].0, numbers);
    // The recorded host has one file system and no swap.
    let has = |name: &&str| history.host.contains_key(*name);
    let without: Vec<_> = HOST_SERIES.iter().filter(|name| !has(name)).collect();
    assert_eq!(without, [&"swap.used"]);
    assert!(has(&"disk.used:/"), "{history:?}");
}

#[test]
fn a_client_gets_only_what_it_asks_for() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    for _ in 0..20 {
        recorder.record(&[], ALL);
    }
    let times = |period: u64, after: Option<u64>| {
        let lines = recorder.lines(Duration::from_secs(period), after);
        lines[0].times.clone()
    };
    // The newest sample is 5 s old.
    assert_eq!(times(10, None), [recorder.time(18), recorder.time(19)]);
    assert_eq!(times(1, None), Vec::<u64>::new());
    assert_eq!(times(600, Some(recorder.time(18))), [recorder.time(19)]);
    assert_eq!(times(600, Some(recorder.time(19))), Vec::<u64>::new());
    assert_eq!(times(600, Some(0)).len(), 20);
}

#[test]
fn a_source_that_failed_leaves_a_gap() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    recorder.record(&["web"], ALL);
    let without = |system, docker| Current { system, docker };
    recorder.record(&["web"], without(false, true));
    recorder.record(&["web"], without(true, false));
    recorder.record(&["web"], ALL);
    let history = recorder.line();
    let gap = |at: u32| column((0..4).map(|number| Some(number).filter(|it| *it != at)));
    assert_eq!(history.host["cpu"].0, gap(1));
    assert_eq!(history.containers["web"]["cpu"].0, gap(2));
    let up = [Some(1.0), Some(1.0), None, Some(1.0)];
    assert_eq!(history.host["containers.up"].0, up);
    let disk: Vec<_> = history.host["disk.used:/"]
        .0
        .iter()
        .map(Option::is_some)
        .collect();
    assert_eq!(disk, [true, false, true, true]);
}

#[test]
fn one_family_that_failed_leaves_a_gap_in_its_series_only() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    recorder.record(&[], ALL);
    let whole = Arc::clone(&recorder.snapshot.system);
    // This is how a round publishes the last figures of families that failed.
    recorder.snapshot.system = Arc::new(SystemMetrics {
        cpu_percent: whole.cpu_percent,
        memory_used: whole.memory_used,
        load_avg: whole.load_avg,
        temperatures: whole.temperatures.clone(),
        ..SystemMetrics::default()
    });
    recorder.record(&[], ALL);
    let history = recorder.line();
    for name in [
        "cpu",
        "memory.used",
        "load1",
        "net.in",
        "disk.read",
        "disk.used:/",
    ] {
        let column = &history.host[name].0;
        assert!(
            column[0].is_some() && column[1].is_none(),
            "{name}: {column:?}"
        );
    }
    assert!(history.host["temperature"].0.iter().all(Option::is_some));
}

#[test]
fn a_container_that_came_and_went_has_figures_only_while_it_ran() {
    let mut recorder = Recorder::new(Duration::from_secs(60), INTERVAL);
    let runs = |number: u32| (3..5).contains(&number) || number == 7;
    for number in 0..10 {
        recorder.record(
            if runs(number) {
                &["job", "web"]
            } else {
                &["web"]
            },
            ALL,
        );
    }
    let history = recorder.line();
    let expected = column((0..10).map(|number| Some(number).filter(|it| runs(*it))));
    assert_eq!(history.containers["job"]["cpu"].0, expected);
    assert_eq!(
        history.containers["web"]["cpu"].0,
        column((0..10).map(Some))
    );
    // It is forgotten when its newest sample is too old.
    for _ in 0..9 {
        recorder.record(&["web"], ALL);
    }
    assert!(recorder.line().containers.contains_key("job"));
    recorder.record(&["web"], ALL);
    let history = recorder.line();
    assert_eq!(history.containers.keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!(recorder.ring.containers.len(), 1);
}

#[test]
fn the_history_is_off_with_a_period_of_zero() {
    let mut recorder = Recorder::new(Duration::ZERO, INTERVAL);
    recorder.record(&["web"], ALL);
    assert_eq!(recorder.line(), History::default());
    assert!(recorder.ring.containers.is_empty() && recorder.ring.samples.is_empty());
}

#[test]
fn a_short_interval_gives_no_more_samples_than_the_limit() {
    let interval = Duration::from_millis(100);
    let mut recorder = Recorder::new(MINUTES_10, interval);
    for _ in 0..7000 {
        recorder.record(&[], ALL);
    }
    let history = recorder.line();
    assert_eq!(history.interval_ms, 900);
    let steps = history.times.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(steps.collect::<BTreeSet<_>>(), BTreeSet::from([900]));
    assert!(
        (660..=720).contains(&history.times.len()),
        "{}",
        history.times.len()
    );
}

#[test]
fn after_a_pause_of_the_agent_no_sample_is_older_than_the_period() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    for _ in 0..50 {
        recorder.record(&["web"], ALL);
    }
    recorder.count += 115;
    recorder.record(&["web"], ALL);
    let history = recorder.line();
    let expected: Vec<_> = (46..50).chain([165]).map(|it| recorder.time(it)).collect();
    assert_eq!(history.times, expected);
}

/// The bytes of the numbers in memory.
fn bytes(ring: &HistoryRing) -> usize {
    let host = ring.host.rows.capacity() * HOST_SERIES.len();
    let disks = ring.disks.values().map(|it| it.rows.capacity());
    let containers = ring.containers.values();
    let containers = containers.map(|it| it.rows.capacity() * CONTAINER_SERIES.len());
    let numbers = host + disks.sum::<usize>() + containers.sum::<usize>();
    4 * numbers + 24 * ring.samples.capacity()
}

#[test]
fn the_memory_of_the_history_has_a_limit() {
    let mut recorder = Recorder::new(MINUTES_10 * 6, INTERVAL);
    let all: Vec<String> = (0..100)
        .map(|number| format!("container-{number}"))
        .collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    for _ in 0..1000 {
        recorder.record(&names, ALL);
    }
    let rows = |it: &super::Column<7>| it.rows.capacity();
    let largest = recorder.ring.containers.values().map(rows).max();
    assert_eq!(largest, Some(720));
    // 720 samples with 28 bytes for each container.
    let bytes = bytes(&recorder.ring);
    assert!((2_000_000..2_200_000).contains(&bytes), "{bytes}");
}

#[test]
fn containers_that_ended_first_make_room_for_others() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    // In each round, 40 other containers run beside one that stays.
    for round in 0..100 {
        let mut all: Vec<String> = (0..40)
            .map(|number| format!("job-{round}-{number}"))
            .collect();
        all.push("web".to_owned());
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        recorder.record(&names, ALL);
    }
    let ring = &recorder.ring;
    assert_eq!(ring.containers.len(), MAX_CONTAINERS);
    let round_99 = (0..40).all(|number| {
        let name = format!("job-99-{number}");
        ring.containers.contains_key(name.as_str())
    });
    assert!(round_99);
    assert!(!ring.containers.contains_key("job-50-0"));
    assert_eq!(ring.containers["web"].rows.len(), 100);
    // A job has one sample.
    assert!(bytes(ring) < 600_000, "{}", bytes(ring));
}

#[test]
fn more_containers_than_the_limit_do_not_replace_one_another() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    let all: Vec<String> = (0..MAX_CONTAINERS + 50)
        .map(|it| format!("c{it:05}"))
        .collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    for _ in 0..3 {
        recorder.record(&names, ALL);
    }
    let ring = &recorder.ring;
    assert_eq!(ring.containers.len(), MAX_CONTAINERS);
    assert!(
        ring.containers
            .values()
            .all(|column| column.rows.len() == 3)
    );
}

#[test]
fn many_containers_come_in_several_lines_and_each_once() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    let all: Vec<String> = (0..300).map(|number| format!("c{number:03}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    for _ in 0..120 {
        recorder.record(&names, ALL);
    }
    let lines = recorder.lines(MINUTES_10, None);
    assert!(lines.len() > 5, "{}", lines.len());
    let received: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.containers.keys().map(String::as_str))
        .collect();
    assert_eq!(received, names);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line.host.is_empty(), number > 0);
        assert_eq!(line.times.len(), 120);
        let figures = line.containers.values().flat_map(|it| it.values());
        let figures: usize = figures.map(|it| it.0.len()).sum();
        assert!(figures <= LINE_FIGURES, "{figures}");
        let encoded = history_line(line, Encoding::Json).unwrap();
        assert!(encoded.len() < 320 * 1024, "{}", encoded.len());
    }
}

#[test]
fn samples_that_come_while_a_client_reads_are_not_lost() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    let all: Vec<String> = (0..300).map(|number| format!("c{number:03}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    for _ in 0..100 {
        recorder.record(&names, ALL);
    }
    let mut progress = recorder.ring.begin(MINUTES_10, None, recorder.now());
    let mut lines = Vec::new();
    while let Some(line) = recorder.ring.next(&mut progress) {
        lines.push(line);
        if lines.len() <= 3 {
            recorder.record(&names, ALL);
        }
    }
    for name in ["c000", "c150", "c299"] {
        let columns = lines.iter().filter_map(|line| line.containers.get(name));
        let figures: Vec<_> = columns.flat_map(|column| column["cpu"].0.clone()).collect();
        assert_eq!(figures, column((0..103).map(Some)), "{name}");
    }
    let host = lines.iter().filter_map(|line| line.host.get("cpu"));
    let host: Vec<_> = host.flat_map(|column| column.0.clone()).collect();
    assert_eq!(host, column((0..103).map(Some)));
    // The old samples can also become too old while a client reads.
    let mut progress = recorder.ring.begin(MINUTES_10, None, recorder.now());
    let first = recorder.ring.next(&mut progress).unwrap();
    for _ in 0..60 {
        recorder.record(&names, ALL);
    }
    let second = recorder.ring.next(&mut progress).unwrap();
    assert_eq!(first.times.len(), 103);
    assert_eq!(second.times[..], first.times[43..]);
    for column in second.containers.values().flat_map(|it| it.values()) {
        assert_eq!(column.0.len(), second.times.len());
    }
}

#[test]
fn the_client_library_reads_the_same_figures_from_the_line() {
    let mut recorder = Recorder::new(MINUTES_10, INTERVAL);
    recorder.record(&["web"], ALL);
    recorder.record(&[], ALL);
    let history = recorder.line();
    assert_eq!(history.containers["web"]["cpu"].0, [Some(0.0), None]);
    let line = history_line(&history, Encoding::Json).unwrap();
    let read = StreamLine::read(&line).unwrap();
    assert_eq!(read, StreamLine::History(Box::new(history.clone())));
    let frame = history_line(&history, Encoding::Zstd).unwrap();
    assert_eq!(zstd::decode_all(&frame[..]).unwrap(), line);
}

/// Prints what the history costs with 100 containers: `cargo test --release --lib history_costs -- --nocapture`.
#[test]
fn history_costs_of_100_containers() {
    let all: Vec<String> = (0..100)
        .map(|number| format!("shop-service-{number}"))
        .collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    for minutes in [10, 60] {
        let mut recorder = Recorder::new(Duration::from_secs(60 * minutes), INTERVAL);
        for _ in 0..1000 {
            recorder.record(&names, ALL);
        }
        let started = SystemTime::now();
        for _ in 0..1000 {
            recorder.count += 1;
            let now = recorder.now();
            recorder.ring.record(&recorder.snapshot, ALL, now);
        }
        let round = started.elapsed().unwrap() / 1000;
        let started = SystemTime::now();
        let lines = recorder.lines(MINUTES_10 * 6, None);
        let lines: Vec<_> = lines
            .iter()
            .map(|line| history_line(line, Encoding::Json).unwrap().len())
            .collect();
        let encoding = started.elapsed().unwrap();
        let (limit, samples) = (bytes(&recorder.ring), 12 * minutes as usize);
        assert!(limit < samples * 3100, "{limit}");
        assert!(
            lines.iter().sum::<usize>() < samples * 100 * 60,
            "{lines:?}"
        );
        println!(
            "{minutes} min: {} bytes, {round:?} a sample, {} lines with {} bytes in {encoding:?}",
            bytes(&recorder.ring),
            lines.len(),
            lines.iter().sum::<usize>()
        );
    }
}
