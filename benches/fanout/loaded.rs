//! A server with its crowd, measured over whole intervals.

use std::thread;
use std::time::{Duration, SystemTime};

use crate::crowd::{Crowd, Report, Spec};
use crate::server::Server;

/// The share of an interval before a tick in which nothing is under way any more.
const QUIET: u32 = 10;

/// A server all of whose clients have had a snapshot. They leave before it ends.
pub(crate) struct Loaded {
    pub(crate) crowd: Crowd,
    pub(crate) server: Server,
    interval: Duration,
    /// When one of its ticks was.
    tick: SystemTime,
    empty_kib: f64,
}

/// What was measured of it over some intervals.
pub(crate) struct Window {
    pub(crate) report: Report,
    /// CPU seconds.
    pub(crate) cpu: f64,
    /// How many snapshots should have been delivered.
    pub(crate) expected: usize,
}

impl Loaded {
    /// Gathers a crowd, the server's `clients`, for a server that has had none.
    pub(crate) fn gather(
        server: Server,
        clients: Spec,
        interval: Duration,
    ) -> Result<Self, String> {
        let empty_kib = server.rss_kib_of_empty()?;
        let crowd = Crowd::gather(clients)?;
        Ok(Self {
            tick: crowd.tick,
            crowd,
            server,
            interval,
            empty_kib,
        })
    }

    /// For a server that does not say when it ticks.
    pub(crate) fn ticking_at(self, tick: SystemTime) -> Self {
        Self { tick, ..self }
    }

    /// When it will be half an interval after a tick of it, not before long.
    pub(crate) fn between_ticks(&self) -> SystemTime {
        SystemTime::now() + self.until_tick() + self.interval / 2
    }

    fn until_tick(&self) -> Duration {
        // The tick that is known may be yet to come.
        let since = match SystemTime::now().duration_since(self.tick) {
            Ok(since) => since.as_secs_f64(),
            Err(ahead) => -ahead.duration().as_secs_f64(),
        };
        let interval = self.interval.as_secs_f64();
        Duration::from_secs_f64(interval - since.rem_euclid(interval))
    }

    /// Waits until shortly before a tick: all that was sent before has long arrived.
    pub(crate) fn wait(&self) {
        let quiet = self.interval / QUIET;
        let left = self.until_tick();
        thread::sleep(
            left.checked_sub(quiet)
                .unwrap_or(left + self.interval - quiet),
        );
    }

    /// Memory over that of the server without clients, for each of them, in KiB.
    pub(crate) fn kib_per_client(&self) -> f64 {
        (self.server.rss_kib() - self.empty_kib) / self.crowd.spec.clients as f64
    }

    /// Starts a window; yields what CPU the server had used until then.
    pub(crate) fn begin(&mut self) -> f64 {
        self.wait();
        self.crowd.forget();
        self.server.cpu()
    }

    /// Ends a window of so many intervals.
    pub(crate) fn end(&mut self, cpu_before: f64, intervals: u32) -> Window {
        self.wait();
        let cpu = self.server.cpu() - cpu_before;
        Window {
            report: self.crowd.report(),
            cpu,
            expected: self.crowd.readers() * intervals as usize,
        }
    }

    /// A window of so many intervals.
    pub(crate) fn window(&mut self, intervals: u32) -> Window {
        let before = self.begin();
        thread::sleep(self.interval * (intervals - 1) + self.interval / 2);
        self.end(before, intervals)
    }
}

impl Window {
    /// How many deliveries did not come on time, or not at all.
    pub(crate) fn late(&self) -> usize {
        self.expected.saturating_sub(self.report.on_time())
    }
}
