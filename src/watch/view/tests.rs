//! Compares each view with a stored drawing. `INSTA_UPDATE=always cargo test --lib watch` stores the current drawings.
//! This file is long: it tests every view at several sizes.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::{Theme, draw};
use crate::model::Snapshot;
use crate::watch::brief::Brief;
use crate::watch::feed::LookedAt;
use crate::watch::feed::{Detail, HostUpdate, Server, Trouble, Update};
use crate::watch::screen::{Outcome, Screen};

/// A screen with a terminal in memory, and its own clock.
struct Shown {
    screen: Screen,
    terminal: Terminal<TestBackend>,
    now: Instant,
}

impl Shown {
    fn new(hosts: &[&str], width: u16, height: u16) -> Self {
        let addresses = hosts.iter().map(|&host| host.to_owned()).collect();
        Self {
            screen: Screen::new(addresses, Theme { colours: true }),
            terminal: Terminal::new(TestBackend::new(width, height)).unwrap(),
            now: Instant::now(),
        }
    }

    /// Makes a screen for hosts that publish to NATS.
    fn of_fleet(width: u16, height: u16) -> Self {
        let screen = Screen::of_fleet("hub:4222".to_owned(), Theme { colours: true });
        let mut shown = Self {
            screen,
            ..Self::new(&[], width, height)
        };
        shown.server(Server::Connected);
        shown
    }

    /// Sends an update of the connection to the server.
    fn server(&mut self, told: Server) {
        self.screen.take(Update::Server(told), self.now);
    }

    /// Sends an update of a host.
    fn news(&mut self, host: usize, told: HostUpdate) {
        self.screen.take(Update::Host { host, told }, self.now);
    }

    /// Moves the clock by a second, and sends the short form of a snapshot.
    fn brief(&mut self, host: usize, snapshot: &Value) {
        self.now += Duration::from_secs(1);
        let brief = Brief::read(snapshot.to_string().as_bytes()).unwrap();
        self.news(host, HostUpdate::Brief(Box::new(brief)));
    }

    /// Sends that a host has appeared, and then the short form of its first snapshot.
    fn appears(&mut self, host: usize, snapshot: &Value) {
        let name = snapshot["host"]["hostname"].as_str().unwrap().to_owned();
        self.news(host, HostUpdate::Appeared { name });
        self.brief(host, snapshot);
    }

    /// Moves the clock by a second, and sends a snapshot of a host.
    fn told(&mut self, host: usize, snapshot: Value, first: bool) {
        self.now += Duration::from_secs(1);
        let snapshot: Box<Snapshot> = Box::new(serde_json::from_value(snapshot).unwrap());
        let told = HostUpdate::Snapshot { snapshot, first };
        self.screen.take(Update::Host { host, told }, self.now);
    }

    /// Sends that the connection to a host has failed.
    fn down(&mut self, host: usize, why: &str, again: Option<u64>) {
        let told = HostUpdate::Down {
            why: why.to_owned(),
            again: again.map(Duration::from_secs),
        };
        self.screen.take(Update::Host { host, told }, self.now);
    }

    /// Presses keys. Returns the outcome of the final key.
    fn keys(&mut self, keys: &[KeyCode]) -> Outcome {
        let mut outcome = Outcome::Stay;
        for key in keys {
            // Some keys need the sizes that the previous drawing stored.
            self.drawn();
            outcome = self.screen.key(KeyEvent::new(*key, KeyModifiers::NONE));
        }
        outcome
    }

    fn mouse(&mut self, kind: MouseEventKind, column: u16, row: u16) {
        self.drawn();
        self.screen.mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        });
    }

    /// Draws the screen and returns its text.
    fn drawn(&mut self) -> String {
        let (screen, now) = (&mut self.screen, self.now);
        self.terminal
            .draw(|frame| draw(screen, frame, now))
            .unwrap();
        let drawn = self.terminal.backend().to_string();
        let bare = |line: &str| line.trim_matches('"').trim_end().to_owned();
        drawn.lines().map(bare).collect::<Vec<_>>().join("\n")
    }

    fn shows(&mut self, text: &str) -> bool {
        self.drawn().contains(text)
    }
}

fn text(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn container(name: &str, cpu: f64, health: Option<&str>) -> Value {
    json!({
        "id": format!("{name:0<12}"), "name": format!("/{name}"), "image": format!("registry/{name}:1"), "status": "running",
        "cpu_percent": cpu, "memory_usage": 52_428_800, "memory_limit": 104_857_600, "memory_percent": 50.0,
        "network": {"eth0": {"rx_bytes": 1024, "tx_bytes": 2048, "rx_packets": 1, "tx_packets": 2,
            "rx_bytes_per_second": 2048.0, "tx_bytes_per_second": 512.0}},
        "pids": 7, "pids_limit": 100, "health": health, "restart_count": if health.is_some() { 3 } else { 0 }, "uptime": 3700,
        "block_io": {"read_bytes": 4096, "write_bytes": 8192, "read_ops": 1, "write_ops": 2},
        "throttled_percent": 12.0, "cpu_limit": 1.5,
        "compose": {"project": "shop", "service": name}, "labels": {"team": "blue"},
    })
}

/// The snapshot with the number `seq` of a host. Only its CPU differs from the other snapshots.
fn snapshot(host: &str, seq: u64) -> Value {
    let source = |status: &str, error: Option<&str>| json!({"status": status, "collected_at": "2026-01-01T12:00:00.000Z", "duration_ms": 3, "error": error});
    json!({
        "timestamp": "2026-01-01T12:00:00.250Z", "status": "ok",
        "system": {
            "cpu_percent": [12.5 * seq as f64], "cpu_cores": [10.0, 55.0, 100.0, 0.0],
            "cpu_times": {"user": 10.0, "system": 2.0, "iowait": 0.5, "steal": 0.0, "irq": 0.0},
            "memory_used": 3072.0, "memory_total": 4096.0, "swap_used": 100.0, "swap_total": 1024.0,
            "disk_used": 45.0, "disk_total": 100.0,
            "disks": [
                {"mount": "/", "device": "/dev/sda1", "type": "ext4", "used": 45.0, "total": 100.0, "inodes_used": 5, "inodes_total": 100},
                {"mount": "/srv", "device": "nfs:/srv", "type": "nfs4", "stuck": true},
            ],
            "disk_io": [{"device": "sda", "read_bytes": 1, "write_bytes": 1, "read_ops": 1, "write_ops": 1,
                "read_bytes_per_second": 1e6, "write_bytes_per_second": 3e6, "read_ops_per_second": 1.0,
                "write_ops_per_second": 1.0, "busy_percent": 3.0}],
            "uptime": 273_600, "load_avg": {"1m": 0.42, "5m": 0.31, "15m": 0.2},
            "network": [
                {"name": "eth0", "bytes_sent": 5000, "bytes_recv": 70_000, "packets_sent": 1, "packets_recv": 1,
                    "bytes_sent_per_second": 100.0, "bytes_recv_per_second": 9000.0, "errors_recv": 2, "speed": 1000, "up": true,
                    "kind": "physical"},
                {"name": "veth12", "bytes_sent": 1, "bytes_recv": 1, "packets_sent": 1, "packets_recv": 1, "kind": "veth",
                    "up": true, "container": "db"},
            ],
            "processes": {"total": 120, "running": 1, "sleeping": 119, "blocked": 0, "stopped": 0, "zombie": 0, "threads": 300},
            "units": [
                {"name": "backup.service", "state": "failed", "sub_state": "failed", "since": "2026-01-01T11:00:00.000Z", "restarts": 5},
                {"name": "nginx.service", "state": "active", "sub_state": "running", "since": "2026-01-01T10:00:00.000Z",
                    "main_pid": 4242, "restarts": 0, "cpu_percent": 12.5, "memory": 23_456_768, "tasks": 5, "oom_kills": 0,
                    "block_io": {"read_bytes": 4096, "write_bytes": 8192, "write_bytes_per_second": 1638.4}},
            ],
            "top_processes": [{"name": "postgres", "cpu": 42.0, "mem": 3.0, "pid": 77, "memory_rss": 9_000_000, "user": "postgres",
                "container": "db"}],
            "top_memory": [
                {"name": "postgres", "cpu": 42.0, "mem": 3.0, "pid": 77},
                {"name": "java", "cpu": 1.0, "mem": 30.0, "pid": 5, "memory_rss": 900_000_000, "user": "app"},
            ],
            "top_io": [
                {"name": "rsync", "pid": 91, "user": "root", "read_bytes_per_second": 8e6, "write_bytes_per_second": 0.0},
                {"name": "postgres", "pid": 77, "user": "postgres", "container": "db", "read_bytes_per_second": 0.0,
                    "write_bytes_per_second": 3e6},
            ],
            "temperatures": [{"device": "coretemp", "sensor": "Package id 0", "celsius": 61.0, "critical": 100.0}],
        },
        "containers": [container("api", 140.2, None), container("cache", 0.1, None), container("db", 31.0, Some("unhealthy"))],
        "docker_meta": [{"id": "db0000000000", "names": ["/db"], "image": "postgres:16", "status": "Up 2 hours", "state": "running", "ports": [],
            "created": 1, "log_bytes": 12_345_678, "volumes": [{"source": "/srv/db", "destination": "/data", "mount": "/"}]}],
        "logs": {},
        "events": [
            {"time": "2026-01-01T11:59:00.000Z", "action": "die", "container": "db", "id": "db", "image": "postgres:16", "exit_code": 137},
            {"time": "2026-01-01T11:59:01.000Z", "action": "start", "container": "db", "id": "db", "image": "postgres:16"},
        ],
        "sources": {"system": source("ok", None), "docker": source("ok", None), "logs": source("ok", None)},
        "host": {"hostname": host, "os": "Debian GNU/Linux 12", "kernel": "6.1.0", "arch": "x86_64", "cpus": 4, "boot_time": 1},
        "agent": {"version": "0.1.0", "seq": seq, "clients": 1, "cpu_percent": 0.1, "memory_rss": 1, "skipped": 0},
    })
}

/// A screen with one host after four snapshots.
fn one_host(width: u16, height: u16) -> Shown {
    let mut shown = Shown::new(&["web-1:9000"], width, height);
    for seq in 1..=4 {
        shown.told(0, snapshot("web-1", seq), seq == 1);
    }
    shown
}

/// A snapshot of a host whose engine does not answer.
fn failing(host: &str) -> Value {
    let mut failing = snapshot(host, 1);
    failing["sources"]["docker"]["status"] = json!("failing");
    failing["sources"]["docker"]["error"] = json!("the engine does not answer");
    failing
}

#[test]
fn a_host_is_drawn_on_small_and_large_screens() {
    assert_snapshot!(one_host(80, 24).drawn());
    assert_snapshot!(one_host(200, 50).drawn());
}

#[test]
fn the_kind_of_virtualization_is_shown_with_the_host() {
    for (kind, expected) in [
        (json!("lxc"), "6.1.0 · lxc · agent"),
        (json!("none"), "6.1.0 · agent"),
        (Value::Null, "6.1.0 · agent"),
    ] {
        let mut shown = Shown::new(&["web-1:9000"], 120, 24);
        let mut told = snapshot("web-1", 1);
        told["host"]["virtualization"] = kind;
        shown.told(0, told, true);
        assert!(shown.shows(expected), "{expected}");
    }
}

#[test]
fn before_the_first_snapshot_the_connection_is_shown() {
    let mut shown = Shown::new(&["web-1:9000"], 80, 24);
    assert!(shown.shows("connecting …"));
    shown.down(
        0,
        "cannot connect to web-1:9000: Connection refused",
        Some(3),
    );
    assert_snapshot!(shown.drawn());
    shown.down(0, "the agent refused the API key", None);
    assert!(shown.shows("press R to retry"));
    assert_eq!(shown.keys(&text("R")), Outcome::Retry);
}

#[test]
fn tab_shows_each_list_of_a_host() {
    let mut shown = one_host(80, 24);
    for _ in 0..5 {
        shown.keys(&[KeyCode::Tab]);
        assert_snapshot!(shown.drawn());
    }
    shown.keys(&[KeyCode::BackTab, KeyCode::Left, KeyCode::BackTab]);
    assert!(shown.shows("Units 2"));
    shown.keys(&[KeyCode::Right]);
    assert!(shown.shows("Disks 2"));
}

#[test]
fn lists_are_sorted_and_filtered() {
    let mut shown = one_host(80, 24);
    let order = |shown: &mut Shown| {
        let drawn = shown.drawn();
        let mut places: Vec<(usize, &str)> = ["│api", "│cache", "│db"]
            .into_iter()
            .filter_map(|name| Some((drawn.find(name)?, name.trim_start_matches('│'))))
            .collect();
        places.sort_unstable();
        places
            .into_iter()
            .map(|(_, name)| name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(order(&mut shown), "api db cache");
    shown.keys(&text("r"));
    assert_eq!(order(&mut shown), "cache db api");
    shown.keys(&text("s"));
    assert_snapshot!(shown.drawn());
    shown.keys(&[KeyCode::Up, KeyCode::Enter]);
    assert_eq!(order(&mut shown), "api cache db");
    shown.keys(&[KeyCode::F(6), KeyCode::Enter]);
    assert_eq!(order(&mut shown), "db cache api");
    shown.keys(&text("/A"));
    assert!(shown.shows("/A▏"));
    // The filter applies to every column: `db` is unhealthy.
    assert_eq!(order(&mut shown), "db cache api");
    shown.keys(&text("p"));
    shown.keys(&[KeyCode::Enter]);
    assert_eq!(order(&mut shown), "api");
    shown.keys(&[KeyCode::Esc]);
    assert_eq!(order(&mut shown), "db cache api");
    shown.keys(&text("/nowhere"));
    assert!(shown.shows("no matching entries"));
}

#[test]
fn a_container_is_shown_with_its_log() {
    let mut shown = one_host(80, 24);
    shown.keys(&[KeyCode::Down]);
    assert_eq!(shown.screen.detail(0), Detail::Figures);
    shown.keys(&[KeyCode::Enter]);
    assert_eq!(shown.screen.detail(0), Detail::Logs);
    let line = |number: u64| {
        format!(
            "2026-01-01T12:00:{:02}.123456789Z line {number} of \u{1b}[31mthe\u{1b}[0m log",
            number % 60
        )
    };
    let mut with_log = snapshot("web-1", 5);
    with_log["logs"] =
        json!({"db": (0..50).map(line).collect::<Vec<_>>(), "api": ["2026-01-01T12:00:00Z other"]});
    with_log["logs_dropped"] = json!({});
    shown.told(0, with_log.clone(), true);
    assert_snapshot!(shown.drawn());
    let mut more = snapshot("web-1", 6);
    more["logs"] = json!({"db": [line(50), line(51)]});
    more["logs_dropped"] = json!({"db": 9});
    shown.told(0, more, false);
    assert!(shown.shows("Log 52 lines · 9 dropped") && shown.shows("line 51 of the log"));
    // A new connection begins with the newest lines, some of which are already shown.
    with_log["logs"] = json!({"db": (10..53).map(line).collect::<Vec<_>>()});
    shown.told(0, with_log, true);
    assert!(shown.shows("Log 53 lines") && shown.shows("following"));

    shown.keys(&[KeyCode::PageUp]);
    assert!(shown.shows("press f to follow") && !shown.shows("line 52 of"));
    shown.keys(&text("/LINE 7 "));
    shown.keys(&[KeyCode::Enter]);
    assert!(shown.shows("line 7 of"));
    shown.keys(&text("gGgf"));
    assert!(shown.shows("following") && shown.shows("line 52 of"));
    shown.keys(&text("g"));
    assert!(shown.shows("line 0 of"));
    shown.keys(&[KeyCode::Tab]);
    assert_snapshot!(shown.drawn());
    // The first key clears the search text, and the second key closes the container.
    shown.keys(&[KeyCode::Esc, KeyCode::Esc]);
    assert!(shown.shows("Containers 3"));
    assert_eq!(shown.screen.detail(0), Detail::Figures);
}

/// A screen with the log of `db`, which has this number of lines.
fn with_a_log(lines: u64) -> Shown {
    let mut shown = one_host(80, 24);
    shown.keys(&[KeyCode::Down, KeyCode::Enter]);
    let mut first = snapshot("web-1", 5);
    first["logs"] = json!({"db": (0..lines).map(numbered).collect::<Vec<_>>()});
    shown.told(0, first, true);
    shown
}

fn numbered(number: u64) -> String {
    format!(
        "2026-01-01T12:00:00.{number:09}Z line {number} of {}",
        number % 7
    )
}

#[test]
fn each_search_step_goes_to_the_next_matching_line() {
    let mut shown = with_a_log(40);
    shown.keys(&text("/ of 3"));
    shown.keys(&[KeyCode::Enter]);
    let found = |shown: &Shown| shown.screen.log.found;
    assert_eq!(found(&shown), Some(38));
    for expected in [31, 24, 17] {
        shown.keys(&text("N"));
        assert_eq!(found(&shown), Some(expected));
        assert!(shown.shows(&format!("line {expected} of 3")));
    }
    shown.keys(&text("n"));
    assert_eq!(found(&shown), Some(24));
    // The search stops at the oldest and at the newest match.
    shown.keys(&text("NNNNNNNNN"));
    assert_eq!(found(&shown), Some(3));
    shown.keys(&text("nnnnnnnnnnnn"));
    assert_eq!(found(&shown), Some(38));
    shown.keys(&[KeyCode::Right]);
    assert!(!shown.shows("2026-01-01T12") && shown.shows("line 38"));
    shown.keys(&[KeyCode::Left]);
    assert!(shown.shows("2026-01-01T12"));
}

#[test]
fn the_oldest_lines_stay_visible_while_the_log_grows() {
    let mut shown = with_a_log(5000);
    shown.keys(&text("g"));
    assert!(shown.shows("line 0 of") && shown.shows("press f to follow"));
    let mut more = snapshot("web-1", 6);
    more["logs"] = json!({"db": (5000..5100).map(numbered).collect::<Vec<_>>()});
    shown.told(0, more, false);
    // The first hundred lines were removed.
    assert!(shown.shows("Log 5000 lines") && shown.shows("line 100 of"));
    for (keys, first) in [
        (vec![KeyCode::Char(' ')], 110),
        (vec![KeyCode::PageDown], 120),
        (vec![KeyCode::PageUp, KeyCode::Up], 109),
        (
            vec![KeyCode::Char('j'), KeyCode::Char('k'), KeyCode::Down],
            110,
        ),
    ] {
        shown.keys(&keys);
        let drawn = shown.drawn();
        let seen = drawn.lines().find(|line| line.contains("line ")).unwrap();
        assert!(
            seen.contains(&format!("line {first} of")),
            "{first}: {drawn}"
        );
    }
    for (key, sign) in [('f', '+'), ('b', '-')] {
        let before = shown.screen.log.bottom.unwrap();
        let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
        shown.screen.key(key);
        let after = shown.screen.log.bottom.unwrap();
        assert_eq!(after > before, sign == '+');
    }
}

#[test]
fn a_right_click_closes_the_list_of_columns() {
    let mut shown = Shown::new(&["web-1", "web-2"], 80, 24);
    shown.told(0, snapshot("web-1", 1), true);
    shown.told(1, snapshot("web-2", 1), true);
    shown.keys(&[KeyCode::Enter]);
    shown.keys(&text("skk"));
    shown.mouse(MouseEventKind::Down(MouseButton::Right), 3, 3);
    assert!(!shown.shows("Sort by") && shown.shows("Containers 3"));
    shown.keys(&[KeyCode::Enter]);
    shown.drawn();
    let moved = MouseEvent {
        kind: MouseEventKind::Moved,
        column: 3,
        row: 3,
        modifiers: KeyModifiers::NONE,
    };
    assert!(!shown.screen.mouse(moved));
}

#[test]
fn a_container_that_is_created_again_stays_open() {
    let mut shown = one_host(80, 24);
    shown.keys(&[KeyCode::Down, KeyCode::Enter]);
    let mut anew = snapshot("web-1", 5);
    anew["containers"][2]["id"] = json!("another");
    shown.told(0, anew, false);
    assert!(shown.shows("id another") && !shown.shows("is not running"));
}

#[test]
fn cores_are_drawn_only_if_there_is_room() {
    for (cores, width) in [(2, 80), (16, 200), (256, 80), (256, 200)] {
        let mut shown = Shown::new(&["web-1"], width, 40);
        let mut many = snapshot("web-1", 1);
        many["system"]["cpu_cores"] = json!(vec![50.0; cores]);
        shown.told(0, many, true);
        let drawn = shown.drawn();
        assert_eq!(drawn.contains("50%"), cores < 20, "{drawn}");
    }
}

#[test]
fn a_stopped_container_is_shown_as_not_running() {
    let mut shown = one_host(80, 24);
    shown.keys(&[KeyCode::Enter]);
    let mut without = snapshot("web-1", 5);
    without["containers"] = json!([]);
    shown.told(0, without, false);
    assert!(shown.shows("this container is not running"));
}

#[test]
fn the_table_of_hosts_shows_problems_and_hosts_that_are_away() {
    let hosts = ["web-1:9000", "web-2:9000", "db-1:9000"];
    for (width, height) in [(80, 24), (160, 30)] {
        let mut shown = Shown::new(&hosts, width, height);
        shown.told(0, snapshot("web-1", 3), true);
        shown.told(1, failing("web-2"), true);
        shown.down(2, "cannot connect to db-1:9000: timed out", Some(8));
        assert_snapshot!(shown.drawn());
        shown.keys(&[KeyCode::End, KeyCode::Enter]);
        assert!(shown.shows("! docker") || shown.shows("web-2"));
        shown.keys(&[KeyCode::Esc]);
        assert!(shown.shows("3 hosts  1 away"));
    }
}

#[test]
fn the_last_figures_of_a_host_that_is_away_stay() {
    let mut shown = one_host(80, 24);
    shown.down(0, "the agent closed the connection", Some(2));
    shown.now += Duration::from_secs(90);
    assert!(shown.shows("the agent closed the connection"));
    assert!(shown.shows("away, connecting …, 1m old") && shown.shows("│api"));
    shown.told(0, snapshot("web-1", 1), true);
    assert!(!shown.shows("away"));
}

#[test]
fn an_agent_that_sends_no_snapshots_is_a_problem() {
    let mut shown = one_host(80, 24);
    assert!(!shown.shows("no snapshot"));
    shown.now += Duration::from_secs(15);
    assert!(shown.shows("no snapshot for 15 s"));
}

#[test]
fn help_lists_the_keys() {
    let mut shown = one_host(80, 24);
    shown.keys(&text("?"));
    assert_snapshot!(shown.drawn());
    shown.keys(&text("x"));
    assert!(!shown.shows("this help"));
}

#[test]
fn q_f10_and_ctrl_c_end_the_view() {
    for key in [KeyCode::Char('q'), KeyCode::F(10)] {
        assert_eq!(one_host(80, 24).keys(&[key]), Outcome::Quit);
    }
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let mut shown = one_host(80, 24);
    shown.keys(&text("/"));
    assert_eq!(shown.screen.key(control), Outcome::Quit);
    // While the user types a filter, `q` is a letter of the filter.
    assert_eq!(shown.keys(&text("q")), Outcome::Stay);
    assert!(shown.shows("/q▏"));
}

#[test]
fn the_mouse_selects_sorts_and_opens() {
    let click = MouseEventKind::Down(MouseButton::Left);
    let mut shown = one_host(80, 24);
    let row = |shown: &mut Shown, text: &str| {
        let drawn = shown.drawn();
        u16::try_from(drawn.lines().position(|line| line.contains(text)).unwrap()).unwrap()
    };
    let titles = row(&mut shown, "NAME");
    shown.mouse(click, 3, titles);
    assert!(shown.shows("NAME▾"));
    let db = row(&mut shown, "│db");
    shown.mouse(click, 3, db);
    shown.mouse(MouseEventKind::ScrollUp, 3, db);
    shown.mouse(MouseEventKind::ScrollDown, 3, db);
    assert!(shown.shows("Containers 3"));
    shown.mouse(click, 3, db);
    assert!(shown.shows("web-1 › db"));
    shown.mouse(MouseEventKind::Down(MouseButton::Right), 3, 3);
    assert!(shown.shows("Containers 3"));
    // On a large screen a click can be in another list.
    let mut shown = one_host(200, 50);
    let java = row(&mut shown, "│java");
    shown.mouse(click, 3, java);
    assert!(shown.shows("Containers Processes 3"));
}

#[test]
fn a_screen_of_any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (39, 24), (40, 10), (80, 11), (300, 12), (40, 100)] {
        let mut shown = Shown::new(&["a", "b"], width, height);
        shown.told(0, snapshot("a", 1), true);
        shown.told(1, failing("b"), true);
        for keys in ["?", "?", "s", "s", "\n", "\n", "g", "G"] {
            let keys: Vec<KeyCode> = keys
                .chars()
                .map(|key| {
                    if key == '\n' {
                        KeyCode::Enter
                    } else {
                        KeyCode::Char(key)
                    }
                })
                .collect();
            shown.keys(&keys);
        }
        shown.drawn();
    }
}

#[test]
fn without_colours_no_cell_has_a_colour() {
    let mut shown = one_host(80, 24);
    shown.screen.theme = Theme { colours: false };
    shown.down(0, "why", Some(1));
    for keys in ["", "?", "?", "s"] {
        shown.keys(&text(keys));
        shown.drawn();
        let buffer = shown.terminal.backend().buffer();
        assert!(
            buffer
                .content
                .iter()
                .all(|cell| cell.fg == ratatui::style::Color::Reset
                    && cell.bg == ratatui::style::Color::Reset)
        );
    }
}

#[test]
fn the_short_form_has_the_values_of_the_whole_snapshot() {
    let mut odd = failing("web-1");
    odd["system"]["memory_used"] = json!(4000.0);
    odd["system"]["failed_units"] = json!([{"name": "nginx.service", "description": "web"}]);
    for line in [snapshot("web-1", 3), odd] {
        let whole: Snapshot = serde_json::from_value(line.clone()).unwrap();
        let brief = Brief::read(line.to_string().as_bytes()).unwrap();
        assert_eq!(brief, Brief::from(&whole));
        assert_eq!((brief.hostname.as_str(), brief.containers), ("web-1", 3));
    }
    assert_eq!(brief_of_many_problems().problems.len(), 16);
    assert!(Brief::read(b"{}").is_err() && Brief::read(b"[").is_err());
}

#[test]
fn hardware_that_fails_is_a_problem_of_the_host() {
    let mut failing = snapshot("web-1", 1);
    let well = Brief::read(failing.to_string().as_bytes()).unwrap();
    let device = |id: u32, missing: bool, errors: u32| {
        json!({"id": id, "missing": missing, "write_errors": 0, "read_errors": errors, "flush_errors": 0,
            "corruption_errors": errors, "generation_errors": 0})
    };
    let controller = |errors: u32| json!({"name": "mc0", "correctable_errors": 7, "uncorrectable_errors": errors});
    let system = &mut failing["system"];
    system["zfs"] = json!({"pools": [{"name": "tank", "state": "degraded"}, {"name": "spare", "state": "online"}]});
    system["btrfs"] = json!([{"uuid": "0abb", "label": "backup", "devices": [device(1, false, 0), device(2, true, 0), device(3, false, 2)]}]);
    system["memory_controllers"] = json!([controller(0), controller(3)]);
    system["nvme"] = json!([{"name": "nvme0", "state": "dead"}, {"name": "nvme1", "state": "live"}, {"name": "nvme2"}]);
    system["conntrack"] = json!({"entries": 95, "limit": 100});
    let brief = Brief::read(failing.to_string().as_bytes()).unwrap();
    let whole: Snapshot = serde_json::from_value(failing).unwrap();
    assert_eq!(brief, Brief::from(&whole));
    let before = well.problems;
    let new = brief
        .problems
        .iter()
        .filter(|problem| !before.contains(problem));
    let new: Vec<_> = new.map(|(_, text)| text.as_str()).collect();
    let expected = [
        "pool tank is degraded",
        "btrfs backup: device 2 is missing",
        "memory had 3 errors that could not be corrected",
        "nvme0 is dead",
        "the connection table is 95 % full",
        "btrfs backup: device 3 had 4 errors",
    ];
    assert_eq!(new, expected);
}

#[test]
fn a_clock_that_is_not_synchronized_is_shown() {
    let mut shown = Shown::new(&["web-1:9000"], 200, 50);
    for (seq, synchronized) in [(1, true), (2, false)] {
        let mut snapshot = snapshot("web-1", seq);
        snapshot["system"]["clock"] = json!({"synchronized": synchronized, "offset_seconds": 0.0,
            "max_error_seconds": 16.0, "estimated_error_seconds": 16.0});
        shown.told(0, snapshot, seq == 1);
        let drawn = shown.drawn();
        assert_eq!(
            drawn.contains("clock not synchronized"),
            !synchronized,
            "{drawn}"
        );
    }
}

/// The short form of a snapshot with more problems than the limit, and with longer texts than the limit.
fn brief_of_many_problems() -> Brief {
    let mut many = snapshot("web-1", 1);
    let units = (0..100)
        .map(|number| json!({"name": format!("{number}{}", "x".repeat(1000)), "description": ""}));
    many["system"]["failed_units"] = units.collect();
    let brief = Brief::read(many.to_string().as_bytes()).unwrap();
    assert!(
        brief
            .problems
            .iter()
            .all(|(_, text)| text.chars().count() <= 200)
    );
    brief
}

/// The server checks only the name in the subject. A snapshot can contain any other name.
#[test]
fn a_host_of_a_fleet_has_the_name_in_its_subjects() {
    let mut shown = Shown::of_fleet(80, 24);
    let name = "web-1".to_owned();
    shown.news(7, HostUpdate::Appeared { name });
    shown.brief(7, &snapshot("db-1", 1));
    let drawn = shown.drawn();
    assert!(
        drawn.contains("web-1") && !drawn.contains("db-1"),
        "{drawn}"
    );
}

#[test]
fn hosts_of_a_fleet_appear_and_vanish() {
    for (width, height) in [(80, 24), (200, 50)] {
        let mut shown = Shown::of_fleet(width, height);
        assert!(shown.shows("0 hosts") && shown.shows("no entries"));
        for (host, name) in [(0, "web-1"), (1, "web-2"), (2, "db-1")] {
            shown.appears(host, &snapshot(name, 1));
        }
        // The order is db-1, web-1, web-2. Down selects web-1.
        shown.keys(&[KeyCode::Down]);
        shown.news(2, HostUpdate::Silent);
        shown.now += Duration::from_secs(30);
        shown.appears(3, &failing("cache-1"));
        shown.brief(0, &snapshot("web-1", 2));
        shown.brief(1, &snapshot("web-2", 2));
        assert_snapshot!(shown.drawn());
        assert!(
            shown.shows("4 hosts  1 away  3 with problems") && shown.shows("hub:4222  connected")
        );
        // The selected host stays selected when other hosts appear and vanish.
        shown.news(2, HostUpdate::Vanished);
        shown.news(3, HostUpdate::Vanished);
        assert!(shown.shows("2 hosts") && !shown.shows("db-1") && !shown.shows("cache-1"));
        shown.keys(&[KeyCode::Enter]);
        assert_eq!(shown.screen.host(), Some(0));
        // The open host vanishes.
        shown.news(0, HostUpdate::Vanished);
        assert!(shown.shows("1 hosts"));
    }
}

#[test]
fn an_open_host_of_a_fleet_shows_all_its_data() {
    let mut shown = Shown::of_fleet(80, 24);
    shown.appears(0, &snapshot("web-1", 1));
    shown.brief(0, &snapshot("web-1", 2));
    shown.keys(&[KeyCode::Enter]);
    let looked_at = |host, container: Option<&str>| LookedAt {
        everything: false,
        host,
        container: container.map(str::to_owned),
        tries: 7,
    };
    assert_eq!(shown.screen.looked_at(7), looked_at(Some(0), None));
    // Before the whole snapshot arrives, no containers are known.
    assert!(shown.shows("Containers 0") && shown.shows("CPU 0.0 %"));
    let opened: Box<Snapshot> = Box::new(serde_json::from_value(snapshot("web-1", 2)).unwrap());
    shown.news(0, HostUpdate::Opened { snapshot: opened });
    assert!(shown.shows("Containers 3") && shown.shows("CPU 25.0 %"));
    shown.told(0, snapshot("web-1", 3), false);
    assert!(shown.shows("CPU 37.5 %"));

    shown.keys(&[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(shown.screen.looked_at(7), looked_at(Some(0), Some("db")));
    let lines = |container: &str, numbers: std::ops::Range<u64>, dropped| HostUpdate::Lines {
        container: container.to_owned(),
        lines: numbers.map(numbered).collect(),
        dropped,
    };
    shown.news(0, lines("db", 0..3, 0));
    shown.news(0, lines("api", 100..103, 0));
    shown.news(0, lines("db", 3..5, 2));
    assert!(shown.shows("· 2 dropped"));
    shown.news(0, lines("db", 0..0, u64::MAX));
    assert!(
        shown.shows("Log 5 lines · 18446744073709551615 dropped")
            && shown.shows("line 4 of")
            && !shown.shows("line 100 of")
    );
    let event: crate::model::ContainerEvent = serde_json::from_value(
        json!({"time": "2026-01-01T12:01:00.000Z", "action": "oom", "container": "db", "id": "db", "image": "postgres:16"}),
    )
    .unwrap();
    for _ in 0..2 {
        shown.news(0, HostUpdate::Event(Box::new(event.clone())));
    }
    shown.keys(&[KeyCode::Tab]);
    assert!(shown.shows("Events 3") && shown.shows("oom"));

    // When the user closes the host, only the data for the table of hosts and the events remain.
    shown.keys(&[KeyCode::Esc, KeyCode::Esc]);
    let host = &shown.screen.hosts[&0];
    assert!(host.snapshot.is_none() && host.containers.is_empty() && host.cpu.newest(9).len() == 3);
    assert_eq!(shown.screen.looked_at(7), looked_at(None, None));
    assert!(shown.shows("web-1"));
}

#[test]
fn the_events_of_a_host_in_a_fleet_are_limited() {
    let mut shown = Shown::of_fleet(80, 24);
    shown.appears(0, &snapshot("web-1", 1));
    for minute in 0..60 {
        let event = json!({"time": format!("2026-01-01T12:{minute:02}:00.000Z"), "action": "start", "container": "db", "id": "db",
            "image": "postgres:16"});
        let event = serde_json::from_value(event).unwrap();
        shown.news(0, HostUpdate::Event(Box::new(event)));
    }
    assert_eq!(shown.screen.hosts[&0].events.len(), 32);
}

#[test]
fn problems_of_the_connection_to_the_server_are_shown() {
    let mut shown = Shown::of_fleet(80, 24);
    shown.appears(0, &snapshot("web-1", 1));
    let down = |why: &str, again| Server::Down {
        why: why.to_owned(),
        again,
    };
    shown.server(down(
        "the connection to hub:4222 is lost",
        Some(Duration::from_secs(3)),
    ));
    assert_snapshot!(shown.drawn());
    shown.keys(&[KeyCode::Enter]);
    assert!(
        shown.shows("! (+2) the connection to hub:4222 is lost")
            && shown.shows("away, retry in 4 s")
    );
    shown.server(down("the NATS server refused the credentials", None));
    assert!(shown.shows("away, press R to retry"));
    assert_eq!(shown.keys(&text("R")), Outcome::Retry);
    shown.server(Server::Connected);
    assert!(shown.shows("s old") && !shown.shows("away"));
    shown.keys(&[KeyCode::Esc]);
    shown.server(Server::Trouble(Trouble {
        bad: 3,
        missed: 0,
        beyond: 12,
        last: "agents.web-9.snapshot: not JSON of the expected form".to_owned(),
    }));
    assert!(shown.shows("! 3 messages not understood; 12 messages from hosts above the limit"));
}

#[test]
fn fuzz_updates_are_drawn() {
    let whole = snapshot("web-1", 3).to_string();
    let odd = failing("web-1").to_string();
    let event = snapshot("web-1", 1)["events"][0].to_string();
    let extreme = whole.replace("12.5", "1e308").replace("31.0", "1e300");
    let mut shown = Shown::of_fleet(120, 40);
    shown.appears(0, &snapshot("web-1", 1));
    let keys = [
        KeyCode::Enter,
        KeyCode::Tab,
        KeyCode::Down,
        KeyCode::Esc,
        KeyCode::Char('s'),
    ];
    let mut random = fastrand::Rng::new();
    let seeds = [whole, odd, event, extreme];
    let seeds = seeds.each_ref().map(String::as_bytes);
    crate::fuzzing::run("watch", &seeds, |input| {
        let told = if let Ok(snapshot) = serde_json::from_slice(input) {
            match random.bool() {
                true => HostUpdate::Opened { snapshot },
                false => HostUpdate::Snapshot {
                    snapshot,
                    first: false,
                },
            }
        } else if let Ok(brief) = Brief::read(input) {
            HostUpdate::Brief(Box::new(brief))
        } else if let Ok(event) = serde_json::from_slice(input) {
            HostUpdate::Event(event)
        } else {
            return;
        };
        shown.news(0, told);
        shown.keys(&[keys[random.usize(0..keys.len())]]);
        shown.drawn();
    });
}

/// A snapshot with two stopped containers. One of them is meant to run.
fn with_stopped(seq: u64) -> Value {
    let mut snapshot = snapshot("web-1", seq);
    snapshot["stopped"] = json!([
        {"id": "store", "name": "/store", "image": "minio:1", "state": "exited", "exit_code": 137, "oom_killed": true,
            "started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T10:55:00.000Z", "restart_policy": "always",
            "compose": {"project": "shop", "service": "store"}},
        {"id": "job", "name": "/job", "image": "job:1", "state": "created", "oom_killed": false, "restart_policy": "no",
            "error": "port is already allocated"},
    ]);
    snapshot
}

#[test]
fn stopped_containers_are_listed_after_the_running_ones() {
    let mut shown = Shown::new(&["web-1:9000"], 140, 50);
    shown.told(0, with_stopped(1), true);
    assert_snapshot!(shown.drawn());
    let mut well = with_stopped(2);
    well["system"]["disks"] = json!([]);
    shown.told(0, well, false);
    assert!(shown.shows("1 down: store (137, OOM)"));
    // The order of the running containers does not depend on the stopped ones, which have no figures.
    for _ in 0..2 {
        shown.keys(&text("r"));
        let drawn = shown.drawn();
        let place = |name: &str| drawn.find(&format!("│{name} ")).unwrap();
        assert!(
            ["api", "cache", "db"]
                .iter()
                .all(|one| place(one) < place("store"))
        );
    }
}

#[test]
fn a_stopped_container_can_be_opened() {
    let mut shown = Shown::new(&["web-1:9000"], 140, 30);
    shown.told(0, with_stopped(1), true);
    shown.keys(&text("/"));
    shown.keys(&text("store"));
    shown.keys(&[KeyCode::Enter, KeyCode::Enter]);
    for part in [
        "stopped 1h 05m ago",
        "exit code 137",
        "killed for lack of memory",
        "restart policy always",
        "compose shop/store",
    ] {
        assert!(shown.shows(part), "{part}: {}", shown.drawn());
    }
    // After its start, its figures are shown.
    let mut snapshot = with_stopped(2);
    snapshot["stopped"] = json!([]);
    let running = container("store", 12.5, None);
    snapshot["containers"].as_array_mut().unwrap().push(running);
    shown.told(0, snapshot, false);
    assert!(shown.shows("CPU 12.5 %") && !shown.shows("exit code"));
}
