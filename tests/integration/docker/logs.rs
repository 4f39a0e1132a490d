//! Log lines, compared with `docker logs --timestamps`.

use std::time::Duration;

use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, lines, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

/// Maximum length of a log line's text, in bytes. The engine's fragments have the same length.
const MAX_TEXT: usize = 16 * 1024;

/// Shell function that prints `count` numbered words, `0000000 0000001 …`, of 8 bytes each.
/// Each piece of the output shows its position.
const NUMBERED: &str =
    "numbered() { awk -v count=$1 'BEGIN { for (i = 0; i < count; i++) printf \"%07d \", i }'; }; ";

/// The output of [`NUMBERED`].
fn numbered(count: usize) -> String {
    (0..count).map(|i| format!("{i:07} ")).collect()
}

/// Waits until the container's newest log line ends with `last`. Returns the container's log lines in a snapshot of an agent with
/// this `LOG_LINES`. Fails unless the agent reads the same log lines from the engine's files and through the engine's API.
fn lines_of(container: &Container<'_>, log_lines: &str, last: &str) -> Vec<String> {
    container.wait_for_line(last);
    let [ours, asked] = ["auto", "engine"].map(|way| {
        let variables = [("LOG_LINES", log_lines), ("CONTAINER_STATS", way)];
        let agent = launch().vars(&variables).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let name = container.name();
        let snapshot = snapshots.until("the container's logs", DEADLINE, |s| shows(s, name));
        lines(&snapshot, name).unwrap()
    });
    assert_eq!(
        ours, asked,
        "log lines from files, and through the engine's API"
    );
    ours
}

/// The text of a log line, after its timestamp.
fn text(line: &str) -> &str {
    let (timestamp, text) = line
        .split_once(' ')
        .expect("expected a timestamp and a text");
    humantime::parse_rfc3339(timestamp).expect("expected a timestamp");
    text
}

/// Shortens log lines to their first and last characters. A failed assertion would otherwise print very long texts.
fn brief(lines: &[String]) -> Vec<String> {
    let ends = |line: &String| {
        let characters: Vec<char> = line.chars().collect();
        let (Some(head), Some(tail)) = (
            characters.first_chunk::<50>(),
            characters.last_chunk::<40>(),
        ) else {
            return line.clone();
        };
        let (head, tail) = (String::from_iter(head), String::from_iter(tail));
        format!("{head} … {tail} ({} bytes)", line.len())
    };
    lines.iter().map(ends).collect()
}

/// Fails unless `line` holds the beginning of `whole` up to the length limit and says that it was truncated.
fn assert_truncated(line: &str, whole: &str) {
    let text = text(line);
    let same = text.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b);
    let kept = same.count();
    let note = text
        .get(kept..)
        .expect("the line is truncated inside a character");
    assert!(
        text.len() <= MAX_TEXT + 64,
        "the line has {} bytes",
        text.len()
    );
    assert!(
        kept >= MAX_TEXT - 64,
        "only the first {kept} bytes are from the original line, then follows {note:?}"
    );
    let says_so = ["cut", "truncated"].iter().any(|word| note.contains(word));
    assert!(
        says_so,
        "the note does not say that the line was truncated: {note:?}"
    );
}

#[test]
#[parallel]
fn both_streams_are_shown_as_docker_logs_shows_them() {
    // The pauses fix the order of the two streams' lines in the engine.
    let container = Container::run(
        "streams",
        &[],
        "for i in 1 2 3; do echo out $i; sleep 0.1; echo err $i >&2; sleep 0.1; done
         echo; echo '  spaces kept  '; printf 'tab\\there\\r\\n'; echo 'äöü € 😀'; echo end; sleep 1000",
    );
    let ours = lines_of(&container, "50", "end");
    assert_eq!(ours, container.logs());
    let texts: Vec<_> = ours.iter().map(|line| text(line)).collect();
    assert_eq!(
        texts[..6],
        ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"]
    );
    assert_eq!(texts[6..8], ["", "  spaces kept  "]);
}

#[test]
#[parallel]
fn bytes_that_are_not_utf8_are_replaced() {
    // The logging driver json-file replaces such bytes itself. The driver local stores them unchanged, so the agent must replace
    // them.
    for driver in ["json-file", "local"] {
        let container = Container::run(
            "binary",
            &["--log-driver", driver],
            "printf 'a\\377\\376b\\200c\\n'; printf '\\303(\\n'; printf 'nul\\000 esc\\033[0m bell\\007\\n'
             printf 'cut \\342\\202\\n'; echo end; sleep 1000",
        );
        let ours = lines_of(&container, "50", "end");
        assert_eq!(ours, container.logs(), "{driver}");
        let texts: Vec<_> = ours.iter().map(|line| text(line)).collect();
        assert_eq!(texts[0], "a\u{fffd}\u{fffd}b\u{fffd}c", "{driver}");
        assert_eq!(texts[1], "\u{fffd}(", "{driver}");
        assert_eq!(texts[2], "nul\0 esc\u{1b}[0m bell\u{7}", "{driver}");
    }
}

#[test]
#[parallel]
fn a_long_log_line_is_truncated_at_16_kib() {
    let script = format!("{NUMBERED} echo before; numbered 12800; echo; echo after; sleep 1000");
    let container = Container::run("long", &[], &script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 3, "{:?}", brief(&ours));
    assert_eq!(text(&ours[0]), "before");
    assert_truncated(&ours[1], &numbered(12_800));
    assert_eq!(text(&ours[2]), "after");
}

#[test]
#[parallel]
fn a_log_line_of_exactly_16_kib_is_not_truncated() {
    let script = format!(
        "{NUMBERED} numbered 2047; echo 1234567; numbered 2048; echo; numbered 2048; echo x; echo after; sleep 1000"
    );
    for options in [&[][..], &["--tty"], &["--log-driver", "local"]] {
        let container = Container::run("exact", options, &script);
        let ours = lines_of(&container, "50", "after");
        assert_eq!(ours.len(), 4, "{options:?}: {:?}", brief(&ours));
        // `assert_eq!` would print both long texts.
        let whole = [numbered(2047) + "1234567", numbered(2048)];
        let same = ours
            .iter()
            .zip(&whole)
            .all(|(line, whole)| text(line) == whole);
        assert!(same, "{options:?}: {:?}", brief(&ours));
        assert_truncated(&ours[2], &(numbered(2048) + "x"));
        assert_eq!(text(&ours[3]), "after", "{options:?}");
    }
}

#[test]
#[parallel]
fn a_log_line_is_never_truncated_inside_a_character() {
    // 16 KiB is not a multiple of the 3 bytes of "€". The logging driver local stores the bytes unchanged. The driver json-file
    // would already have broken the character.
    let script = "yes € | head -n 10000 | tr -d '\\n'; echo; echo after; sleep 1000";
    let container = Container::run("character", &["--log-driver", "local"], script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 2, "{:?}", brief(&ours));
    assert!(!ours[0].contains('\u{fffd}'), "a character is broken");
    assert_truncated(&ours[0], &"€".repeat(10_000));
}

#[test]
#[parallel]
fn log_lines_counts_lines_not_fragments() {
    let script = format!(
        "{NUMBERED} for i in 1 2 3 4; do numbered 12800; echo; done; echo one; echo two; echo end; sleep 1000"
    );
    for options in [&[][..], &["--tty"], &["--log-driver", "local"]] {
        let container = Container::run("fragments", options, &script);
        let ours = lines_of(&container, "5", "end");
        assert_eq!(ours.len(), 5, "{options:?}: {:?}", brief(&ours));
        assert_truncated(&ours[0], &numbered(12_800));
        assert_truncated(&ours[1], &numbered(12_800));
        let texts: Vec<_> = ours[2..].iter().map(|line| text(line)).collect();
        assert_eq!(texts, ["one", "two", "end"], "{options:?}");
    }
}

#[test]
#[parallel]
fn a_terminals_lines_are_shown_as_docker_logs_shows_them() {
    let container = Container::run(
        "terminal",
        &["--tty"],
        "echo out; echo err >&2; echo; echo 'äöü € 😀'; echo end; sleep 1000",
    );
    let ours = lines_of(&container, "50", "end");
    assert_eq!(ours, container.logs());
    let texts: Vec<_> = ours.iter().map(|line| text(line)).collect();
    assert_eq!(texts, ["out", "err", "", "äöü € 😀", "end"]);
}

#[test]
#[parallel]
fn a_long_log_line_of_a_terminal_is_one_line() {
    let script = format!("{NUMBERED} echo before; numbered 12800; echo; echo after; sleep 1000");
    let container = Container::run("terminal-long", &["--tty"], &script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 3, "{:?}", brief(&ours));
    assert_eq!(text(&ours[0]), "before");
    assert_truncated(&ours[1], &numbered(12_800));
    assert_eq!(text(&ours[2]), "after");
}

#[test]
#[parallel]
fn text_without_a_final_newline_is_a_separate_log_line() {
    // The engine stores such text when the process ends. The output of the next start is another log line.
    let container = Container::run(
        "no-newline",
        &[],
        "if [ -e /tmp/again ]; then echo second; sleep 1000; fi
         touch /tmp/again; echo first; printf 'no newline'",
    );
    container.wait_for_end();
    container.docker("start", &[]);
    let ours = lines_of(&container, "50", "second");
    let texts: Vec<_> = ours.iter().map(|line| text(line)).collect();
    assert_eq!(texts, ["first", "no newline", "second"]);
}

#[test]
#[parallel]
fn the_newest_log_lines_are_shown_oldest_first() {
    let container = Container::run("many-lines", &[], "seq 20000; sleep 1000");
    let ours = lines_of(&container, "3", " 20000");
    let all = container.logs();
    assert_eq!(ours, all[all.len() - 3..]);
}

#[test]
#[parallel]
fn new_log_lines_appear_in_the_stream() {
    let container = Container::run("growing", &[], "seq 3; sleep 1000");
    container.wait_for_line(" 3");
    let agent = launch().var("LOG_LINES", "4").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the first lines", DEADLINE, |s| shows(s, name));
    assert_eq!(lines(&snapshot, name).unwrap(), container.logs());

    // Writes to the standard output of the container's main process, so that the engine logs it.
    container.exec("seq 4 6 >/proc/1/fd/1");
    let shows_six = |snapshot: &serde_json::Value| {
        let lines = lines(snapshot, name).unwrap_or_default();
        lines.last().is_some_and(|line| text(line) == "6")
    };
    let snapshot = snapshots.until("the new lines", DEADLINE, shows_six);
    assert_eq!(lines(&snapshot, name).unwrap(), container.logs()[2..]);
}

#[test]
#[parallel]
fn log_lines_0_disables_logs() {
    let container = Container::run("unread", &[], "echo line; sleep 1000");
    container.wait_for_line("line");
    let agent = launch().var("LOG_LINES", "0").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let shown = |s: &serde_json::Value| super::snapshots::figures(s, name).is_some();
    let snapshot = snapshots.until("the container", DEADLINE, shown);
    assert_eq!(snapshot["logs"], serde_json::json!({}));
    assert_eq!(snapshot["sources"]["logs"]["status"], "disabled");
    assert_eq!(snapshot["status"], "ok");
}

#[test]
#[parallel]
fn an_unreadable_logging_driver_does_not_affect_other_containers() {
    let unreadable = Container::run(
        "unreadable",
        &["--log-driver", "none"],
        "echo x; sleep 1000",
    );
    let readable = Container::run("readable", &[], "echo line; sleep 1000");
    readable.wait_for_line("line");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the readable container", DEADLINE, |s| {
        shows(s, readable.name())
    });
    for snapshot in snapshots.take(5) {
        assert_eq!(lines(&snapshot, readable.name()).unwrap(), readable.logs());
        let lines = lines(&snapshot, unreadable.name()).unwrap_or_default();
        assert_eq!(lines, Vec::<String>::new());
    }
    let said = agent.log().all();
    let said = said.iter().filter(|line| line.contains(unreadable.name()));
    assert_eq!(
        said.count(),
        1,
        "the agent's own log must name the container exactly once"
    );
}

#[test]
#[parallel]
fn a_log_of_the_driver_local_is_followed_through_the_api() {
    assert_followed_through_the_api(&["--log-driver", "local"]);
}

#[test]
#[parallel]
fn a_log_of_a_terminal_is_followed_through_the_api() {
    assert_followed_through_the_api(&["--log-driver", "local", "--tty"]);
}

#[test]
#[parallel]
fn a_json_file_log_can_be_followed_through_the_api() {
    assert_followed_through_the_api(&["--log-driver", "json-file"]);
}

/// Fails unless each published tail consists of the newest log lines at that time.
fn assert_followed_through_the_api(options: &[&str]) {
    // The script writes bursts of log lines with pauses between the bursts. Some bursts fit into the requested tail, other bursts
    // are longer.
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo line $i
         case $i in *3|*7) sleep 0.25;; 50|150) sleep 1.5;; esac; done; echo end; sleep 1000";
    let container = Container::run("followed", options, script);
    let name = container.name();
    // Without the containers of other tests: with many lines to read by calls, the rounds are less frequent.
    let agent = launch()
        .vars(&[("CONTAINER_STATS", "engine"), ("LOG_LINES", "20")])
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .var("CONTAINERS_INCLUDE", name)
        .start();
    let mut snapshots = Snapshots::of(&agent, Duration::from_millis(200));
    let mut seen: Vec<Vec<String>> = Vec::new();
    snapshots.until("the last line", DEADLINE, |s| {
        seen.extend(lines(s, name));
        let last = seen.last().and_then(|lines| lines.last());
        last.is_some_and(|line| line.ends_with("end"))
    });
    // The rounds of these snapshots find no new log lines.
    let after = snapshots.take(3);
    seen.extend(after.iter().filter_map(|s| lines(s, name)));

    let all = container.logs();
    for lines in &seen {
        let end = lines.last().map_or(0, |last| {
            let at = all.iter().position(|line| line == last);
            at.unwrap_or_else(|| panic!("{options:?}: {last} is not in docker logs")) + 1
        });
        assert_eq!(
            lines[..],
            all[end.saturating_sub(20)..end],
            "{options:?}: the tail is not the newest part of the log"
        );
    }
    seen.dedup();
    assert!(seen.len() > 10, "only {} different tails", seen.len());
    assert_eq!(seen.last().unwrap()[..], all[all.len() - 20..]);
}

#[test]
#[parallel]
fn redacted_text_does_not_leave_the_host() {
    // The second-to-last log line is truncated in the middle of a secret.
    let script = format!(
        "{NUMBERED} echo Authorization: Bearer abc.DEF-123; echo plain; echo AKIA0123456789ABCDEF by mail@example.com; \
         numbered 2046; echo key=0123456789abcdef; echo end; sleep 1000"
    );
    let container = Container::run("redacted", &[], &script);
    container.wait_for_line("end");
    let redact = r"(?i)bearer\s+(?P<secret>[a-z0-9._~+/-]+=*) AKIA[0-9A-Z]{16} \w+@\w+\.com key=[0-9a-f]{16}";
    for way in ["auto", "engine"] {
        let variables = [("LOG_REDACT", redact), ("CONTAINER_STATS", way)];
        let agent = launch().vars(&variables).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let name = container.name();
        let snapshot = snapshots.until("the container's logs", DEADLINE, |s| shows(s, name));
        let lines = lines(&snapshot, name).unwrap();
        let texts: Vec<_> = lines.iter().map(|line| text(line)).collect();
        assert_eq!(
            texts[..3],
            [
                "Authorization: Bearer [redacted]",
                "plain",
                "[redacted] by [redacted]"
            ]
        );
        let cut = texts[3]
            .strip_suffix(" … [line cut at 16 KiB]")
            .expect("the line is not marked as truncated");
        assert!(
            numbered(2046).trim_end().starts_with(cut) && cut.len() > 16_000,
            "{way}"
        );
        assert_eq!(texts[4], "end");
    }
}
