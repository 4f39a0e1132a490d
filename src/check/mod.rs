//! `system-agent check`: every component tried for real, one line each.

mod components;
mod socket;

pub use components::components;
pub use socket::{Target, socket};

use std::fmt::Display;
use std::time::{Duration, Instant};

/// What came of trying a component.
enum Outcome {
    /// It works; what was seen.
    Pass(String),
    /// It does not; why.
    Fail(String),
    /// It was not tried; why not.
    Skip(String),
}

/// Prints a line per component and remembers whether one failed.
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

    /// Reports what came of a trial that began at `started`.
    fn line(&mut self, component: &str, started: Instant, outcome: &Outcome) {
        self.timed_line(component, started.elapsed(), outcome);
    }

    /// Reports what came of a trial that took as long as `took`.
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
