//! Runs one agent with its client while other ways to measure containers are measured. The agent adds almost nothing to the
//! engine's CPU time, so it does not disturb the other measurements.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::common::bars::Bars;
use crate::load::{median, rss_mib};
use crate::plan::Plan;

/// Memory is read once a minute. In a short soak, memory is read more often, so that there are about thirty readings.
const MAX_PAUSE: Duration = Duration::from_secs(60);
const MIN_READINGS: u32 = 30;
/// Limit of the growth of memory, in MiB. The limit is not zero, because the agent allocates and frees single pages all the time.
const NO_GROWTH: f64 = 0.1;

pub(crate) struct Soak {
    began: Instant,
    lasts: Duration,
    readings: JoinHandle<Vec<f64>>,
    end: Sender<()>,
}

impl Soak {
    pub(crate) fn start(plan: &Plan, count: usize) -> Self {
        let agent = Agent::start(plan, count, &[]);
        let pause = MAX_PAUSE.min(plan.soak / MIN_READINGS);
        let (end, ended) = channel();
        let readings = thread::spawn(move || {
            let mut readings = vec![rss_mib(&[agent.pid()])];
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                agent.forget();
                readings.push(rss_mib(&[agent.pid()]));
            }
            readings
        });
        Self {
            began: Instant::now(),
            lasts: plan.soak,
            readings,
            end,
        }
    }

    /// Waits until the agent has run long enough, stops it, and prints its memory.
    pub(crate) fn print(self, bars: &mut Bars) {
        eprintln!("waiting for the end of the soak");
        thread::sleep(self.lasts.saturating_sub(self.began.elapsed()));
        let ran = self.began.elapsed();
        self.end
            .send(())
            .expect("the thread that reads the memory has ended");
        let readings = self
            .readings
            .join()
            .expect("the thread that reads the memory has panicked");
        let third = readings.len() / 3;
        let (second, last) = (
            median(&readings[third..2 * third]),
            median(&readings[2 * third..]),
        );
        let least = readings.iter().copied().fold(f64::INFINITY, f64::min);
        let most = readings.iter().copied().fold(0.0, f64::max);
        println!(
            "\nRSS of one agent over {:.0} min, {} readings, MiB: first {:.2}, min {least:.2}, max {most:.2}, \
             last {:.2}; median of the second third {second:.2}, of the last third {last:.2}",
            ran.as_secs_f64() / 60.0,
            readings.len(),
            readings[0],
            readings[readings.len() - 1]
        );
        let minutes = ran.as_secs() / 60;
        bars.at_most(&format!("RSS after {minutes} min"), most, 12.0, "MiB");
        bars.at_most(
            &format!("growth of RSS within {minutes} min"),
            last - second,
            NO_GROWTH,
            "MiB",
        );
    }
}
