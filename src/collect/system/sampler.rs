//! One reading of the host: every metric family, the host's description and the agent's own usage.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::agent::OwnUsage;
use super::containers::ContainerNames;
use super::families;
use super::family::{AnyFamily, Failures, Round, timed};
use super::host::Host;
use crate::collect::causes::with_causes;
use crate::messages::{AgentUsage, SystemSample};
use crate::model::SystemMetrics;
use crate::settings::HostRoot;

/// Time between the baseline and the first sample: the kernel counts CPU time in ticks of 10 ms, so the first figures
/// are good to 4 %.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// Reads the host; keeps what the next reading compares with.
pub(super) struct Sampler {
    families: Vec<Box<dyn AnyFamily>>,
    host: Host,
    own: OwnUsage,
    /// How long the last figures of a family that fails are published.
    stand_for: Duration,
}

impl Sampler {
    /// Reads the baseline of the first sample and lets some time pass, so that even the first sample has rates. Blocks.
    ///
    /// The last figures of a family that fails are published for `stand_for`.
    pub(super) fn new(top_processes: usize, root: HostRoot, stand_for: Duration) -> Self {
        let mut sampler = Self {
            families: families(top_processes, &root),
            host: Host::new(root),
            own: OwnUsage::default(),
            stand_for,
        };
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let round = Round::new(&names, &last, stand_for);
        for family in &mut sampler.families {
            family.read_baseline(&round);
        }
        // A failure is named in the first sample.
        let _ = sampler.own.read();
        thread::sleep(FIRST_INTERVAL);
        sampler
    }

    /// Reads every family once, and says which could not be read. `last` are the metrics that were published last. Blocks.
    pub(super) fn sample(
        &mut self,
        names: &ContainerNames,
        last: &SystemMetrics,
    ) -> (SystemSample, Failures) {
        let mut round = Round::new(names, last, self.stand_for);
        for family in &mut self.families {
            family.collect(&mut round);
        }
        if round.cpus.is_some() && round.boot_time.is_none() {
            let missing = "/proc/stat does not tell it";
            round.failures.note("boot_time", missing);
        }
        let own = timed("agent", || self.own.read()).unwrap_or_else(|error| {
            round.failures.note("agent", &with_causes(&error));
            AgentUsage::default()
        });
        let sample = SystemSample {
            host: self.host.refresh(round.cpus, round.boot_time),
            agent: AgentUsage {
                engine_cpu_percent: round.engine_cpu_percent,
                ..own
            },
            metrics: Arc::new(round.metrics),
        };
        (sample, round.failures)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ContainerNames, HostRoot, Sampler, SystemMetrics};

    #[test]
    fn the_first_reading_is_already_true() {
        let mut sampler = Sampler::new(5, HostRoot::default(), Duration::from_secs(30));
        let (sample, failures) =
            sampler.sample(&ContainerNames::default(), &SystemMetrics::default());
        assert_eq!(failures.error(), None);
        assert!(sample.metrics.memory_total > 0.0);
        assert!(sample.metrics.memory_used < sample.metrics.memory_total);
        assert!(sample.metrics.disk_used < sample.metrics.disk_total);
        assert!(sample.metrics.uptime > 0);
        assert!(
            sample
                .metrics
                .network
                .iter()
                .any(|interface| interface.name == "lo")
        );
        assert_eq!(sample.metrics.top_processes.len(), 5);
        assert!(sample.agent.memory_rss > 0);
        assert!(sample.host.cpus > 0);
        assert!(sample.host.boot_time > 0);
    }
}
