//! Converts a terminal screen to an SVG picture. Reads the output of `tmux capture-pane -e` from standard input. Prints the SVG.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "this program prints a picture or fails"
)]

use std::io::Read;

fn main() {
    let mut screen = String::new();
    std::io::stdin()
        .read_to_string(&mut screen)
        .expect("standard input is text");
    let picture = anstyle_svg::Term::new().render_svg(&screen);
    println!("{picture}");
}
