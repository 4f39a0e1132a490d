//! The host: [`SystemCollector`] and, one file per family, what it reads.

mod cpu;
mod disk;
mod network;
mod process;
mod sampler;

use super::blocking::Blocking;
use super::{Collector, Round, Source};
use crate::messages::SystemSample;
use sampler::Sampler;

/// Reads the host, round after round.
pub type SystemCollector = Collector<HostSource>;

/// The host as a source.
pub struct HostSource {
    top_processes: usize,
    sampler: Blocking<Option<Sampler>, Result<SystemSample, sampler::Error>>,
}

impl HostSource {
    /// A source that lists the `top_processes` busiest processes.
    #[must_use]
    pub fn new(top_processes: usize) -> Self {
        Self {
            top_processes,
            sampler: Blocking::new("the host", None),
        }
    }
}

impl Source for HostSource {
    const NAME: &'static str = "system";

    type Sample = SystemSample;

    async fn collect(&mut self) -> Round<SystemSample> {
        let top_processes = self.top_processes;
        let read = self.sampler.read(move |sampler| match sampler {
            Some(sampler) => sampler.sample(),
            None => sampler.insert(Sampler::new(top_processes)?).sample(),
        });
        match read.await {
            Ok(Ok(sample)) => Round::whole(sample),
            Ok(Err(error)) => Round::failed(super::with_causes(&error)),
            Err(late) => Round::failed(late),
        }
    }
}
