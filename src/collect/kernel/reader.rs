//! Reads the families and the figures of containers. Each of three parts has a thread of its own, so that a slow part delays no other part.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::containers;
use super::family::{self, Family, Roots};
use crate::collect::blocking::Blocking;
use crate::messages::{ReadKernel, WantedFamilies};
use crate::model::{ControlGroup, Kernel, KernelFamily, KernelStatus, RequestedContainer};
use crate::settings::Collectors;

/// Requests within this time get the same reading.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);
/// Timeout of a reading. Prometheus waits 10 s for a scrape by default.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// A reading that took longer than [`DEADLINE`] is used for a later request if it began at most this long ago.
const MAX_LATE: Duration = Duration::from_secs(60);

/// The families, the figures of containers, and the newest reading of all families.
pub(super) struct Reader {
    /// Families whose figures the kernel has in its memory.
    memory: Part<Vec<KernelFamily>>,
    /// Families whose figures come from the drivers of devices. A driver can wait for its device.
    hardware: Part<Vec<KernelFamily>>,
    /// The figures of containers, by the paths of their control groups.
    containers: Part<HashMap<String, RequestedContainer>>,
    /// The families that a setting names.
    collectors: Collectors,
    newest: Option<Newest>,
}

/// The newest reading of all families.
struct Newest {
    at: Instant,
    /// Whether the figures of containers were read.
    has_containers: bool,
    kernel: Arc<Kernel>,
}

/// A part of the reading, on a thread of its own.
struct Part<R> {
    /// The names of the families, and whether each is off by default.
    families: Vec<(&'static str, bool)>,
    blocking: Blocking<Vec<Box<dyn Family>>, Reading<R>>,
}

/// The families to read: those of the request, and those of `METRICS_COLLECTORS`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Names {
    wanted: WantedFamilies,
    collectors: Collectors,
}

impl Names {
    /// Whether the request or the setting names the family.
    fn is_named(&self, name: &str) -> bool {
        self.wanted.names(name) || self.collectors.has(name)
    }

    /// Whether the family is read.
    fn has(&self, name: &str, is_off_by_default: bool) -> bool {
        self.wanted.allows(name) && (self.is_named(name) || !is_off_by_default)
    }

    /// Whether a reading of the default families has less than the request wants.
    fn is_more_than_default(&self) -> bool {
        let mut expensive = Collectors::ACCEPTED.into_iter();
        expensive.any(|name| self.wanted.names(name) && !self.collectors.has(name))
    }
}

/// What a part has read.
struct Reading<R> {
    began: Instant,
    /// The families that were read.
    names: Names,
    figures: R,
}

impl<R: Send + 'static> Part<R> {
    fn new(what: &'static str, families: Vec<Box<dyn Family>>) -> Self {
        Self {
            families: families
                .iter()
                .map(|family| (family.name(), family.is_off_by_default()))
                .collect(),
            blocking: Blocking::new(what, families).within(DEADLINE),
        }
    }

    /// Reads the figures. If an earlier reading has ended after its deadline, returns that reading, unless it is too old.
    ///
    /// # Errors
    /// Fails if the reading takes longer than [`DEADLINE`].
    async fn read(
        &mut self,
        names: &Names,
        read: impl FnOnce(&mut Vec<Box<dyn Family>>) -> R + Clone + Send + 'static,
    ) -> Result<R, String> {
        loop {
            let (names_read, read) = (names.clone(), read.clone());
            let reading = self
                .blocking
                .read_within(DEADLINE, move |families| Reading {
                    began: Instant::now(),
                    names: names_read,
                    figures: read(families),
                });
            // None is not expected, because the call waits until the deadline.
            let Some(reading) = reading.await? else {
                continue;
            };
            if reading.began.elapsed() < MAX_LATE && reading.names == *names {
                return Ok(reading.figures);
            }
        }
    }
}

impl Part<Vec<KernelFamily>> {
    /// Reads the families with these names. If they cannot be read in time, each has the error.
    async fn families(&mut self, names: &Names) -> Vec<KernelFamily> {
        let families = self.families.iter();
        let wanted = families.filter(|(name, is_off)| names.has(name, *is_off));
        let failing: Vec<&'static str> = wanted.map(|(name, _)| *name).collect();
        if failing.is_empty() {
            return Vec::new();
        }
        let wanted = names.clone();
        let read = move |families: &mut Vec<Box<dyn Family>>| {
            let families = families.iter_mut();
            let families = families.filter(|one| wanted.has(one.name(), one.is_off_by_default()));
            families
                .map(|one| {
                    let is_named = wanted.is_named(one.name());
                    family::read(&mut **one, is_named)
                })
                .collect()
        };
        match self.read(names, read).await {
            Ok(families) => families,
            Err(error) => {
                let failed = failing.into_iter().map(|name| KernelFamily {
                    name,
                    status: KernelStatus::Failed(error.clone()),
                    duration: DEADLINE,
                    rows: Vec::new(),
                });
                failed.collect()
            }
        }
    }
}

impl Part<HashMap<String, RequestedContainer>> {
    /// Reads the figures of these containers. Returns none of them if they cannot be read in time.
    async fn containers(
        &mut self,
        groups: Vec<Arc<ControlGroup>>,
    ) -> HashMap<String, RequestedContainer> {
        if groups.is_empty() {
            return HashMap::new();
        }
        let read = move |_: &mut _| containers::read(&Roots::default(), &groups);
        self.read(&Names::default(), read)
            .await
            .unwrap_or_else(|error| {
                debug!(%error, "figures of containers cannot be read");
                HashMap::new()
            })
    }
}

impl Reader {
    /// Creates the reader. A setting names the families `collectors`.
    pub(super) fn new(
        memory: Vec<Box<dyn Family>>,
        hardware: Vec<Box<dyn Family>>,
        collectors: Collectors,
    ) -> Self {
        Self {
            memory: Part::new("the kernel's own figures", memory),
            hardware: Part::new("the figures of the hardware", hardware),
            containers: Part::new("the figures of containers", Vec::new()),
            collectors,
            newest: None,
        }
    }

    /// Reads the figures, or returns the newest reading of all families if it is young enough and has the wanted figures.
    pub(super) async fn read(&mut self, wanted: ReadKernel) -> Arc<Kernel> {
        let has_containers = !wanted.containers.is_empty();
        let names = &Names {
            wanted: wanted.families,
            collectors: self.collectors.clone(),
        };
        if let Some(newest) = &self.newest
            && newest.at.elapsed() < MAX_AGE
            && newest.has_containers >= has_containers
            && !names.is_more_than_default()
        {
            return Arc::clone(&newest.kernel);
        }
        let (mut families, hardware, containers) = tokio::join!(
            self.memory.families(names),
            self.hardware.families(names),
            self.containers.containers(wanted.containers),
        );
        families.extend(hardware);
        for family in &families {
            if let KernelStatus::Failed(error) = &family.status {
                debug!(family = family.name, %error, "figures of the kernel cannot be read");
            }
        }
        let kernel = Arc::new(Kernel {
            families,
            containers,
        });
        if names.wanted == WantedFamilies::Default {
            self.newest = Some(Newest {
                at: Instant::now(),
                has_containers,
                kernel: Arc::clone(&kernel),
            });
        }
        kernel
    }

    /// Reads the figures even if the newest reading is young.
    pub(super) async fn read_again(&mut self) -> Arc<Kernel> {
        self.newest = None;
        self.read(ReadKernel::default()).await
    }

    /// Forgets the newest reading if it is too old for another request.
    pub(super) fn forget_old(&mut self) {
        self.newest.take_if(|newest| newest.at.elapsed() >= MAX_AGE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::super::family::{Family, FamilyError, Rows};
    use super::{Collectors, DEADLINE, Kernel, KernelStatus, MAX_AGE, ReadKernel, Reader};

    struct Quick;

    impl Family for Quick {
        fn name(&self) -> &'static str {
            "quick"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            rows.add([]).figure("value", 1.0);
            Ok(())
        }
    }

    /// A device that answers only when the test lets it.
    struct Slow(mpsc::Receiver<f64>);

    impl Family for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            let value = self.0.recv().map_err(|_| FamilyError::Absent)?;
            rows.add([]).figure("value", value);
            Ok(())
        }
    }

    fn value(kernel: &Kernel, name: &str) -> Result<f64, KernelStatus> {
        let family = kernel.families.iter().find(|one| one.name == name).unwrap();
        match &family.status {
            KernelStatus::Read => Ok(family.rows[0].figures[0].1),
            status => Err(status.clone()),
        }
    }

    #[actix::test]
    async fn slow_hardware_costs_only_its_own_figures_and_its_late_figures_are_used() {
        let (answer, device) = mpsc::channel();
        let mut reader = Reader::new(
            vec![Box::new(Quick)],
            vec![Box::new(Slow(device))],
            Collectors::default(),
        );
        let began = Instant::now();
        let first = reader.read_again().await;
        assert!(began.elapsed() < DEADLINE * 2);
        assert_eq!(value(&first, "quick"), Ok(1.0));
        let Err(KernelStatus::Failed(error)) = value(&first, "slow") else {
            panic!("{first:?}");
        };
        assert!(error.contains("takes more than 3 s"), "{error}");
        // The device still hangs, so the next reading does not wait for it.
        let began = Instant::now();
        let second = reader.read_again().await;
        assert!(began.elapsed() < DEADLINE / 2);
        assert_eq!(value(&second, "quick"), Ok(1.0));
        answer.send(7.0).unwrap();
        let late = loop {
            let read = reader.read_again().await;
            if let Ok(value) = value(&read, "slow") {
                break value;
            }
        };
        assert_eq!(late, 7.0);
        answer.send(8.0).unwrap();
        let last = reader.read_again().await;
        assert_eq!(value(&last, "slow"), Ok(8.0));
    }

    #[actix::test]
    async fn an_old_reading_is_forgotten() {
        let mut reader = Reader::new(vec![Box::new(Quick)], Vec::new(), Collectors::default());
        reader.read(ReadKernel::default()).await;
        reader.forget_old();
        assert!(reader.newest.is_some());
        tokio::time::sleep(MAX_AGE).await;
        reader.forget_old();
        assert!(reader.newest.is_none());
    }
}
