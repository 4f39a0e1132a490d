//! Tests of older log lines on request: the option `"logs":"range"` and the command `logs`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use serial_test::parallel;

use super::container::Container;
use super::launch;
use crate::support::{Agent, DEADLINE, KEY, Launch, wait};

/// A container with rotated and compressed log files. It has written its last line.
fn rotated(topic: &str, driver: &[&str]) -> Container<'static> {
    let rotation = [
        "--log-opt",
        "max-size=200k",
        "--log-opt",
        "max-file=4",
        "--log-opt",
        "compress=true",
    ];
    // Both streams, and pauses so that the files are rotated one after the other.
    let script = "for i in $(seq 1 6000); do echo line $i; echo error $i >&2; \
        test $((i % 500)) = 0 && sleep 0.3; done; echo end; sleep 1000";
    let container = Container::run(topic, &[driver, &rotation].concat(), script);
    container.wait_for_line_with("end");
    container
}

/// Asks for a range. Returns the answer.
fn ask(agent: &Agent, container: &str, options: &Value) -> Value {
    let mut asked = json!({"logs": "range", "container": container});
    asked
        .as_object_mut()
        .unwrap()
        .extend(options.as_object().unwrap().clone());
    let mut client = agent.connect();
    client.send(format!("{KEY} {asked}\n"));
    let answer = client.line().expect("no answer");
    assert_eq!(client.line(), None, "the connection stays open");
    serde_json::from_str(&answer).unwrap()
}

fn lines(answer: &Value, container: &str) -> Vec<String> {
    let lines = answer["logs"][container].as_array();
    let lines = lines.unwrap_or_else(|| panic!("{answer:#}"));
    lines
        .iter()
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

/// The timestamp of a log line.
fn time(line: &str) -> &str {
    line.split_once(' ').unwrap().0
}

/// Waits until the agent knows the container.
fn wait_until_known(agent: &Agent, container: &str) {
    wait::until("the log", DEADLINE, || {
        let answer = ask(agent, container, &json!({"lines": 1}));
        answer["logs"].is_object().then_some(())
    });
}

/// Sorts neighbours of the same time by their text. `Container::logs` does not know which one came first.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    for same in lines.chunk_by_mut(|one, next| time(one) == time(next)) {
        same.sort();
    }
    lines
}

/// Whether each stream has every line from its first to its last one, once. Docker 20.10 unpacks a compressed file for
/// `docker logs`, and uses the copy for all readers of that time, such as the agents of other tests. After a rotation, the
/// name of the copy is that of the next file: `docker logs` then prints lines that are gone, and some lines twice or not.
fn is_whole(lines: &[String]) -> bool {
    ["line", "error"].into_iter().all(|stream| {
        let numbers = lines.iter().filter_map(|line| {
            let (_, text) = line.split_once(' ')?;
            text.strip_prefix(stream)?.trim().parse::<u32>().ok()
        });
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1])
    })
}

/// The lines of `docker logs`, each cut as the agent cuts it.
fn expected(container: &Container<'_>, max_line: usize) -> Vec<String> {
    let cut = |line: String| {
        let (time, text) = line.split_once(' ').unwrap();
        match text.len() > max_line {
            true => format!("{time} {} … [line cut at 16 KiB]", &text[..max_line]),
            false => line,
        }
    };
    let is_whole = || Some(container.logs()).filter(|lines| is_whole(lines));
    let lines = wait::until("a whole log", DEADLINE, is_whole);
    sorted(lines.into_iter().map(cut).collect())
}

#[test]
#[parallel]
fn all_older_lines_can_be_read_in_pages() {
    assert_pages_have_all_lines("ranges-pages", &[]);
}

/// Fails unless the pages have every line that `docker logs` prints. `driver` are the options that choose the logging driver.
pub(super) fn assert_pages_have_all_lines(topic: &str, driver: &[&str]) {
    assert_pages_of_agent_have_all_lines(launch(), topic, driver, 200);
}

/// Does the same with a given agent, and with pages of `most` lines.
pub(super) fn assert_pages_of_agent_have_all_lines(
    agent: Launch,
    topic: &str,
    driver: &[&str],
    most: usize,
) {
    let container = rotated(topic, driver);
    let agent = agent.start();
    wait_until_known(&agent, container.name());
    let name = container.name();
    let all = expected(&container, 16 * 1024);
    assert!(all.len() > 1000, "{} lines", all.len());

    for (from, limit) in [("newest", "before"), ("oldest", "after")] {
        let mut options = json!({"lines": most, "from": from});
        let mut read: Vec<String> = Vec::new();
        loop {
            let answer = ask(&agent, name, &options);
            let page = lines(&answer, name);
            assert!(page.len() <= most + 10, "{}", page.len());
            match from {
                "newest" => read.splice(0..0, page).for_each(drop),
                _ => read.extend(page),
            }
            match answer.get("reached") {
                Some(reached) => options[limit] = reached.clone(),
                None => break,
            }
        }
        let read = sorted(read);
        let wrong = read.iter().zip(&all).find(|(read, due)| read != due);
        assert_eq!((wrong, read.len()), (None, all.len()), "{from}");
    }
}

#[test]
#[parallel]
fn a_range_is_limited_by_times_and_by_a_regular_expression() {
    let container = rotated("ranges-limits", &[]);
    let agent = launch().start();
    wait_until_known(&agent, container.name());
    let name = container.name();
    let all = expected(&container, 16 * 1024);
    let (first, last) = (all.len() / 3, all.len() / 2);
    let options = json!({"after": time(&all[first]), "before": time(&all[last]), "lines": 10_000});
    assert_eq!(
        lines(&ask(&agent, name, &options), name),
        all[first + 1..last]
    );

    let matching: Vec<_> = all
        .iter()
        .filter(|line| line.ends_with("00"))
        .filter(|line| line.contains(" error "))
        .cloned()
        .collect();
    assert!(matching.len() > 3);
    let options = json!({"grep": "^error [0-9]+00$", "lines": 10_000});
    assert_eq!(lines(&ask(&agent, name, &options), name), matching);
    // Timestamps are not part of the text.
    let answer = ask(&agent, name, &json!({"grep": "Z"}));
    assert!(lines(&answer, name).is_empty(), "{answer:#}");

    // The id finds the container too.
    let by_id = ask(&agent, container.short_id(), &json!({"lines": 1}));
    assert_eq!(lines(&by_id, container.short_id()).len(), 1);
}

#[test]
#[parallel]
fn long_lines_are_read_whole_at_any_place() {
    let script =
        "for i in 1 2 3 4; do seq -s ' ' 1 90000; echo short $i; done; echo end; sleep 1000";
    let container = Container::run("ranges-long", &[], script);
    container.wait_for_line("end");
    let agent = launch().start();
    wait_until_known(&agent, container.name());
    let name = container.name();
    let numbers: Vec<_> = (1..=90_000).map(|number| number.to_string()).collect();
    let long = numbers.join(" ");
    for from in ["newest", "oldest"] {
        let options = json!({"max_line": 1_048_576, "from": from});
        let read = lines(&ask(&agent, name, &options), name);
        let texts: Vec<_> = read
            .iter()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(texts.len(), 9, "{from}");
        assert!(
            texts.iter().step_by(2).take(4).all(|text| *text == long),
            "{from}"
        );
        assert_eq!(
            [texts[1], texts[7], texts[8]],
            ["short 1", "short 4", "end"]
        );
    }
}

/// The log of a container that ended before the agent started.
fn last_words(topic: &str, options: &[&str], variables: &[(&str, &str)], excluded: bool) {
    let script =
        "for i in $(seq 1 300); do echo line $i; done; sleep 0.3; echo last words >&2; exit 3";
    let container = Container::run(topic, options, script);
    container.wait_for_end();
    let expected = sorted(container.logs());
    let agent = launch().vars(variables).start();
    let id = container.inspect()["Id"].as_str().unwrap().to_owned();
    if excluded {
        let seen = Container::run("ranges-seen", &[], "sleep 1000");
        wait_until_known(&agent, seen.name());
        let answer = ask(&agent, container.name(), &json!({}));
        assert_eq!(answer["error"], "container: no such log");
        return;
    }
    wait_until_known(&agent, container.name());
    for name in [container.name(), &id[..12], &id] {
        let read = lines(&ask(&agent, name, &json!({})), name);
        assert_eq!(sorted(read), expected, "{topic} {name}");
    }
    let newest = ask(&agent, container.name(), &json!({"lines": 2}));
    assert_eq!(lines(&newest, container.name()), expected[299..]);
    let earlier = ask(
        &agent,
        container.name(),
        &json!({"before": newest["reached"]}),
    );
    assert_eq!(
        sorted(lines(&earlier, container.name())),
        expected[..299],
        "{topic}"
    );
    let other = format!("{}{}", &id[..12], "0".repeat(52));
    let answer = ask(&agent, &other, &json!({}));
    assert!(answer["error"].is_string(), "{answer:#}");
}

#[test]
#[parallel]
fn the_log_of_a_container_that_ended_before_the_agent_started_is_read() {
    last_words("ranges-dead", &[], &[], false);
    last_words("ranges-dead-local", &["--log-driver", "local"], &[], false);
    let by_calls = [("CONTAINER_STATS", "engine")];
    last_words("ranges-dead-called", &[], &by_calls, false);
    last_words("ranges-dead-terminal", &["--tty"], &by_calls, false);
    last_words("ranges-dead-tty", &["--tty"], &[], false);
    let excluded = [("CONTAINERS_EXCLUDE", "*ranges-dead-left*")];
    last_words("ranges-dead-left-out", &[], &excluded, true);
}

#[test]
#[parallel]
fn a_range_that_cannot_be_read_gets_an_error() {
    let agent = launch().start();
    let container = Container::run("ranges-none", &["--log-driver", "none"], "sleep 1000");
    let readable = Container::run("ranges-some", &[], "sleep 1000");
    wait_until_known(&agent, readable.name());
    for (name, options, error) in [
        ("ranges-unknown", json!({}), "container: no such log"),
        ("", json!({}), "container: needed with"),
        (
            "web",
            json!({"lines": 0}),
            "lines: accepted: an integer from 1 to 10000",
        ),
        (
            "web",
            json!({"before": "yesterday"}),
            "before: accepted: a time such as",
        ),
        (
            "web",
            json!({"grep": "("}),
            "grep: accepted: a regular expression",
        ),
        (
            "web",
            json!({"grep": "(a{1000}){1000}"}),
            "grep: accepted: a regular expression",
        ),
        ("web", json!({"live": true}), "live: not accepted with"),
        (
            "web",
            json!({"from": "middle"}),
            "from: accepted: \"newest\" or \"oldest\"",
        ),
        (container.name(), json!({}), "container: "),
    ] {
        let answer = ask(&agent, name, &options);
        let said = answer["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer:#}"));
        assert!(said.starts_with(error), "{said}");
    }
}

fn logs(agent: &Agent, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_system-agent"));
    let address = agent.address().to_string();
    command
        .args(["logs", &address])
        .args(arguments)
        .env("API_KEY", KEY);
    command
}

fn printed(agent: &Agent, arguments: &[&str]) -> Vec<String> {
    let output = logs(agent, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
#[parallel]
fn the_command_logs_prints_what_docker_logs_prints() {
    let container = rotated("ranges-command", &[]);
    let agent = launch().start();
    wait_until_known(&agent, container.name());
    let name = container.name();
    let all = expected(&container, 16 * 1024);
    assert_eq!(sorted(printed(&agent, &[name, "--timestamps"])), all);
    let newest = &all[all.len() - 20..];
    assert_eq!(printed(&agent, &[name, "-t", "--tail", "20"]), newest);
    let since = time(&newest[0]);
    assert_eq!(printed(&agent, &[name, "-t", "--since", since]), newest);
    let until = [name, "-t", "--since", since, "--until", time(&newest[5])];
    assert_eq!(printed(&agent, &until), newest[..5]);
    assert_eq!(
        printed(&agent, &[name, "--grep", "^line 5999$"]),
        ["line 5999"]
    );
    let unknown = logs(&agent, &["ranges-unknown"]).output().unwrap();
    let errors = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        !unknown.status.success() && errors.contains("container: no such log"),
        "{errors}"
    );
}

#[test]
#[parallel]
fn the_command_logs_follows_a_log() {
    // The first snapshot that the command receives can be older than the container.
    let variables = [("PUBLISH_INTERVAL", "3s"), ("LOG_INTERVAL", "100ms")];
    let agent = launch().vars(&variables).start();
    let script = "i=0; while true; do i=$((i + 1)); echo line $i; sleep 0.02; done";
    let container = Container::run("ranges-follow", &[], script);
    wait_until_known(&agent, container.name());
    let mut followed = logs(&agent, &[container.name(), "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(followed.stdout.take().unwrap());
    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    for number in 1..=300 {
        let line = printed.recv_timeout(DEADLINE).expect("no further line");
        assert_eq!(line, format!("line {number}"));
    }
    followed.kill().unwrap();
    followed.wait().unwrap();
    let unknown = logs(&agent, &["ranges-unknown", "--follow"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(errors.contains("container: no such log"), "{errors}");
}
