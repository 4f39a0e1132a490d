//! The JSON API with real agents.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use flate2::bufread::GzDecoder;
use serde_json::Value;
use serial_test::parallel;

use super::browser::{PageServer, open};
use crate::support::{Agent, DEADLINE, KEY, Launch, net, wait};

const FAST: [(&str, &str); 2] = [("PUBLISH_INTERVAL", "200ms"), ("SYSTEM_INTERVAL", "200ms")];

fn id(agent: &Agent) -> String {
    agent.address().to_string()
}

/// Waits until a host has this state, and returns its row.
fn row(server: &PageServer, id: &str, state: &str) -> Value {
    wait::until(&format!("{id} is {state}"), DEADLINE, || {
        let list = server.json("/api/v1/hosts");
        let rows = list["hosts"].as_array().unwrap();
        let row = rows.iter().find(|row| row["id"] == id)?;
        (row["state"] == state && (state != "live" || !row["cpu"].is_null())).then(|| row.clone())
    })
}

#[test]
#[parallel]
fn two_agents_are_two_rows_with_figures() {
    let (one, other) = (Agent::start(&FAST), Agent::start(&FAST));
    let server = PageServer::of(&[&one, &other]);
    for agent in [&one, &other] {
        let row = row(&server, &id(agent), "live");
        let memory = |name: &str| row[name].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&row["cpu"].as_f64().unwrap()));
        assert!(memory("memory_used") > 1e6 && memory("memory_used") < memory("memory_total"));
        assert!(row["uptime_ms"].as_u64().unwrap() > 1000 && row["cores"].as_u64().unwrap() > 0);
        assert!(
            (1..=60).contains(&row["spark"].as_array().unwrap().len()),
            "{row}"
        );
        // Docker is switched off, so nothing is known of containers.
        assert_eq!(
            (&row["containers_up"], &row["error"]),
            (&Value::Null, &Value::Null)
        );
    }
    let host = server.json(&format!("/api/v1/hosts/{}", id(&one)));
    assert_eq!(host["row"]["id"], id(&one));
    let snapshot = &host["snapshot"];
    assert!(snapshot["system"]["cpu_cores"].is_array());
    assert_eq!(snapshot["events"], serde_json::json!([]));
    assert!(snapshot["agent"].get("cursor").is_none());
    for path in [
        "hosts/unknown",
        "hosts/unknown/series",
        "stream?host=unknown",
        "nothing",
    ] {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(server.request("POST", "/api/v1/hosts", &[], "").status, 405);
}

#[test]
#[parallel]
fn a_host_that_goes_away_keeps_its_figures_and_comes_back() {
    let port = net::free_port();
    let launch = Launch::new().vars(&FAST);
    let agent = launch.clone().start_on(port);
    let server = PageServer::of(&[&agent]);
    let id = id(&agent);
    let before = row(&server, &id, "live");
    let mut stream = server.stream("/api/v1/stream", &[]);
    drop(agent);
    let away = row(&server, &id, "away");
    assert_eq!(away["name"], before["name"]);
    assert!(
        away["cpu"].is_number() && away["memory_used"].is_number(),
        "{away}"
    );
    assert!(away["away_since"].as_i64().unwrap() >= before["newest_at"].as_i64().unwrap());
    assert!(away["error"].is_string());
    let is_away = |list: &Value| list["hosts"][0]["state"] == "away";
    let told = stream.find("hosts", is_away);
    let problem = &told.data["problems"][0];
    assert_eq!(
        (&problem["severity"], &problem["host"]),
        (&"critical".into(), &Value::from(id.clone()))
    );
    assert!(
        problem["text"].as_str().unwrap().contains(" is away: "),
        "{problem}"
    );

    let _agent = launch.start_on(port);
    let back = row(&server, &id, "live");
    assert!(back["away_since"].is_null() && back["error"].is_null());
    assert!(
        back["spark"].as_array().unwrap().contains(&Value::Null),
        "a gap: {back}"
    );
    stream.find("hosts", |list| list["hosts"][0]["state"] == "live");
}

#[test]
#[parallel]
fn the_stream_continues_after_a_cut_and_repeats_nothing() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "2s"), ("SYSTEM_INTERVAL", "1s")]);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let path = format!("/api/v1/stream?host={}", id(&agent));
    let mut stream = server.stream(&path, &[]);
    let host = stream.find("host", |_| true);
    assert_eq!(host.data["row"]["id"], id(&agent));
    let list = stream.find("hosts", |_| true);
    drop(stream);
    let resumed = format!("Last-Event-ID: {}", list.id.unwrap());
    let mut stream = server.stream(&path, &[&resumed]);
    let next = stream.find("host", |_| true);
    let seq = |data: &Value| data["snapshot"]["agent"]["seq"].as_u64().unwrap();
    assert!(
        seq(&next.data) > seq(&host.data),
        "the same snapshot came twice"
    );
    // An id of another run of the server is ignored.
    let mut stream = server.stream(&path, &["Last-Event-ID: 1-2-3"]);
    stream.find("hosts", |_| true);
}

#[test]
#[parallel]
fn the_table_of_hosts_comes_at_most_every_two_seconds() {
    let agent = Agent::start(&FAST);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let mut stream = server.stream("/api/v1/stream", &[]);
    stream.find("hosts", |_| true);
    let start = Instant::now();
    stream.find("hosts", |_| true);
    stream.find("hosts", |_| true);
    assert!(
        start.elapsed() >= Duration::from_millis(3800),
        "{:?}",
        start.elapsed()
    );
}

#[test]
#[parallel]
fn a_slow_browser_delays_no_other() {
    let agent = Agent::start(&FAST);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let path = format!("/api/v1/stream?host={}", id(&agent));
    let slow: Vec<_> = (0..20).map(|_| server.stream(&path, &[])).collect();
    slow.iter().for_each(|stream| stream.narrow());
    let mut quick = server.stream(&path, &[]);
    for _ in 0..10 {
        let start = Instant::now();
        quick.find("host", |_| true);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
#[parallel]
fn the_history_has_series_and_refuses_wrong_parameters() {
    let agent = Agent::start(&FAST);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let base = format!("/api/v1/hosts/{}", id(&agent));
    let series = wait::until("series", DEADLINE, || {
        let series = server.json(&format!("{base}/series"))["series"].clone();
        (!series.as_array().unwrap().is_empty()).then_some(series)
    });
    let series = series.as_array().unwrap();
    for name in [
        "cpu",
        "cpu.user",
        "memory.used",
        "load1",
        "disk.used:/",
        "net.in",
    ] {
        assert!(series.contains(&name.into()), "{name}: {series:?}");
    }
    let history = wait::until("figures", DEADLINE, || {
        let history = server.json(&format!("{base}/history?series=cpu,none&points=10"));
        let has_one = history["series"]["cpu"]
            .as_array()
            .unwrap()
            .iter()
            .any(Value::is_number);
        has_one.then_some(history)
    });
    let times = history["times"].as_array().unwrap();
    for name in ["cpu", "none"] {
        let values = history["series"][name].as_array().unwrap();
        assert!(values.len() == times.len() || name == "none", "{history}");
    }
    assert!(times.len() <= 12, "{history}");
    for wrong in [
        "history",
        "history?series=cpu&from=x",
        "history?series=cpu&from=5&to=4",
        "history?series=cpu&points=0",
        "history?series=cpu&points=1e9",
        "events?to=-1",
        "logs?tail=x",
        "logs/older",
        "logs/older?container=a&before=yesterday",
        "logs/older?container=a&limit=99999",
    ] {
        let answer = server.get(&format!("{base}/{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
        assert!(
            answer.json()["error"]
                .as_str()
                .unwrap()
                .contains("accepted"),
            "{wrong}"
        );
    }
}

#[test]
#[parallel]
fn answers_are_compressed_for_browsers_that_accept_it() {
    let agent = Agent::start(&FAST);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let path = format!("/api/v1/hosts/{}", id(&agent));
    let plain = server.get(&path);
    let zipped = server.request("GET", &path, &["Accept-Encoding: gzip, br"], "");
    assert_eq!(
        (
            plain.header("content-encoding"),
            zipped.header("content-encoding")
        ),
        (None, Some("gzip"))
    );
    let length = |answer: &super::browser::Answer| -> usize {
        answer.header("content-length").unwrap().parse().unwrap()
    };
    assert!(
        length(&zipped) * 2 < length(&plain),
        "{} of {}",
        length(&zipped),
        length(&plain)
    );
}

#[test]
#[parallel]
fn each_event_of_a_compressed_stream_can_be_read_at_once() {
    let agent = Agent::start(&FAST);
    let server = PageServer::of(&[&agent]);
    row(&server, &id(&agent), "live");
    let path = format!("/api/v1/stream?host={}", id(&agent));
    let head = ["Accept-Encoding: gzip"];
    let mut stream = BufReader::new(open(server.address, "GET", &path, &head, ""));
    let mut line = String::new();
    let mut is_zipped = false;
    while stream.read_line(&mut line).unwrap() > 2 {
        is_zipped |= line == "content-encoding: gzip\r\n";
        line.clear();
    }
    assert!(is_zipped);
    let mut events = BufReader::new(GzDecoder::new(stream)).lines();
    let mut next = || {
        let mut text = events.by_ref().map(Result::unwrap);
        let data = text.find_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
        serde_json::from_str::<Value>(&data.unwrap()).unwrap()
    };
    for _ in 0..3 {
        let event = next();
        assert!(
            event["hosts"].is_array() || event["row"].is_object(),
            "{event}"
        );
    }
}

#[test]
#[parallel]
fn hosts_come_from_a_file() {
    let agent = Agent::start(&FAST);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    fs::write(&file, format!("# all hosts\n\n{}\n", agent.address())).unwrap();
    let server = PageServer::start(&["--hosts", file.to_str().unwrap()], &[]);
    row(&server, &id(&agent), "live");
    fs::write(&file, "# none\n").unwrap();
    let refused = Launch::new().args(["web", "--hosts"]).args([&file]).run();
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr[0].contains("names no host"), "{refused:?}");
}

#[test]
#[parallel]
fn without_a_host_the_local_agent_is_used_if_there_is_one() {
    let agent = Agent::start(&FAST);
    let port = agent.port().to_string();
    let server = PageServer::start(&[], &[("SOCKET_PORT", &port)]);
    row(&server, &id(&agent), "live");
    // Without an agent, the server measures this host itself.
    let free = net::free_port().to_string();
    let alone = PageServer::start(&[], &[("SOCKET_PORT", &free)]);
    row(&alone, "local", "live");
    let keyless = PageServer::launch(Launch::new().args(["web"]).without("API_KEY"));
    row(&keyless, "local", "live");
}

#[test]
#[parallel]
fn a_wrong_key_is_told_in_the_row() {
    let agent = Agent::start(&[("API_KEY", "another-key-of-the-agent")]);
    let server = PageServer::start(&[&id(&agent)], &[("API_KEY", KEY)]);
    let row = row(&server, &id(&agent), "away");
    assert_eq!(row["error"], "the agent refused the API key");
}
