//! Tests of `system-agent web` with real containers: figures, events and logs.

use std::time::Duration;

use serde_json::{Value, json};
use serial_test::parallel;

use super::container::Container;
use super::launch;
use crate::support::{Agent, DEADLINE, wait};
use crate::web::browser::{EventStream, PageServer};

/// The server for an agent, and the path of the agent's host.
fn server(agent: &Agent) -> (PageServer, String) {
    let server = PageServer::of(&[agent]);
    let path = format!("/api/v1/hosts/{}", agent.address());
    (server, path)
}

/// Reads lines until one has this text, and returns all of them.
fn lines_until(stream: &mut EventStream, text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let lines = stream.find("lines", |_| true).data["lines"].clone();
        all.extend(lines.as_array().unwrap().iter().cloned());
        if all.iter().any(|line| line["text"] == text) {
            return all;
        }
    }
}

/// Waits until the agent knows the log of a container.
fn wait_for_log(server: &PageServer, path: &str, container: &Container<'_>) {
    let older = format!("{path}/logs/older?container={}", container.name());
    wait::until("the log of a container", DEADLINE, || {
        (server.get(&older).status == 200).then_some(())
    });
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect()
}

/// The number of clients of an agent, as the server of the page knows it.
fn clients(server: &PageServer, path: &str) -> u64 {
    let host = server.json(path);
    host["snapshot"]["agent"]["clients"].as_u64().unwrap_or(0)
}

#[test]
#[parallel]
fn logs_are_asked_for_only_while_somebody_reads_them() {
    let agent = launch().start();
    let container = Container::run(
        "page-quiet",
        &[],
        "while true; do echo tick; sleep 0.2; done",
    );
    let (server, path) = server(&agent);
    let has_clients = |count: u64| {
        wait::until(&format!("{count} clients"), DEADLINE, || {
            (clients(&server, &path) == count).then_some(())
        });
    };
    has_clients(1);
    let logs = format!("{path}/logs?containers={}", container.name());
    let mut streams: Vec<_> = (0..2).map(|_| server.stream(&logs, &[])).collect();
    streams
        .iter_mut()
        .for_each(|stream| drop(lines_until(stream, "tick")));
    has_clients(3);
    streams.pop();
    has_clients(2);
    streams.pop();
    has_clients(1);
}

#[test]
#[parallel]
fn a_log_follows_and_continues_after_a_cut() {
    let agent = launch().start();
    let script = "i=0; while true; do i=$((i + 1)); echo line $i; sleep 0.05; done";
    let container = Container::run("page-follow", &[], script);
    container.wait_for_line_with("line 5");
    let (server, path) = server(&agent);
    let logs = format!("{path}/logs?containers={}&tail=100", container.name());
    let mut stream = server.stream(&logs, &[]);
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = None;
    let mut read = |stream: &mut EventStream, until: usize, cursor: &mut Option<String>| {
        while seen.len() < until {
            let event = stream.find("lines", |_| true);
            *cursor = event.id;
            for line in event.data["lines"].as_array().unwrap() {
                assert_eq!(line["container"], container.name());
                seen.push(line["text"].as_str().unwrap().to_owned());
            }
        }
        seen.len()
    };
    let count = read(&mut stream, 40, &mut cursor);
    drop(stream);
    // Lines are written while nobody reads.
    std::thread::sleep(Duration::from_secs(1));
    let head = format!("Last-Event-ID: {}", cursor.take().unwrap());
    let mut stream = server.stream(&logs, &[&head]);
    read(&mut stream, count + 60, &mut cursor);
    let numbers: Vec<usize> = seen
        .iter()
        .map(|text| text.strip_prefix("line ").unwrap().parse().unwrap())
        .collect();
    let first = numbers[0];
    let expected: Vec<usize> = (first..first + numbers.len()).collect();
    assert_eq!(numbers, expected, "each line comes once and in order");
}

#[test]
#[parallel]
fn the_logs_of_several_containers_are_in_the_order_of_time() {
    let agent = launch().start();
    let script = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.2; done; echo end; sleep 1000";
    let one = Container::run("page-one", &[], script);
    let other = Container::run("page-other", &[], script);
    let left_out = Container::run("page-none", &[], script);
    for container in [&one, &other, &left_out] {
        container.wait_for_line("end");
    }
    let (server, path) = server(&agent);
    for container in [&one, &other] {
        wait_for_log(&server, &path, container);
    }
    let logs = format!(
        "{path}/logs?containers={},{}&tail=8",
        one.name(),
        other.name()
    );
    let mut stream = server.stream(&logs, &[]);
    // The newest snapshot of the agent can be older than the last lines. Then these come in a second event.
    let mut ends = std::collections::BTreeSet::new();
    let mut is_first = true;
    while ends.len() < 2 {
        let lines = stream.find("lines", |_| true);
        let lines = lines.data["lines"].as_array().unwrap();
        assert!(!is_first || (1..=8).contains(&lines.len()), "{lines:?}");
        is_first = false;
        let times: Vec<i64> = lines
            .iter()
            .map(|line| line["at"].as_i64().unwrap())
            .collect();
        assert!(times.is_sorted(), "{times:?}");
        for line in lines {
            assert!(line["container"] != left_out.name(), "{line}");
            if line["text"] == "end" {
                let container = line["container"].as_str().unwrap();
                assert!(ends.insert(container.to_owned()), "{container} twice");
            }
        }
    }
}

#[test]
#[parallel]
fn older_lines_are_searched_and_a_log_is_downloaded() {
    let agent = launch().var("LOG_LINES", "5").start();
    let script = "for i in $(seq 1 300); do echo \"line $i (a+b)\"; done; echo end; sleep 1000";
    let container = Container::run("page-older", &[], script);
    container.wait_for_line("end");
    let (server, path) = server(&agent);
    let name = container.name();
    wait_for_log(&server, &path, &container);
    // The agent has five lines at hand. The stream begins with lines of the file.
    let mut stream = server.stream(&format!("{path}/logs?containers={name}&tail=100"), &[]);
    let tail = lines_until(&mut stream, "end");
    assert_eq!(tail.len(), 100);
    assert_eq!(tail[0]["text"], "line 202 (a+b)");

    let mut pages = Vec::new();
    let mut before = tail[0]["id"].as_str().unwrap().to_owned();
    for _ in 0..20 {
        let older = format!("{path}/logs/older?container={name}&limit=70&before={before}");
        let older = server.json(&older);
        let mut lines = older["lines"].as_array().unwrap().clone();
        lines.extend(pages);
        pages = lines;
        match older["before"].as_str() {
            Some(next) => before = next.to_owned(),
            None => break,
        }
    }
    let texts = texts(&pages);
    assert_eq!(texts.first(), Some(&"line 1 (a+b)"));
    assert_eq!(texts.len(), 201, "{texts:?}");

    let found = |search: &str| {
        let path = format!("{path}/logs/older?container={name}&search={search}");
        server.json(&path)["lines"].as_array().unwrap().len()
    };
    assert_eq!(found("line%2029%5B12%5D%20"), 2, "a regular expression");
    assert_eq!(
        found("%28a%2B"),
        300,
        "a text that is no regular expression"
    );

    let file = server.get(&format!("{path}/logs/download?container={name}"));
    assert_eq!(file.status, 200);
    let disposition = file.header("content-disposition").unwrap();
    assert_eq!(disposition, format!("attachment; filename=\"{name}.log\""));
    let lines: Vec<&str> = file.body.lines().collect();
    assert_eq!(lines.len(), 301);
    assert!(lines[0].ends_with("Z line 1 (a+b)"), "{}", lines[0]);
    let unknown = server.get(&format!("{path}/logs/download?container=no-such-container"));
    assert_eq!(unknown.status, 503);
    assert!(
        unknown.json()["error"]
            .as_str()
            .unwrap()
            .starts_with("the agent answered: ")
    );
}

#[test]
#[parallel]
fn the_log_of_a_container_that_ended_before_the_agent_started_is_shown() {
    // Docker reads both streams at the same time, so lines that follow each other at once can be stored in another order.
    let script = "echo begin; sleep 0.3; echo last words >&2; exit 3";
    let container = Container::run("page-dead", &[], script);
    container.wait_for_end();
    let agent = launch().start();
    let (server, path) = server(&agent);
    wait_for_log(&server, &path, &container);
    let name = container.name();
    let older = server.json(&format!("{path}/logs/older?container={name}"));
    assert_eq!(
        texts(older["lines"].as_array().unwrap()),
        ["begin", "last words"]
    );
    assert_eq!(older["before"], Value::Null);
    // The view of a container opens a stream. It begins with the last lines of the file.
    let mut stream = server.stream(&format!("{path}/logs?containers={name}&tail=200"), &[]);
    assert_eq!(
        texts(&lines_until(&mut stream, "last words")),
        ["begin", "last words"]
    );
    let file = server.get(&format!("{path}/logs/download?container={name}"));
    let lines: Vec<&str> = file.body.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].ends_with("Z last words"), "{}", lines[1]);
}

#[test]
#[parallel]
fn hostile_lines_and_names_stay_text() {
    let agent = launch().start();
    let script = r#"printf '<script>alert(1)</script>\n\033[31mred\033[0m\033]0;title\007 end\n\342\200\256reversed\n';
        printf 'event: hosts\rdata: {}\n'; head -c 1048576 /dev/zero | tr '\0' x; echo; echo end; sleep 1000"#;
    let container = Container::run("page-hostile", &["--label", "a=<b>\"'"], script);
    container.wait_for_line("end");
    let (server, path) = server(&agent);
    let mut stream = server.stream(&format!("{path}/logs?containers={}", container.name()), &[]);
    let lines = lines_until(&mut stream, "end");
    let texts = texts(&lines);
    assert_eq!(
        texts[..4],
        [
            "<script>alert(1)</script>",
            "red end",
            "reversed",
            "event: hostsdata: {}"
        ]
    );
    // Docker itself splits a line of 1 MiB.
    let long: Vec<_> = lines
        .iter()
        .filter(|line| line["text"].as_str().unwrap().starts_with("xxx"))
        .collect();
    assert!(!long.is_empty());
    for line in &long {
        assert!(line["text"].as_str().unwrap().len() <= 16 * 1024);
    }
    assert!(
        long.iter().any(|line| line["cut"] == true),
        "{} long lines",
        long.len()
    );
    let host = format!("{path}/logs?containers=%3Cscript%3E");
    let mut stream = server.stream(&host, &[]);
    assert!(stream.next_within(Duration::from_secs(2)).is_none());
    let page = server.get("/%3Cscript%3Ealert(1)%3C/script%3E");
    assert!(!page.body.contains("<script>alert"));
    let error = server.get(&format!("{path}/%3Cscript%3E"));
    assert_eq!(error.header("content-type"), Some("application/json"));
}

#[test]
#[parallel]
fn containers_have_figures_events_and_problems() {
    let agent = launch().start();
    let (server, path) = server(&agent);
    let first = wait::until("the row", DEADLINE, || {
        let row = server.json(&path)["row"].clone();
        row["containers_up"].is_number().then_some(row)
    });
    assert!(first["containers_down"].is_number());
    let container = Container::run("page-events", &[], "sleep 1000");
    let name = container.name().to_owned();
    let wanted = json!(format!("container:{name}:memory"));
    wait::until("the series of the container", DEADLINE, || {
        let series = server.json(&format!("{path}/series"));
        series["series"]
            .as_array()
            .unwrap()
            .contains(&wanted)
            .then_some(())
    });
    container.docker("kill", &[]);
    let events = wait::until("the end of the container", DEADLINE, || {
        let events = server.json(&format!("{path}/events?container={name}"));
        let events = events["events"].as_array().unwrap().clone();
        events
            .iter()
            .any(|event| event["kind"] == "die")
            .then_some(events)
    });
    let die = events.iter().find(|event| event["kind"] == "die").unwrap();
    assert_eq!(die["text"], format!("{name} exited with code 137"));
    assert_eq!(die["severity"], "warning");
    assert!(events.iter().all(|event| event["container"] == json!(name)));

    // A container that is meant to run, and does not.
    let looping = Container::run("page-loop", &["--restart", "always"], "sleep 0.3; exit 3");
    let bare = looping.name().to_owned();
    let problem = wait::until("a crash loop", DEADLINE, || {
        let host = server.json(&path);
        let problems = host["problems"].as_array().unwrap();
        let found = problems.iter().find(|one| {
            one["container"] == json!(bare)
                && one["text"].as_str().unwrap().contains("again and again")
        });
        found.cloned()
    });
    assert_eq!(problem["severity"], "critical");
    assert!(
        problem["text"].as_str().unwrap().contains("last code 3"),
        "{problem}"
    );
    assert!(problem["since_at"].as_i64().unwrap() > 1_600_000_000_000);
}
