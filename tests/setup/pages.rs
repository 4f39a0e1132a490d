//! Writes the manual page and the shells' completions into a directory: `cargo run --example pages -- DIRECTORY`.
#![allow(clippy::expect_used, reason = "it writes files or fails")]

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use system_agent::command_line::Arguments;

fn main() {
    let directory = std::env::args_os().nth(1).expect("a directory");
    let directory = PathBuf::from(directory);
    let mut command = Arguments::command();
    // One for each command, as the first refers to them.
    clap_mangen::generate_to(command.clone(), &directory).expect("the pages are written");
    // What clap knows nothing of.
    let first = directory.join("system-agent.1");
    let mut page = fs::read(&first).expect("the first page");
    page.extend_from_slice(MORE.as_bytes());
    fs::write(first, page).expect("the first page is written");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "system-agent", &directory)
            .expect("completions are written");
    }
}

const MORE: &str = r#"
.SH FILES
.TP
\fI/etc/system\-agent/agent.env\fR
Its whole configuration, where it came as a package: every variable with its default and what is accepted. It holds the key that
clients show.
.SH EXIT STATUS
0 after SIGTERM or SIGINT; 78 where the configuration is bad: then every problem is said, one line each; 1 where something else
failed.
"#;
