//! Measures a server with its clients over whole intervals.

use std::thread;
use std::time::{Duration, SystemTime};

use crate::crowd::{Crowd, Report, Spec};
use crate::server::Server;

/// A window begins and ends one tenth of an interval before a tick. At that time no snapshot is on its way.
const QUIET: u32 = 10;

/// A server whose clients have all received a snapshot. On drop the clients end first, and then the server.
pub(crate) struct Loaded {
    pub(crate) crowd: Crowd,
    pub(crate) server: Server,
    interval: Duration,
    /// The time of one of the server's ticks.
    tick: SystemTime,
    empty_kib: f64,
}

/// The results of a window of some intervals.
pub(crate) struct Window {
    pub(crate) report: Report,
    /// CPU seconds.
    pub(crate) cpu: f64,
    /// The number of expected deliveries.
    pub(crate) expected: usize,
}

impl Loaded {
    /// Starts the clients of a server that has had no clients before.
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

    /// Sets the time of a tick, for a server whose snapshots do not show when they were composed.
    pub(crate) fn ticking_at(self, tick: SystemTime) -> Self {
        Self { tick, ..self }
    }

    /// A time in the near future that is half an interval after a tick.
    pub(crate) fn between_ticks(&self) -> SystemTime {
        SystemTime::now() + self.until_tick() + self.interval / 2
    }

    fn until_tick(&self) -> Duration {
        // The known tick can be in the future.
        let since = match SystemTime::now().duration_since(self.tick) {
            Ok(since) => since.as_secs_f64(),
            Err(ahead) => -ahead.duration().as_secs_f64(),
        };
        let interval = self.interval.as_secs_f64();
        Duration::from_secs_f64(interval - since.rem_euclid(interval))
    }

    /// Waits until shortly before a tick. All earlier snapshots have arrived by then.
    pub(crate) fn wait(&self) {
        let quiet = self.interval / QUIET;
        let left = self.until_tick();
        thread::sleep(
            left.checked_sub(quiet)
                .unwrap_or(left + self.interval - quiet),
        );
    }

    /// The growth of the server's memory per client, in KiB, compared with the server without clients.
    pub(crate) fn kib_per_client(&self) -> f64 {
        (self.server.rss_kib() - self.empty_kib) / self.crowd.spec.clients as f64
    }

    /// Begins a window. Returns the server's CPU time until then.
    pub(crate) fn begin(&mut self) -> f64 {
        self.wait();
        self.crowd.forget();
        self.server.cpu()
    }

    /// Ends a window of this number of intervals.
    pub(crate) fn end(&mut self, cpu_before: f64, intervals: u32) -> Window {
        self.wait();
        let cpu = self.server.cpu() - cpu_before;
        Window {
            report: self.crowd.report(),
            cpu,
            expected: self.crowd.readers() * intervals as usize,
        }
    }

    /// Measures a window of this number of intervals.
    pub(crate) fn window(&mut self, intervals: u32) -> Window {
        let before = self.begin();
        thread::sleep(self.interval * (intervals - 1) + self.interval / 2);
        self.end(before, intervals)
    }
}

impl Window {
    /// The number of deliveries that were late or did not come.
    pub(crate) fn late(&self) -> usize {
        self.expected.saturating_sub(self.report.on_time())
    }
}
