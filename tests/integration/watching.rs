//! Tests of `system-agent watch` in a real terminal: keys, the mouse, screen sizes, hosts that disconnect, and the terminal's
//! settings afterwards. Unit tests in `src/watch` check what each view shows.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::support::{Agent, Authority, DEADLINE, KEY, Launch, Terminal, net, wait};

pub(crate) const SMALL: (u16, u16) = (80, 24);
pub(crate) const LARGE: (u16, u16) = (200, 50);
const WITH_KEY: [(&str, &str); 1] = [("API_KEY", KEY)];

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_owned()
}

fn agent() -> Agent {
    Agent::start(&[("PUBLISH_INTERVAL", "200ms"), ("SYSTEM_INTERVAL", "200ms")])
}

/// Whether every line fits the screen and the borders are aligned.
fn is_whole(screen: &str, (width, height): (u16, u16)) -> bool {
    let width = usize::from(width);
    let line_is_whole = |line: &str| {
        let length = line.chars().count();
        match line.starts_with(['│', '╭', '╰']) {
            true => length == width && line.ends_with(['│', '╮', '╯']),
            false => length <= width,
        }
    };
    screen.lines().count() <= usize::from(height) && screen.lines().all(line_is_whole)
}

/// Waits until all of these texts are on the screen and the screen is drawn completely.
pub(crate) fn shows(terminal: &Terminal, size: (u16, u16), texts: &[&str]) {
    let seen = || {
        let screen = terminal.screen();
        let all = texts.iter().all(|text| screen.contains(text));
        (all && is_whole(&screen, size)).then_some(())
    };
    if wait::within(DEADLINE, seen).is_none() {
        panic!(
            "not all of {texts:?} are on a complete screen of {size:?}:\n{}",
            terminal.screen()
        );
    }
}

#[test]
#[parallel]
fn the_local_host_is_shown_without_a_socket() {
    for size in [SMALL, LARGE] {
        let terminal = Terminal::watch(size, &[], &[("DOCKER_ENABLED", "false")]);
        let first = ["CPU", "Memory", "s old", "Containers 0", "docker off"];
        shows(&terminal, size, &[&first[..], &[&hostname()]].concat());
        for list in [
            "Processes 1",
            "Units",
            "Disks",
            "Network",
            "Events 0",
            "Containers 0",
        ] {
            terminal.press(&["Tab"]);
            shows(&terminal, size, &[list]);
        }
        terminal.press(&["Tab"]);
        terminal.shows(&["PID", "RSS"]);
        terminal.press(&["s"]);
        shows(&terminal, size, &["Sort by", "▸ CPU%"]);
        terminal.press(&["Down", "Down", "Down", "Down", "Down", "Enter"]);
        terminal.shows(&["PID▾"]);
        terminal.press(&["r"]);
        terminal.shows(&["PID▴"]);
        terminal.press(&["?"]);
        shows(&terminal, size, &["Keys", "reverse the order"]);
        terminal.press(&["Escape"]);
        terminal.hides("reverse the order");
        terminal.press(&["/"]);
        terminal.write("no such process");
        terminal.shows(&["/no such process", "no matching entries"]);
        terminal.press(&["Escape"]);
        terminal.hides("no matching entries");
        terminal.press(&["q"]);
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn after_a_restart_of_the_agent_the_view_connects_again() {
    let port = net::free_port();
    let launch = || Launch::new().var("PUBLISH_INTERVAL", "200ms");
    let first = launch().start_on(port);
    let address = format!("127.0.0.1:{port}");
    let terminal = Terminal::watch(SMALL, &[&address], &WITH_KEY);
    terminal.shows(&[&hostname(), "s old"]);
    drop(first);
    // The newest figures stay on the screen.
    let texts = ["away, retry in", "! ", "load", &hostname()];
    shows(&terminal, SMALL, &texts);
    let _second = launch().start_on(port);
    terminal.hides("away");
    terminal.shows(&["s old"]);
    terminal.press(&["C-c"]);
    terminal.ends(0);
}

#[test]
#[parallel]
fn several_hosts_are_shown_as_a_fleet() {
    let (one, other) = (agent(), agent());
    let nobody = format!("127.0.0.1:{}", net::free_port());
    let hosts = [
        one.address().to_string(),
        other.address().to_string(),
        nobody,
    ];
    let hosts = hosts.each_ref().map(String::as_str);
    for size in [SMALL, LARGE] {
        let terminal = Terminal::watch(size, &hosts, &WITH_KEY);
        let texts = ["3 hosts", "1 away", "Fleet", "cannot connect", "MEM%"];
        shows(&terminal, size, &texts);
        terminal.hides("connecting");
        terminal.press(&["/"]);
        terminal.write(&hostname());
        terminal.press(&["Enter", "Enter"]);
        shows(&terminal, size, &["Containers 0", "load"]);
        // The filter applies to the fleet view. The first Escape leaves the host, and the second Escape clears the filter.
        terminal.press(&["Escape"]);
        terminal.shows(&["Fleet"]);
        terminal.press(&["Escape"]);
        terminal.shows(&["cannot connect", "3 hosts"]);
        terminal.press(&["F10"]);
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn a_fleet_shows_a_host_that_disconnects() {
    let (one, other) = (agent(), agent());
    let hosts = [one.address().to_string(), other.address().to_string()];
    let terminal = Terminal::watch(SMALL, &hosts.each_ref().map(String::as_str), &WITH_KEY);
    terminal.shows(&["2 hosts"]);
    terminal.hides("connecting");
    drop(other);
    terminal.shows(&["1 away"]);
}

#[test]
#[parallel]
fn a_click_opens_a_host_and_a_click_on_a_title_sorts() {
    let (one, other) = (agent(), agent());
    let hosts = [one.address().to_string(), other.address().to_string()];
    let terminal = Terminal::watch(LARGE, &hosts.each_ref().map(String::as_str), &WITH_KEY);
    terminal.shows(&["2 hosts"]);
    terminal.hides("connecting");
    let screen = terminal.shows(&["HOST▾"]);
    let row = screen
        .lines()
        .position(|line| line.contains("CPU%"))
        .unwrap();
    let column = screen
        .lines()
        .nth(row)
        .unwrap()
        .chars()
        .position(|one| one == 'C')
        .unwrap();
    terminal.click(column, row);
    terminal.shows(&["CPU%▾"]);
    // Sort by name again, so that the order does not change between the two clicks.
    terminal.click(3, row);
    terminal.shows(&["HOST▾"]);
    terminal.click(3, row + 2);
    terminal.click(3, row + 2);
    terminal.shows(&["Containers 0"]);
}

#[test]
#[parallel]
fn the_agents_certificate_is_verified_and_a_client_certificate_sent() {
    let authority = Authority::new();
    let server = authority.issue("agent");
    let ca = authority.certificate.to_str().unwrap();
    let launch = || {
        let launch = server.launch().var("TLS_CLIENT_CA_FILE", ca);
        launch.var("PUBLISH_INTERVAL", "200ms")
    };
    let port = net::free_port();
    let first = launch().start_on(port);
    let address = format!("127.0.0.1:{port}");
    let client = authority.issue("client");
    let (cert, key) = (
        client.certificate.to_str().unwrap(),
        client.key.to_str().unwrap(),
    );
    let with = [address.as_str(), "--ca", ca, "--cert", cert, "--key", key];
    let terminal = Terminal::watch(SMALL, &with, &WITH_KEY);
    terminal.shows(&[&hostname(), "s old"]);
    drop(first);
    terminal.shows(&["away, retry in"]);
    let _second = launch().start_on(port);
    terminal.hides("away");
    terminal.shows(&["s old"]);
    // The agent refuses a client without a certificate.
    let terminal = Terminal::watch(SMALL, &with[..3], &WITH_KEY);
    terminal.shows(&["away"]);
    // The client refuses an agent whose certificate is of another authority.
    let other = Authority::new();
    let other = [&address, "--ca", other.certificate.to_str().unwrap()];
    let terminal = Terminal::watch(SMALL, &other, &WITH_KEY);
    terminal.shows(&["away", "invalid peer certificate"]);
}

#[test]
#[parallel]
fn a_missing_key_is_requested_and_not_shown() {
    let agent = agent();
    let address = agent.address().to_string();
    let terminal = Terminal::watch(SMALL, &[&address], &[]);
    terminal.shows(&["API key:"]);
    terminal.write(KEY);
    terminal.press(&["Enter"]);
    terminal.shows(&["s old"]);
}

#[test]
#[parallel]
fn a_wrong_key_is_sent_only_once() {
    let agent = agent();
    let address = agent.address().to_string();
    let terminal = Terminal::watch(
        SMALL,
        &[&address],
        &[("API_KEY", "not-the-key-of-this-agent")],
    );
    terminal.shows(&["the agent refused the API key", "press R to retry"]);
    let refusals = || agent.events("client refused").len();
    wait::until("a refusal", DEADLINE, || (refusals() == 1).then_some(()));
    // The test waits for longer than the first pause before an automatic retry.
    let again = wait::within(Duration::from_millis(1500), || {
        (refusals() > 1).then_some(())
    });
    assert!(again.is_none(), "the client retried by itself");
    terminal.press(&["R"]);
    wait::until("a second refusal", DEADLINE, || {
        (agent.events("client refused").len() == 2).then_some(())
    });
    terminal.shows(&["press R to retry"]);
}

#[test]
#[parallel]
fn the_picture_fits_every_size() {
    let terminal = Terminal::watch(LARGE, &[], &[("DOCKER_ENABLED", "false")]);
    terminal.shows(&["Containers 0", "Processes 1"]);
    for (width, height) in [SMALL, (120, 30), (80, 24), (200, 50), (40, 10)] {
        terminal.resize(width, height);
        shows(&terminal, (width, height), &["Containers 0"]);
        // The picture fills the new width.
        wait::until("a picture of the new width", DEADLINE, || {
            let screen = terminal.screen();
            let longest = screen.lines().map(|line| line.chars().count()).max();
            (longest == Some(usize::from(width))).then_some(())
        });
    }
    terminal.resize(30, 5);
    terminal.shows(&["needs 40 × 10"]);
}

#[test]
#[parallel]
fn after_a_signal_the_terminal_has_its_old_settings() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let terminal = Terminal::watch(SMALL, &[], &[("DOCKER_ENABLED", "false")]);
        terminal.shows(&["s old"]);
        kill(Pid::from_raw(terminal.pid()), signal).unwrap();
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn with_no_color_there_are_no_colours() {
    let coloured = |environment: &[(&str, &str)]| {
        let terminal = Terminal::watch(SMALL, &[], environment);
        terminal.shows(&["s old"]);
        // 39 and 49 select the terminal's default colours.
        let screen = terminal.coloured_screen();
        screen.split("\u{1b}[").any(|sequence| {
            let codes = sequence.split('m').next().unwrap_or_default();
            codes
                .split(';')
                .any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=107)))
        })
    };
    assert!(coloured(&[("DOCKER_ENABLED", "false")]));
    assert!(!coloured(&[("DOCKER_ENABLED", "false"), ("NO_COLOR", "1")]));
}

#[test]
#[parallel]
fn without_a_terminal_watch_exits_with_an_error() {
    let finished = Launch::new().args(["watch"]).run();
    assert_eq!(finished.code(), 1);
    assert!(
        finished.stderr.concat().contains("not a terminal"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn watch_ends_with_its_terminal_even_if_sighup_is_ignored() {
    let command = concat!(
        "exec env --ignore-signal=HUP '",
        env!("CARGO_BIN_EXE_system-agent"),
        "' watch"
    );
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("cannot start script (Debian package bsdutils)");
    let children = format!("/proc/{0}/task/{0}/children", terminal.id());
    let watch = wait::until("the view", DEADLINE, || {
        let pid = fs::read_to_string(&children).ok()?.trim().to_owned();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "system-agent").then_some(pid)
    });
    // The view needs a moment to read its input.
    thread::sleep(Duration::from_secs(1));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let stat = format!("/proc/{watch}");
    wait::until("the end of the view", DEADLINE, || {
        (!Path::new(&stat).exists()).then_some(())
    });
}
