//! Tests of containers in the terminal view.

use serial_test::parallel;

use super::container::Container;
use crate::support::Terminal;

#[test]
#[parallel]
fn the_log_of_a_container_is_followed_and_searched() {
    let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo \"line $i \u{1b}[31mred\u{1b}[0m\"; done; \
                  while :; do echo tick; sleep 0.2; done";
    let container = Container::run("watched", &["--label", "a=b"], script);
    for size in [(80, 24), (200, 50)] {
        let terminal = Terminal::watch(
            size,
            &[],
            &[("LOG_INTERVAL", "500ms"), ("LOG_LINES", "1000")],
        );
        terminal.shows(&["Containers"]);
        terminal.press(&["/"]);
        terminal.write(container.name());
        terminal.press(&["Enter"]);
        terminal.shows(&[container.name(), "Containers 1 "]);
        terminal.press(&["Enter"]);
        let title = format!("› {}", container.name());
        terminal.shows(&[
            &title,
            "image system-agent-test",
            "tick",
            "following",
            "CPU",
            "Memory",
        ]);
        terminal.press(&["/"]);
        terminal.write("LINE 17 RED");
        terminal.press(&["Enter"]);
        terminal.shows(&["line 17 red", "press f to follow"]);
        terminal.press(&["g"]);
        terminal.shows(&["line 1 red"]);
        terminal.press(&["f"]);
        terminal.shows(&["following"]);
        terminal.hides("line 1 red");
        terminal.press(&["Tab"]);
        terminal.shows(&["Events"]);
        terminal.press(&["Tab"]);
        // The first Escape ends the search. The test waits between the two keys, because the view would read both together as
        // another key.
        terminal.press(&["Escape"]);
        terminal.hides("/LINE 17 RED");
        terminal.press(&["Escape"]);
        terminal.shows(&["Containers 1 "]);
        terminal.press(&["q"]);
        terminal.ends(0);
    }
}
