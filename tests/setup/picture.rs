//! Draws a terminal's screen, as `tmux capture-pane -e` prints it on standard input, as SVG on standard output.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "it prints a picture or fails"
)]

use std::io::Read;

fn main() {
    let mut screen = String::new();
    std::io::stdin()
        .read_to_string(&mut screen)
        .expect("a screen of text");
    let picture = anstyle_svg::Term::new().render_svg(&screen);
    println!("{picture}");
}
