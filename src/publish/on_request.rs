//! The figures that are read only if an output asks for them: for a scrape, and for an export to OpenTelemetry.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::time::timeout;
use tracing::debug;

use crate::messages::{ReadKernel, ReadTextfiles, WantedFamilies};
use crate::model::{Kernel, Snapshot, Textfiles};
use crate::publish::figures::collectors::{Choice, TEXTFILE};
use crate::publish::figures::ended::EndedContainer;

/// Timeout of a reading. It is longer than the collectors' own timeouts.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// The addresses of the collectors that read only if they are asked.
#[derive(Clone)]
pub struct OnRequest {
    /// Reads the kernel's own figures.
    pub kernel: Recipient<ReadKernel>,
    /// Reads the figures of other programs.
    pub textfiles: Recipient<ReadTextfiles>,
}

/// The figures that were read for an output.
#[derive(Debug, Clone, Default)]
pub(in crate::publish) struct ReadFigures {
    /// None if the output does not want them, or if they cannot be read.
    pub(in crate::publish) kernel: Option<Arc<Kernel>>,
    /// None if the output does not want them, or if they cannot be read.
    pub(in crate::publish) textfiles: Option<Arc<Textfiles>>,
    /// Containers of earlier scrapes that have ended.
    pub(in crate::publish) ended: Arc<[EndedContainer]>,
}

impl ReadFigures {
    /// Whether both are from the same readings. The containers that have ended depend on the snapshot.
    pub(in crate::publish) fn is_same(&self, other: &Self) -> bool {
        self.kernel.as_ref().map(Arc::as_ptr) == other.kernel.as_ref().map(Arc::as_ptr)
            && self.textfiles.as_ref().map(Arc::as_ptr) == other.textfiles.as_ref().map(Arc::as_ptr)
    }
}

impl OnRequest {
    /// Reads the figures that the output wants, also those of the containers in `snapshot`.
    pub(in crate::publish) async fn read(
        &self,
        snapshot: &Snapshot,
        choice: &Choice,
    ) -> ReadFigures {
        let containers = snapshot.containers.iter();
        let containers = containers.filter(|_| choice.has("containers"));
        let reading = ReadKernel {
            families: choice.kernel_families(),
            containers: containers.map(|one| Arc::clone(&one.group)).collect(),
        };
        let has_no_families =
            matches!(&reading.families, WantedFamilies::Only(names) if names.is_empty());
        let is_empty = has_no_families && reading.containers.is_empty();
        let kernel = async {
            if is_empty {
                return None;
            }
            match timeout(READ_TIMEOUT, self.kernel.send(reading))
                .await
                .ok()?
                .ok()?
            {
                Ok(kernel) => Some(kernel),
                Err(error) => {
                    debug!(%error, "the kernel's own figures cannot be read");
                    None
                }
            }
        };
        let textfiles = async {
            if !choice.has(TEXTFILE) {
                return None;
            }
            let read = timeout(READ_TIMEOUT, self.textfiles.send(ReadTextfiles)).await;
            read.ok()?.ok()
        };
        let (kernel, textfiles) = tokio::join!(kernel, textfiles);
        ReadFigures {
            kernel,
            textfiles,
            ended: Arc::default(),
        }
    }
}
