//! The kernel's own figures: more than a snapshot has, under the names of node_exporter's collectors. They cost nothing while nobody asks
//! for them: [`KernelCollector`] reads them only for a request.
//!
//! Each family has its own file.

mod family;
mod meminfo;
mod thermal;
mod vmstat;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::sync::Mutex;
use tracing::debug;

use super::blocking::Blocking;
use crate::messages::ReadKernel;
use crate::model::{Kernel, KernelStatus};
use family::{Family, Roots};

/// Requests within this time get the same reading.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Timeout of a reading. Prometheus waits 10 s for a scrape by default.
const DEADLINE: Duration = Duration::from_secs(3);

/// Returns all families, in the order in which they are read.
fn families(roots: &Roots) -> Vec<Box<dyn Family>> {
    vec![
        Box::new(meminfo::Meminfo(roots.clone())),
        Box::new(vmstat::Vmstat(roots.clone())),
        Box::new(thermal::Thermal(roots.clone())),
    ]
}

/// The actor that reads the kernel's own figures on request.
pub struct KernelCollector {
    /// A request waits while another request reads.
    reader: Arc<Mutex<Reader>>,
}

/// The families, and the newest reading of all of them.
struct Reader {
    families: Blocking<Vec<Box<dyn Family>>, Kernel>,
    newest: Option<(Instant, Arc<Kernel>)>,
}

impl KernelCollector {
    /// Creates the collector. It reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let families = families(&Roots::default());
        Self {
            reader: Arc::new(Mutex::new(Reader {
                families: Blocking::new("the kernel's own figures", families).within(DEADLINE),
                newest: None,
            })),
        }
    }
}

impl Default for KernelCollector {
    fn default() -> Self {
        Self::new()
    }
}

impl Actor for KernelCollector {
    type Context = Context<Self>;
}

impl Handler<ReadKernel> for KernelCollector {
    type Result = ResponseFuture<Result<Arc<Kernel>, String>>;

    fn handle(&mut self, request: ReadKernel, _: &mut Self::Context) -> Self::Result {
        let reader = Arc::clone(&self.reader);
        Box::pin(async move { reader.lock().await.read(request.families).await })
    }
}

impl Reader {
    /// Reads the families with these names, or all. Returns the newest reading of all families if it is young enough.
    ///
    /// # Errors
    /// Fails if a reading hangs.
    async fn read(&mut self, names: Option<Arc<[String]>>) -> Result<Arc<Kernel>, String> {
        if let Some((at, kernel)) = &self.newest
            && at.elapsed() < MAX_AGE
            && names.is_none()
        {
            return Ok(Arc::clone(kernel));
        }
        let wanted = names.clone();
        let read = move |families: &mut Vec<Box<dyn Family>>| {
            let is_wanted = |name: &str| {
                let names = wanted.as_ref();
                names.is_none_or(|names| names.iter().any(|one| one == name))
            };
            let families = families.iter_mut().filter(|one| is_wanted(one.name()));
            Kernel {
                families: families.map(|one| family::read(&mut **one)).collect(),
            }
        };
        let kernel = Arc::new(self.families.read(read).await?);
        for family in &kernel.families {
            if let KernelStatus::Failed(error) = &family.status {
                debug!(family = family.name, %error, "figures of the kernel cannot be read");
            }
        }
        if names.is_none() {
            self.newest = Some((Instant::now(), Arc::clone(&kernel)));
        }
        Ok(kernel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KernelCollector, KernelStatus};

    #[actix::test]
    async fn all_families_of_this_host_can_be_read() {
        let collector = KernelCollector::new();
        let mut reader = collector.reader.lock().await;
        let first = reader.read(None).await.unwrap();
        for family in &first.families {
            let is_failed = matches!(family.status, KernelStatus::Failed(_));
            assert!(!is_failed, "{family:?}");
        }
        let mut names: Vec<_> = first.families.iter().map(|one| one.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        let second = reader.read(None).await.unwrap();
        assert!(
            Arc::ptr_eq(&first, &second),
            "the second reading is too early"
        );
        let chosen = reader
            .read(Some(["vmstat".to_owned()].into()))
            .await
            .unwrap();
        assert_eq!(chosen.families.len(), 1);
        assert_eq!(chosen.families[0].name, "vmstat");
    }
}
