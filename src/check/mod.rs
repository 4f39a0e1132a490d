//! `system-agent check`: tries every component and prints one line for each component.

mod components;
mod socket;

pub use components::components;
pub use socket::{Target, socket};

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The result for one component.
enum Outcome {
    /// The component works. The text says what the check found.
    Pass(String),
    /// The component does not work. The text is the reason.
    Fail(String),
    /// The component was not tried. The text is the reason.
    Skip(String),
}

/// Prints one line for each component, and remembers whether a component failed.
struct Report<P> {
    print: P,
    failed: bool,
}

impl<P: Fn(&str)> Report<P> {
    fn new(print: P) -> Self {
        Self {
            print,
            failed: false,
        }
    }

    /// Prints the result of a component whose check began at `started`.
    fn line(&mut self, component: &str, started: Instant, outcome: &Outcome) {
        self.timed_line(component, started.elapsed(), outcome);
    }

    /// Prints the result of a component whose check took the time `took`.
    fn timed_line(&mut self, component: &str, took: Duration, outcome: &Outcome) {
        let (verdict, seen): (_, &dyn Display) = match outcome {
            Outcome::Pass(seen) => ("PASS", seen),
            Outcome::Fail(why) => ("FAIL", why),
            Outcome::Skip(why) => ("SKIP", why),
        };
        self.failed |= matches!(outcome, Outcome::Fail(_));
        let took = took.as_millis();
        (self.print)(&format!("{verdict} {component}: {seen} ({took} ms)"));
    }

    fn passed(&self) -> bool {
        !self.failed
    }
}
