//! Checks that every command in a page works. Exceptions are listed here, with the reason why no test runs the command.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Parser;
use serial_test::parallel;
use system_agent::command_line::Arguments;

use super::{Page, ROOT, pages};

const IN_MACHINE: &str =
    "docs/install.md has the same command, and the virtual machine of `make test-vm` runs it";
/// Commands that no test runs. The fields are the page, the beginning of the command, and the reason.
const TEXTFILE: &str = "tests of `textfile` read such a directory";
const SMART: &str = "it needs a disk with SMART; a test runs the script with recorded answers";
const INSTALL: &str = "release/test-install.sh runs it";
const PACKAGE: &str = "release/test-packages.sh runs the same package manager";
const LOAD: &str = "release/test-packages.sh loads the images";
const RELEASE: &str = "it needs the files of a release, whose build takes long";
const NOT_RUN: [(&str, &str, &str); 38] = [
    ("README.md", "sudo sh install.sh", INSTALL),
    ("docs/install.md", "sudo sh install.sh", INSTALL),
    (
        "docs/install.md",
        "curl -fsSO https://example.org",
        "it downloads a file from a maintainer's server",
    ),
    (
        "docs/install.md",
        "sudo apt-get install ./system-agent_",
        PACKAGE,
    ),
    ("docs/install.md", "sudo dnf install", PACKAGE),
    ("docs/install.md", "sudo apk add", PACKAGE),
    ("docs/install.md", "sudo pacman -U", PACKAGE),
    ("docs/install.md", "sudo curl -fsSo /etc/apt", PACKAGE),
    ("docs/install.md", "echo 'deb [signed-by", PACKAGE),
    ("docs/install.md", "sudo apt-get update", PACKAGE),
    (
        "docs/install.md",
        "sudo apt-get install system-agent",
        PACKAGE,
    ),
    ("docs/install.md", "sudo curl -fsSo /etc/yum", PACKAGE),
    ("docs/install.md", "docker load", LOAD),
    ("docs/install.md", "docker tag", LOAD),
    ("README.md", "export API_KEY", "it sets a variable"),
    ("README.md", "sudo apt-get install", IN_MACHINE),
    ("README.md", "sudo grep", IN_MACHINE),
    (
        "docs/configuration.md",
        "sudo systemctl restart",
        IN_MACHINE,
    ),
    (
        "docs/install.md",
        "cargo build",
        "`make build` is the same command",
    ),
    ("docs/clients.md", "export API_KEY", "it sets a variable"),
    (
        "docs/nats.md",
        "NATS_URL=",
        "it is a line of a file, and tests of `nats` set this variable",
    ),
    (
        "docs/nats.md",
        "NATS_CREDENTIALS_FILE=",
        "it is a line of a file, and tests of `nats` set this variable",
    ),
    (
        "docs/nats.md",
        "nats sub",
        "Debian has no package of the command `nats`; tests of `nats` subscribe to these subjects",
    ),
    ("docs/release.md", "minisign -V", RELEASE),
    ("docs/release.md", "sha256sum", RELEASE),
    ("docs/prometheus.md", "sudo install -d", TEXTFILE),
    ("docs/prometheus.md", "echo TEXTFILE_DIR", TEXTFILE),
    ("docs/prometheus.md", "sudo systemctl restart", TEXTFILE),
    ("docs/prometheus.md", "cat >", TEXTFILE),
    ("docs/prometheus.md", "backup_last", TEXTFILE),
    ("docs/prometheus.md", "END", TEXTFILE),
    ("docs/prometheus.md", "mv ", TEXTFILE),
    ("docs/prometheus.md", "cd /usr/share", SMART),
    (
        "docs/prometheus.md",
        "sudo apt-get install smartmontools",
        SMART,
    ),
    ("docs/prometheus.md", "sudo install -D", SMART),
    ("docs/prometheus.md", "sudo install -m", SMART),
    ("docs/prometheus.md", "sudo systemctl daemon-reload", SMART),
    ("docs/prometheus.md", "sudo systemctl enable", SMART),
];

/// A command in a page, without its prompt and its comment.
struct Shown {
    page: String,
    heading: String,
    command: String,
}

/// The commands in blocks of code.
fn commands(page: &Page) -> Vec<Shown> {
    let mut commands = Vec::new();
    for block in page.blocks() {
        let is_console = block.language == "console";
        if !is_console && block.language != "sh" {
            continue;
        }
        for line in block.text.lines() {
            let command = match (is_console, line.strip_prefix("$ ")) {
                (true, Some(command)) => command,
                (true, None) => continue,
                (false, _) => line,
            };
            let command = command.split("  # ").next().unwrap().trim();
            let command = command.split(" # ").next().unwrap().trim();
            if !command.is_empty() && !command.starts_with('#') {
                commands.push(Shown {
                    page: page.name(),
                    heading: block.heading.clone(),
                    command: command.to_owned(),
                });
            }
        }
    }
    commands
}

/// The commands of this project in single backticks. The name `system-agent` without arguments does not count as a command.
fn quoted_commands(page: &Page) -> Vec<Shown> {
    let own = ["make ", "system-agent ", "examples/", "cargo run "];
    let quoted = page.quoted().into_iter();
    quoted
        .filter(|text| own.iter().any(|begin| text.starts_with(begin)))
        .map(|text| Shown {
            page: page.name(),
            heading: String::new(),
            command: text.to_owned(),
        })
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// Whether `make TARGET NAME=VALUE …` names a target and settings that exist.
fn check_make(words: &[&str]) -> Result<(), String> {
    let makefile = read("Makefile");
    for word in words {
        let (name, is_setting) = match word.split_once('=') {
            Some((name, _)) => (name, true),
            None => (*word, false),
        };
        let exists = if is_setting {
            makefile.contains(name)
        } else {
            makefile.contains(&format!("\n{name}:"))
        };
        if !exists {
            return Err(format!("the Makefile has no {name}"));
        }
    }
    Ok(())
}

/// Whether a word describes an argument instead of being one, such as `[HOST[:PORT] …]`.
fn is_placeholder(word: &str) -> bool {
    word.starts_with('[') || word.ends_with(']') || word == "…"
}

/// Returns an error if no test shows that the command works.
fn check(shown: &Shown) -> Result<(), String> {
    let is_excused = NOT_RUN
        .iter()
        .any(|(page, begin, _)| *page == shown.page && shown.command.starts_with(begin));
    if is_excused {
        return Ok(());
    }
    // The tests in `sessions` run these commands.
    if shown.page == "docs/protocol.md" || shown.command.starts_with("bash -c 'exec 3<>/dev/tcp/") {
        return Ok(());
    }
    let words: Vec<&str> = shown.command.split_whitespace().collect();
    let is_assignment = |word: &&&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let assignments = words.iter().take_while(is_assignment).count();
    let words = &words[assignments..];
    let Some((program, arguments)) = words.split_first() else {
        return Err("only variables are set".to_owned());
    };
    let exists = |path: &str| match Path::new(ROOT).join(path).exists() {
        true => Ok(()),
        false => Err(format!("there is no {path}")),
    };
    // A virtual machine runs the blocks of code that this script names.
    let in_machine = read("tests/vm/guest/pages.py");
    if in_machine.contains(&format!("'{}', '{}'", shown.page, shown.heading)) {
        return Ok(());
    }
    match *program {
        "make" => check_make(arguments),
        "system-agent" => {
            let arguments = arguments
                .iter()
                .filter(|word| !is_placeholder(word))
                .copied();
            let all = ["system-agent"].into_iter().chain(arguments);
            Arguments::try_parse_from(all)
                .map(drop)
                .map_err(|error| error.to_string())
        }
        "go" => exists(arguments.iter().find(|word| word.ends_with(".go")).unwrap()),
        "cargo" => match arguments {
            ["run", "--example", name, ..] => exists(&format!("examples/{name}.rs")),
            ["test", "--test", "integration"] => Ok(()),
            _ => Err("no test runs it".to_owned()),
        },
        program if program.starts_with("examples/") || program.starts_with(".ci/") => {
            exists(program)
        }
        _ => Err("no test runs it".to_owned()),
    }
}

#[test]
#[parallel]
fn every_command_in_a_page_works_or_is_a_listed_exception() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for shown in commands(&page).iter().chain(&quoted_commands(&page)) {
            seen += 1;
            if let Err(why) = check(shown) {
                wrong.push(format!(
                    "{}, {}: {}: {why}",
                    shown.page, shown.heading, shown.command
                ));
            }
        }
    }
    assert!(seen > 100, "only {seen} commands were found");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
#[parallel]
fn every_listed_exception_is_in_a_page() {
    let all: Vec<_> = pages().iter().flat_map(commands).collect();
    let unused: BTreeSet<_> = NOT_RUN
        .iter()
        .filter(|(page, begin, _)| {
            !all.iter()
                .any(|shown| shown.page == *page && shown.command.starts_with(begin))
        })
        .collect();
    assert_eq!(unused, BTreeSet::new(), "no page has these commands");
}
