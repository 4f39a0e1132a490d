//! `system-agent watch` in a real terminal. What each view looks like is tested beside the views; here it is tried: keys, the
//! mouse, sizes, hosts that go away, and the terminal afterwards.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::support::{Agent, Authority, KEY, Launch, PATIENCE, Terminal, net, wait};

pub(crate) const SMALL: (u16, u16) = (80, 24);
pub(crate) const LARGE: (u16, u16) = (200, 50);
const WITH_KEY: [(&str, &str); 1] = [("API_KEY", KEY)];

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_owned()
}

fn agent() -> Agent {
    Agent::start(&[("PUBLISH_INTERVAL", "200ms"), ("SYSTEM_INTERVAL", "200ms")])
}

/// Whether no line is longer than the screen is wide, and the borders stand one below the other.
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

/// Waits until all of these texts are seen on a whole screen.
pub(crate) fn shows(terminal: &Terminal, size: (u16, u16), texts: &[&str]) {
    let seen = || {
        let screen = terminal.screen();
        let all = texts.iter().all(|text| screen.contains(text));
        (all && is_whole(&screen, size)).then_some(())
    };
    if wait::within(PATIENCE, seen).is_none() {
        panic!("not {texts:?}, whole, on {size:?}:\n{}", terminal.screen());
    }
}

#[test]
#[parallel]
fn this_host_is_watched_without_a_socket() {
    for size in [SMALL, LARGE] {
        let terminal = Terminal::watch(size, &[], &[("DOCKER_ENABLED", "false")]);
        let first = ["CPU", "Memory", "s old", "Containers 0", "docker off"];
        shows(&terminal, size, &[&first[..], &[&hostname()]].concat());
        for list in [
            "Processes 1",
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
        terminal.press(&["Down", "Down", "Down", "Enter"]);
        terminal.shows(&["PID▾"]);
        terminal.press(&["r"]);
        terminal.shows(&["PID▴"]);
        terminal.press(&["?"]);
        shows(&terminal, size, &["Keys", "sort the other way round"]);
        terminal.press(&["Escape"]);
        terminal.hides("sort the other way round");
        terminal.press(&["/"]);
        terminal.write("no such process");
        terminal.shows(&["/no such process", "nothing that matches"]);
        terminal.press(&["Escape"]);
        terminal.hides("nothing that matches");
        terminal.press(&["q"]);
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn an_agent_that_goes_away_is_connected_to_again() {
    let port = net::free_port();
    let launch = || Launch::new().var("PUBLISH_INTERVAL", "200ms");
    let first = launch().start_on(port);
    let address = format!("127.0.0.1:{port}");
    let terminal = Terminal::watch(SMALL, &[&address], &WITH_KEY);
    terminal.shows(&[&hostname(), "s old"]);
    drop(first);
    // What was known is still there.
    let texts = ["away, again in", "! ", "load", &hostname()];
    shows(&terminal, SMALL, &texts);
    let _second = launch().start_on(port);
    terminal.hides("away");
    terminal.shows(&["s old"]);
    terminal.press(&["C-c"]);
    terminal.ends(0);
}

#[test]
#[parallel]
fn several_hosts_are_a_fleet() {
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
        // The filter is the fleet's, so it takes two steps back to see all.
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
fn a_fleet_tells_of_a_host_that_goes_away() {
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
fn a_click_opens_and_a_title_sorts() {
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
    // Back to an order that does not change between two clicks.
    terminal.click(3, row);
    terminal.shows(&["HOST▾"]);
    terminal.click(3, row + 2);
    terminal.click(3, row + 2);
    terminal.shows(&["Containers 0"]);
}

#[test]
#[parallel]
fn tls_is_verified_and_a_certificate_shown() {
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
    terminal.shows(&["away, again in"]);
    let _second = launch().start_on(port);
    terminal.hides("away");
    terminal.shows(&["s old"]);
    // Without a certificate the agent does not go on.
    let terminal = Terminal::watch(SMALL, &with[..3], &WITH_KEY);
    terminal.shows(&["away"]);
    // Another authority's word does not count.
    let other = Authority::new();
    let other = [&address, "--ca", other.certificate.to_str().unwrap()];
    let terminal = Terminal::watch(SMALL, &other, &WITH_KEY);
    terminal.shows(&["away", "invalid peer certificate"]);
}

#[test]
#[parallel]
fn a_key_is_asked_for_and_not_shown() {
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
fn a_wrong_key_is_tried_once() {
    let agent = agent();
    let address = agent.address().to_string();
    let terminal = Terminal::watch(
        SMALL,
        &[&address],
        &[("API_KEY", "not-the-key-of-this-agent")],
    );
    terminal.shows(&["the key was refused", "R tries again"]);
    let refusals = || agent.events("client refused").len();
    wait::until("a refusal", PATIENCE, || (refusals() == 1).then_some(()));
    // Longer than the first wait of who would try again by itself.
    let again = wait::within(Duration::from_millis(1500), || {
        (refusals() > 1).then_some(())
    });
    assert!(again.is_none(), "tried again without being asked to");
    terminal.press(&["R"]);
    wait::until("a second refusal", PATIENCE, || {
        (agent.events("client refused").len() == 2).then_some(())
    });
    terminal.shows(&["R tries again"]);
}

#[test]
#[parallel]
fn the_picture_fits_whatever_the_size_becomes() {
    let terminal = Terminal::watch(LARGE, &[], &[("DOCKER_ENABLED", "false")]);
    terminal.shows(&["Containers 0", "Processes 1"]);
    for (width, height) in [SMALL, (120, 30), (80, 24), (200, 50), (40, 10)] {
        terminal.resize(width, height);
        shows(&terminal, (width, height), &["Containers 0"]);
        // Wider than before, it is filled.
        wait::until("a picture of the new width", PATIENCE, || {
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
fn a_signal_ends_it_and_the_terminal_is_as_it_was() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let terminal = Terminal::watch(SMALL, &[], &[("DOCKER_ENABLED", "false")]);
        terminal.shows(&["s old"]);
        kill(Pid::from_raw(terminal.pid()), signal).unwrap();
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn no_color_means_none() {
    let coloured = |environment: &[(&str, &str)]| {
        let terminal = Terminal::watch(SMALL, &[], environment);
        terminal.shows(&["s old"]);
        // 39 and 49 are the terminal's own.
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
fn without_a_terminal_it_says_so() {
    let finished = Launch::new().args(["watch"]).run();
    assert_eq!(finished.code(), 1);
    assert!(
        finished.stderr.concat().contains("no terminal"),
        "{finished:?}"
    );
}
