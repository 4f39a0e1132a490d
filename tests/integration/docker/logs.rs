//! Log lines, as `docker logs --timestamps` shows them.

use std::time::Duration;

use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, lines, shows};
use super::{INTERVAL, launch};
use crate::support::PATIENCE;

/// The longest text of a line; the engine's fragments are as long.
const LONGEST: usize = 16 * 1024;

/// Prints `count` numbered words, `0000000 0000001 …`, of 8 bytes each: any piece of it tells where it belongs.
const NUMBERED: &str =
    "numbered() { awk -v count=$1 'BEGIN { for (i = 0; i < count; i++) printf \"%07d \", i }'; }; ";

/// As [`NUMBERED`] prints it.
fn numbered(count: usize) -> String {
    (0..count).map(|i| format!("{i:07} ")).collect()
}

/// The container's lines in a snapshot of an agent with this `LOG_LINES`, once its last line ends with `last`: the
/// same whether they are read from the engine's files or asked of the engine.
fn lines_of(container: &Container<'_>, log_lines: &str, last: &str) -> Vec<String> {
    container.wait_for_line(last);
    let [ours, asked] = ["auto", "engine"].map(|way| {
        let variables = [("LOG_LINES", log_lines), ("CONTAINER_STATS", way)];
        let agent = launch().vars(&variables).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let name = container.name();
        let snapshot = snapshots.until("the container's logs", PATIENCE, |s| shows(s, name));
        lines(&snapshot, name).unwrap()
    });
    assert_eq!(ours, asked, "from files, and by calls");
    ours
}

/// The text of a line: what follows its timestamp.
fn text(line: &str) -> &str {
    let (timestamp, text) = line.split_once(' ').expect("a timestamp and a text");
    humantime::parse_rfc3339(timestamp).expect("a timestamp");
    text
}

/// Lines for a message of a failing test: their beginnings and ends.
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

/// Fails unless `line` shows as much of `whole` as a line may have, and says that it was cut.
fn assert_cut(line: &str, whole: &str) {
    let text = text(line);
    let same = text.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b);
    let kept = same.count();
    let note = text.get(kept..).expect("a cut between characters");
    assert!(text.len() <= LONGEST + 64, "{} bytes long", text.len());
    assert!(
        kept >= LONGEST - 64,
        "only the first {kept} bytes are the line's own; then {note:?}"
    );
    let says_so = ["cut", "truncated"].iter().any(|word| note.contains(word));
    assert!(says_so, "does not say that it was cut: {note:?}");
}

#[test]
#[parallel]
fn both_streams_are_shown_as_docker_logs_shows_them() {
    // The pauses fix the order in which the engine sees the lines of two streams.
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
    // json-file replaces them itself; local keeps them for the agent.
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
fn a_long_line_is_one_line_cut_at_16_kib() {
    let script = format!("{NUMBERED} echo before; numbered 12800; echo; echo after; sleep 1000");
    let container = Container::run("long", &[], &script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 3, "{:?}", brief(&ours));
    assert_eq!(text(&ours[0]), "before");
    assert_cut(&ours[1], &numbered(12_800));
    assert_eq!(text(&ours[2]), "after");
}

#[test]
#[parallel]
fn a_line_of_exactly_16_kib_is_whole() {
    let script = format!(
        "{NUMBERED} numbered 2047; echo 1234567; numbered 2048; echo; numbered 2048; echo x; echo after; sleep 1000"
    );
    for options in [&[][..], &["--tty"], &["--log-driver", "local"]] {
        let container = Container::run("exact", options, &script);
        let ours = lines_of(&container, "50", "after");
        assert_eq!(ours.len(), 4, "{options:?}: {:?}", brief(&ours));
        // Not assert_eq!, which would print both.
        let whole = [numbered(2047) + "1234567", numbered(2048)];
        let same = ours
            .iter()
            .zip(&whole)
            .all(|(line, whole)| text(line) == whole);
        assert!(same, "{options:?}: {:?}", brief(&ours));
        assert_cut(&ours[2], &(numbered(2048) + "x"));
        assert_eq!(text(&ours[3]), "after", "{options:?}");
    }
}

#[test]
#[parallel]
fn a_line_is_never_cut_inside_a_character() {
    // 16 KiB is no multiple of the 3 bytes of "€". The local driver keeps the bytes; json-file has broken the
    // character already.
    let script = "yes € | head -n 10000 | tr -d '\\n'; echo; echo after; sleep 1000";
    let container = Container::run("character", &["--log-driver", "local"], script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 2, "{:?}", brief(&ours));
    assert!(!ours[0].contains('\u{fffd}'), "a broken character");
    assert_cut(&ours[0], &"€".repeat(10_000));
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
        assert_cut(&ours[0], &numbered(12_800));
        assert_cut(&ours[1], &numbered(12_800));
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
fn a_terminals_long_line_is_one_line() {
    let script = format!("{NUMBERED} echo before; numbered 12800; echo; echo after; sleep 1000");
    let container = Container::run("terminal-long", &["--tty"], &script);
    let ours = lines_of(&container, "50", "after");
    assert_eq!(ours.len(), 3, "{:?}", brief(&ours));
    assert_eq!(text(&ours[0]), "before");
    assert_cut(&ours[1], &numbered(12_800));
    assert_eq!(text(&ours[2]), "after");
}

#[test]
#[parallel]
fn text_without_a_final_newline_is_a_line_of_its_own() {
    // The engine keeps such text when the process ends; what the next start prints is another line.
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
fn the_newest_lines_are_kept_oldest_first() {
    let container = Container::run("many-lines", &[], "seq 20000; sleep 1000");
    let ours = lines_of(&container, "3", " 20000");
    let all = container.logs();
    assert_eq!(ours, all[all.len() - 3..]);
}

#[test]
#[parallel]
fn new_lines_appear_while_it_streams() {
    let container = Container::run("growing", &[], "seq 3; sleep 1000");
    container.wait_for_line(" 3");
    let agent = launch().var("LOG_LINES", "4").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the first lines", PATIENCE, |s| shows(s, name));
    assert_eq!(lines(&snapshot, name).unwrap(), container.logs());

    // The container's own standard output, so that the engine logs it.
    container.exec("seq 4 6 >/proc/1/fd/1");
    let shows_six = |snapshot: &serde_json::Value| {
        let lines = lines(snapshot, name).unwrap_or_default();
        lines.last().is_some_and(|line| text(line) == "6")
    };
    let snapshot = snapshots.until("the new lines", PATIENCE, shows_six);
    assert_eq!(lines(&snapshot, name).unwrap(), container.logs()[2..]);
}

#[test]
#[parallel]
fn no_lines_means_no_logs() {
    let container = Container::run("unread", &[], "echo line; sleep 1000");
    container.wait_for_line("line");
    let agent = launch().var("LOG_LINES", "0").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let shown = |s: &serde_json::Value| super::snapshots::figures(s, name).is_some();
    let snapshot = snapshots.until("the container", PATIENCE, shown);
    assert_eq!(snapshot["logs"], serde_json::json!({}));
    assert_eq!(snapshot["sources"]["logs"]["status"], "disabled");
    assert_eq!(snapshot["status"], "ok");
}

#[test]
#[parallel]
fn a_logging_driver_that_cannot_be_read_spoils_nothing_else() {
    let unreadable = Container::run(
        "unreadable",
        &["--log-driver", "none"],
        "echo x; sleep 1000",
    );
    let readable = Container::run("readable", &[], "echo line; sleep 1000");
    readable.wait_for_line("line");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the readable container", PATIENCE, |s| {
        shows(s, readable.name())
    });
    for snapshot in snapshots.take(5) {
        assert_eq!(lines(&snapshot, readable.name()).unwrap(), readable.logs());
        let lines = lines(&snapshot, unreadable.name()).unwrap_or_default();
        assert_eq!(lines, Vec::<String>::new());
    }
    let said = agent.log().all();
    let said = said.iter().filter(|line| line.contains(unreadable.name()));
    assert_eq!(said.count(), 1, "said once that its logs cannot be read");
}

#[test]
#[parallel]
fn a_local_drivers_log_is_followed_by_calls() {
    assert_followed_by_calls(&["--log-driver", "local"]);
}

#[test]
#[parallel]
fn a_terminals_log_is_followed_by_calls() {
    assert_followed_by_calls(&["--log-driver", "local", "--tty"]);
}

#[test]
#[parallel]
fn json_files_are_followed_where_calls_are_forced() {
    assert_followed_by_calls(&["--log-driver", "json-file"]);
}

/// Fails unless every tail that is published while a container logs is the newest part of its log.
fn assert_followed_by_calls(options: &[&str]) {
    // Bursts that fit into what is asked for, bursts that do not, and pauses in between.
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo line $i
         case $i in *3|*7) sleep 0.15;; 50|150) sleep 1.5;; esac; done; echo end; sleep 1000";
    let container = Container::run("followed", options, script);
    let name = container.name();
    let agent = launch()
        .vars(&[("CONTAINER_STATS", "engine"), ("LOG_LINES", "20")])
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .start();
    let mut snapshots = Snapshots::of(&agent, Duration::from_millis(200));
    let mut seen: Vec<Vec<String>> = Vec::new();
    snapshots.until("the last line", PATIENCE, |s| {
        seen.extend(lines(s, name));
        let last = seen.last().and_then(|lines| lines.last());
        last.is_some_and(|line| line.ends_with("end"))
    });
    // A round in which nothing is new.
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
            "{options:?}: not the newest lines"
        );
    }
    seen.dedup();
    assert!(seen.len() > 10, "only {} different tails", seen.len());
    assert_eq!(seen.last().unwrap()[..], all[all.len() - 20..]);
}

#[test]
#[parallel]
fn what_is_to_be_taken_out_does_not_leave_the_host() {
    // The last line but one is cut in the middle of a secret.
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
        let snapshot = snapshots.until("the container's logs", PATIENCE, |s| shows(s, name));
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
            .expect("a cut line");
        assert!(
            numbered(2046).trim_end().starts_with(cut) && cut.len() > 16_000,
            "{way}"
        );
        assert_eq!(texts[4], "end");
    }
}
