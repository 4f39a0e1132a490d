//! Passes the newest snapshot to the tasks, and tells them when the agent stops. Only one snapshot waits, the newest.

use std::sync::Arc;

use tokio::sync::watch;

use crate::published::Published;

/// The sending side, which the actor has.
pub(super) struct Source {
    newest: watch::Sender<Option<Arc<Published>>>,
    ending: watch::Sender<bool>,
}

/// The receiving side of a task.
pub(super) struct Feed {
    newest: watch::Receiver<Option<Arc<Published>>>,
    pub(super) ending: Ending,
}

/// Tells when the agent stops.
#[derive(Clone)]
pub(super) struct Ending(watch::Receiver<bool>);

impl Source {
    pub(super) fn new() -> Self {
        Self {
            newest: watch::Sender::new(None),
            ending: watch::Sender::new(false),
        }
    }

    pub(super) fn publish(&self, published: Arc<Published>) {
        self.newest.send_replace(Some(published));
    }

    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    pub(super) fn feed(&self) -> Feed {
        Feed {
            newest: self.newest.subscribe(),
            ending: Ending(self.ending.subscribe()),
        }
    }
}

impl Feed {
    /// Waits for a snapshot that this task has not received yet, and returns it. Returns None if the agent stops.
    pub(super) async fn next(&mut self) -> Option<Arc<Published>> {
        loop {
            let changed = tokio::select! {
                biased;
                changed = self.newest.changed() => changed.is_ok(),
                () = self.ending.due() => false,
            };
            let newest = self.newest.borrow_and_update().clone();
            match (changed, newest) {
                (true, Some(newest)) => return Some(newest),
                (true, None) => {}
                (false, _) => return None,
            }
        }
    }

    /// Returns the newest snapshot. `next` does not return it again.
    pub(super) fn newest(&mut self) -> Option<Arc<Published>> {
        self.newest.borrow_and_update().clone()
    }
}

impl Ending {
    /// Waits until the agent stops.
    pub(super) async fn due(&mut self) {
        // An error means that the actor has ended.
        let _ = self.0.wait_for(|ending| *ending).await;
    }
}
