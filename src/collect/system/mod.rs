//! The host: [`SystemCollector`] and, one file per family, what it reads.

mod cpu;
mod disk;
mod network;
mod process;
mod sampler;

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use super::{Collector, Round, Source};
use crate::messages::SystemSample;
use sampler::Sampler;

/// How long one reading of the host may take before the source counts as failing.
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads the host, round after round.
pub type SystemCollector = Collector<HostSource>;

/// The host as a source. Its files are read on a blocking thread, one reading at a time: one
/// that hangs (a dead file system, say) makes the source fail, and blocks nothing else.
pub struct HostSource {
    top_processes: usize,
    reading: Reading,
}

/// What the blocking thread gives back: the sampler for the next reading, and the sample.
type Sampled = (Option<Box<Sampler>>, Result<SystemSample, sampler::Error>);

enum Reading {
    Idle(Option<Box<Sampler>>),
    Busy(JoinHandle<Sampled>),
}

impl HostSource {
    /// A source that lists the `top_processes` busiest processes.
    #[must_use]
    pub fn new(top_processes: usize) -> Self {
        Self {
            top_processes,
            reading: Reading::Idle(None),
        }
    }
}

fn read(sampler: Option<Box<Sampler>>, top_processes: usize) -> Sampled {
    let sampler = match sampler {
        Some(sampler) => Ok(sampler),
        None => Sampler::new(top_processes).map(Box::new),
    };
    match sampler {
        Ok(mut sampler) => {
            let sample = sampler.sample();
            (Some(sampler), sample)
        }
        Err(error) => (None, Err(error)),
    }
}

impl Source for HostSource {
    const NAME: &'static str = "system";

    type Sample = SystemSample;

    async fn collect(&mut self) -> Round<SystemSample> {
        // A reading that still hangs is waited for again, rather than joined by a second one.
        let (mut reading, late) = match std::mem::replace(&mut self.reading, Reading::Idle(None)) {
            Reading::Busy(reading) => (reading, true),
            Reading::Idle(sampler) => {
                let top_processes = self.top_processes;
                let reading = spawn_blocking(move || read(sampler, top_processes));
                (reading, false)
            }
        };
        match tokio::time::timeout(DEADLINE, &mut reading).await {
            Ok(Ok((sampler, sample))) => {
                self.reading = Reading::Idle(sampler);
                match sample {
                    Ok(_) if late => Round::failed("reading the host took too long to be of use"),
                    Ok(sample) => Round::whole(sample),
                    Err(error) => Round::failed(super::with_causes(&error)),
                }
            }
            Ok(Err(cancelled)) => Round::failed(cancelled.to_string()),
            Err(_) => {
                self.reading = Reading::Busy(reading);
                Round::failed(format!(
                    "reading the host takes more than {} s: a file system may hang",
                    DEADLINE.as_secs()
                ))
            }
        }
    }
}
