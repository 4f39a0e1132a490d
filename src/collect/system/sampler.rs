//! Reads the host once: every metric family, the host's description and the agent's own usage.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::agent::OwnUsage;
use super::containers::ContainerNames;
use super::family::{AnyFamily, Failures, MIN_CPU_INTERVAL, Round, timed};
use super::guest::Guest;
use super::host::Host;
use super::{HostOptions, families};
use crate::collect::causes::with_causes;
use crate::messages::{AgentUsage, SystemSample};
use crate::model::SystemMetrics;

/// Reads the host, and stores the data that the next reading needs.
pub(super) struct Sampler {
    families: Vec<Box<dyn AnyFamily>>,
    host: Host,
    /// The container that the agent measures. None if it measures a host.
    guest: Option<Guest>,
    own: OwnUsage,
    /// Maximum age of the figures that are published for a failed family.
    stand_for: Duration,
}

impl Sampler {
    /// Reads the baseline and waits for a short time, so that even the first sample has rates. Blocks the thread for at least
    /// [`MIN_CPU_INTERVAL`].
    ///
    /// `stand_for` is the maximum age of the figures that are published for a failed family.
    pub(super) fn new(options: HostOptions, stand_for: Duration) -> Self {
        let mut sampler = Self {
            families: families(&options),
            guest: Guest::find(&options.root),
            host: Host::new(options.root),
            own: OwnUsage::default(),
            stand_for,
        };
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let mut round = Round::new(&names, &last, stand_for);
        round.guest = sampler.guest.as_ref().and_then(Guest::read);
        for family in &mut sampler.families {
            family.read_baseline(&round);
        }
        // A failure is ignored here, because the first sample reports it.
        let _ = sampler.own.read();
        thread::sleep(MIN_CPU_INTERVAL);
        sampler
    }

    /// Reads every family once. Returns the sample and the families that failed. `last` has the metrics of the previous round.
    /// Blocks the thread while it reads files of the kernel.
    pub(super) fn sample(
        &mut self,
        names: &ContainerNames,
        last: &SystemMetrics,
    ) -> (SystemSample, Failures) {
        let mut round = Round::new(names, last, self.stand_for);
        round.guest = self.guest.as_ref().and_then(Guest::read);
        for family in &mut self.families {
            family.collect(&mut round);
        }
        if round.cpus.is_some() && round.boot_time.is_none() {
            let missing = "/proc/stat does not contain the boot time";
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
            excluded: round.excluded,
            volumes: round.volumes,
            metrics: Arc::new(round.metrics),
        };
        (sample, round.failures)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ContainerNames, HostOptions, Sampler, SystemMetrics};

    #[test]
    fn the_first_sample_has_all_figures() {
        let options = HostOptions {
            top_processes: 5,
            ..HostOptions::default()
        };
        let mut sampler = Sampler::new(options, Duration::from_secs(30));
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
