//! Reading that may block, on a thread of its own.

use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

/// How long a reading may take before its source counts as failing.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long one that took longer is waited for in later rounds.
const ONCE_LATE: Duration = Duration::from_millis(100);

/// What is kept between readings, and read with on a blocking thread, one reading at a time: one
/// that hangs (a dead file system, say) makes its source fail, and blocks nothing else.
pub(super) struct Blocking<S, R> {
    what: &'static str,
    deadline: Duration,
    state: State<S, R>,
}

enum State<S, R> {
    Idle(S),
    /// Since when.
    Busy(JoinHandle<(S, R)>, Instant),
    /// The thread was cancelled, as the runtime ends.
    Lost,
}

impl<S: Send + 'static, R: Send + 'static> Blocking<S, R> {
    /// `what` is read with `state`.
    pub(super) fn new(what: &'static str, state: S) -> Self {
        Self {
            what,
            deadline: DEADLINE,
            state: State::Idle(state),
        }
    }

    /// With another deadline than that of sources as a whole.
    pub(super) fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Reads, within the deadline.
    ///
    /// # Errors
    /// That it takes, or took, too long. One that still hangs is looked at again, rather than joined by
    /// a second one.
    pub(super) async fn read(
        &mut self,
        read: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (mut reading, late) = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(mut state) => {
                let reading = spawn_blocking(move || {
                    let outcome = read(&mut state);
                    (state, outcome)
                });
                (reading, false)
            }
            State::Busy(reading, _) => (reading, true),
            State::Lost => return Err(stopping()),
        };
        let deadline = if late { ONCE_LATE } else { self.deadline };
        match tokio::time::timeout(deadline, &mut reading).await {
            Ok(Ok((state, outcome))) => {
                self.state = State::Idle(state);
                if late {
                    return Err(format!("reading {} took too long to be of use", self.what));
                }
                Ok(outcome)
            }
            Ok(Err(cancelled)) => Err(cancelled.to_string()),
            Err(_) => {
                // Later calls wait for a moment only, whenever it began.
                self.state = State::Busy(reading, Instant::now());
                Err(self.hangs())
            }
        }
    }

    /// As [`Blocking::read`], but waits for `patience` only. A reading that takes longer is not lost: the next
    /// call yields its outcome instead of reading anew. None while it goes on.
    ///
    /// # Errors
    /// It takes longer than the deadline.
    pub(super) async fn read_within(
        &mut self,
        patience: Duration,
        read: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<Option<R>, String> {
        let (mut reading, since) = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(mut state) => {
                let reading = spawn_blocking(move || {
                    let outcome = read(&mut state);
                    (state, outcome)
                });
                (reading, Instant::now())
            }
            State::Busy(reading, since) => (reading, since),
            State::Lost => return Err(stopping()),
        };
        let patience = if since.elapsed() > self.deadline {
            ONCE_LATE
        } else {
            patience
        };
        match tokio::time::timeout(patience, &mut reading).await {
            Ok(Ok((state, outcome))) => {
                self.state = State::Idle(state);
                Ok(Some(outcome))
            }
            Ok(Err(cancelled)) => Err(cancelled.to_string()),
            Err(_) => {
                self.state = State::Busy(reading, since);
                if since.elapsed() > self.deadline {
                    return Err(self.hangs());
                }
                Ok(None)
            }
        }
    }

    fn hangs(&self) -> String {
        format!(
            "reading {} takes more than {} s: a file system may hang",
            self.what,
            self.deadline.as_secs()
        )
    }
}

fn stopping() -> String {
    "the agent is stopping".to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::Blocking;

    #[actix::test]
    async fn one_that_hangs_is_looked_at_again_and_its_late_outcome_dropped() {
        let (release, hang) = mpsc::channel::<()>();
        let mut log = Blocking::new("a file", Vec::new());
        let hung = log
            .read(move |log| {
                let _ = hang.recv();
                log.push(1);
                log.len()
            })
            .await;
        assert_eq!(
            hung.unwrap_err(),
            "reading a file takes more than 5 s: a file system may hang"
        );
        release.send(()).unwrap();
        let never = |log: &mut Vec<i32>| {
            log.push(9);
            log.len()
        };
        let late = log.read(never).await;
        assert_eq!(
            late.unwrap_err(),
            "reading a file took too long to be of use"
        );
        let read = |log: &mut Vec<i32>| {
            log.push(2);
            log.len()
        };
        assert_eq!(log.read(read).await, Ok(2));
    }

    #[actix::test]
    async fn one_that_is_slow_is_waited_for_in_turns_and_its_outcome_used() {
        let (release, slow) = mpsc::channel::<()>();
        let deadline = Duration::from_millis(300);
        let mut log = Blocking::new("a file", Vec::new()).within(deadline);
        let patience = Duration::from_millis(10);
        let began = Instant::now();
        let slowly = move |log: &mut Vec<i32>| {
            let _ = slow.recv();
            log.push(1);
            log.len()
        };
        assert_eq!(log.read_within(patience, slowly).await, Ok(None));
        assert!(began.elapsed() < deadline, "it does not wait for it");
        let never = |log: &mut Vec<i32>| {
            log.push(9);
            log.len()
        };
        let hangs = loop {
            match log.read_within(patience, never).await {
                Ok(none) => assert_eq!(none, None),
                Err(error) => break error,
            }
        };
        assert!(hangs.contains("a file system may hang"), "{hangs}");
        assert!(began.elapsed() >= deadline);
        release.send(()).unwrap();
        let outcome = loop {
            if let Ok(Some(outcome)) = log.read_within(patience, never).await {
                break outcome;
            }
        };
        assert_eq!(outcome, 1);
        let read = |log: &mut Vec<i32>| {
            log.push(2);
            log.len()
        };
        assert_eq!(log.read_within(deadline, read).await, Ok(Some(2)));
    }
}
