//! Writes the manual pages and the shell completions into a directory: `cargo run --example pages -- DIRECTORY`.
#![allow(clippy::expect_used, reason = "this program writes files or fails")]

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use system_agent::command_line::Arguments;

fn main() {
    let directory = std::env::args_os()
        .nth(1)
        .expect("the argument is a directory");
    let directory = PathBuf::from(directory);
    let mut command = Arguments::command();
    // One page for each command. The first page, system-agent.1, refers to the other pages.
    clap_mangen::generate_to(command.clone(), &directory).expect("the pages are written");
    // Sections that clap cannot generate.
    let first = directory.join("system-agent.1");
    let mut page = fs::read(&first).expect("the first page is readable");
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
The configuration of an agent that was installed as a package: every variable with its default and the accepted values. The file
contains the API key.
.SH EXIT STATUS
0 after SIGTERM or SIGINT. 78 if the configuration has errors; each error is then printed on its own line. 10 from \fBupdate
\-\-check\fR if a newer release exists. 1 after any other failure.
"#;
