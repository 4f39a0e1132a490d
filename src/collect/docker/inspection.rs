//! The outcome of an inspection of a running container, and when to inspect the container again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Call, EngineError, Inspected};

/// Maximum number of inspections at the same time.
pub(super) const INSPECTIONS_AT_ONCE: usize = 16;
/// Pause before the retry of a failed inspection.
pub(super) const INSPECTION_RETRY: Duration = Duration::from_secs(15);

/// The outcome of an inspection of one container.
#[derive(Debug, Clone)]
pub(crate) enum Inspection {
    /// The engine's answer.
    Done(Arc<Inspected>),
    /// The container no longer exists. If the next container list still has the container, it is inspected again.
    Due,
    /// The call failed.
    Failed {
        error: EngineError,
        at: Instant,
        /// The engine's previous answer, if there is one.
        before: Option<Arc<Inspected>>,
    },
}

impl Inspection {
    /// Inspects a container. `before` is the engine's previous answer.
    pub(super) async fn of(call: &Call, id: &str, before: Option<Arc<Inspected>>) -> Self {
        match call.inspect(id).await {
            Ok(inspected) => Self::Done(Arc::new(inspected)),
            Err(EngineError::Gone) => Self::Due,
            Err(error) => Self::Failed {
                error,
                at: Instant::now(),
                before,
            },
        }
    }

    /// Returns the engine's newest answer. None if there was no answer yet, or if the container no longer exists.
    pub(crate) fn done(&self) -> Option<&Inspected> {
        self.answer().map(|inspected| &**inspected)
    }

    pub(super) fn answer(&self) -> Option<&Arc<Inspected>> {
        match self {
            Self::Done(inspected) => Some(inspected),
            Self::Failed { before, .. } => before.as_ref(),
            Self::Due => None,
        }
    }

    /// Whether the inspection stays valid when the container list is read again.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Due => false,
            Self::Failed { at, .. } => at.elapsed() < INSPECTION_RETRY,
        }
    }
}
