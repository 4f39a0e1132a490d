//! Runs readings that can block the thread. Each reading runs on a separate thread.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Time after which a reading counts as failed.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time that each later round waits for a reading that has missed its deadline.
const LATE_WAIT: Duration = Duration::from_millis(100);

/// Runs one reading at a time on a thread of its own, and stores the state between readings. A reading can hang, for example
/// because of a file system that does not answer. In that case, only its own source fails.
///
/// The thread is not from the pool of tokio. A thread of that pool wakes the runtime twice for each reading.
pub(super) struct Blocking<S, R> {
    what: &'static str,
    deadline: Duration,
    state: State<S, R>,
    /// None before the first reading.
    thread: Option<Thread<S, R>>,
}

/// The thread of the readings. It ends when this value is dropped and no reading runs.
struct Thread<S, R>(mpsc::Sender<Reading<S, R>>);

/// A reading that a thread has to make.
struct Reading<S, R> {
    state: S,
    read: Box<dyn FnOnce(&mut S) -> R + Send>,
    answer: oneshot::Sender<(S, R)>,
}

enum State<S, R> {
    Idle(S),
    /// A reading runs. The time is the start of the reading.
    Busy(oneshot::Receiver<(S, R)>, Instant),
    /// A reading has panicked, which has ended the thread.
    Lost,
}

impl<S: Send + 'static, R: Send + 'static> Blocking<S, R> {
    /// Creates the first state. Each reading gets `state`. `what` is the name of the thing that is read, for error messages.
    pub(super) fn new(what: &'static str, state: S) -> Self {
        Self {
            what,
            deadline: DEADLINE,
            state: State::Idle(state),
            thread: None,
        }
    }

    /// Sets another deadline. The default is 5 s.
    pub(super) fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Runs `read` and waits until the deadline.
    ///
    /// # Errors
    /// Fails if the reading takes longer than the deadline. While a reading hangs, a later call also fails, and does not start a
    /// second reading. When the reading has ended, the next call drops the result of that reading and fails.
    pub(super) async fn read(
        &mut self,
        read: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (mut reading, late) = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(state) => (self.start(state, read)?, false),
            State::Busy(reading, _) => (reading, true),
            State::Lost => return Err(self.panicked()),
        };
        let deadline = if late { LATE_WAIT } else { self.deadline };
        match tokio::time::timeout(deadline, &mut reading).await {
            Ok(Ok((state, outcome))) => {
                self.state = State::Idle(state);
                if late {
                    return Err(format!(
                        "reading {} took too long: result dropped",
                        self.what
                    ));
                }
                Ok(outcome)
            }
            Ok(Err(_)) => Err(self.panicked()),
            Err(_) => {
                // Later calls of `read` wait only briefly, so the start time does not matter here.
                self.state = State::Busy(reading, Instant::now());
                Err(self.hangs())
            }
        }
    }

    /// Works like [`Blocking::read`], but waits only for the time `wait`. Returns none while the reading still runs. After that,
    /// a later call returns the result of that reading and does not start a new reading.
    ///
    /// # Errors
    /// Fails if the reading takes longer than the deadline.
    pub(super) async fn read_within(
        &mut self,
        wait: Duration,
        read: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<Option<R>, String> {
        let (mut reading, since) = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(state) => (self.start(state, read)?, Instant::now()),
            State::Busy(reading, since) => (reading, since),
            State::Lost => return Err(self.panicked()),
        };
        let wait = if since.elapsed() > self.deadline {
            LATE_WAIT
        } else {
            wait
        };
        match tokio::time::timeout(wait, &mut reading).await {
            Ok(Ok((state, outcome))) => {
                self.state = State::Idle(state);
                Ok(Some(outcome))
            }
            Ok(Err(_)) => Err(self.panicked()),
            Err(_) => {
                self.state = State::Busy(reading, since);
                if since.elapsed() > self.deadline {
                    return Err(self.hangs());
                }
                Ok(None)
            }
        }
    }

    /// Starts a reading.
    ///
    /// # Errors
    /// Fails if the system refuses to start another thread. The state stays the same.
    fn start(
        &mut self,
        state: S,
        read: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<(S, R)>, String> {
        let thread = match self.thread.take().map_or_else(Thread::start, Ok) {
            Ok(thread) => self.thread.insert(thread),
            Err(error) => {
                self.state = State::Idle(state);
                return Err(format!(
                    "reading {}: cannot start a thread: {error}",
                    self.what
                ));
            }
        };
        let (answer, answered) = oneshot::channel();
        let reading = Reading {
            state,
            read: Box::new(read),
            answer,
        };
        // If the thread has ended, the caller finds that there is no answer.
        let _ = thread.0.send(reading);
        Ok(answered)
    }

    fn panicked(&self) -> String {
        format!("reading {} has failed, see the agent's own log", self.what)
    }

    fn hangs(&self) -> String {
        format!(
            "reading {} takes more than {} s: possibly a file system hangs",
            self.what,
            self.deadline.as_secs()
        )
    }
}

impl<S: Send + 'static, R: Send + 'static> Thread<S, R> {
    fn start() -> io::Result<Self> {
        let (readings, due) = mpsc::channel::<Reading<S, R>>();
        let make = move || {
            for Reading {
                mut state,
                read,
                answer,
            } in due
            {
                let outcome = read(&mut state);
                // Sending fails only if the caller has ended, because the agent is stopping.
                let _ = answer.send((state, outcome));
            }
        };
        thread::Builder::new()
            .name("readings".to_owned())
            .spawn(make)?;
        Ok(Self(readings))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::Blocking;

    #[actix::test]
    async fn the_late_result_of_a_reading_that_hung_is_dropped() {
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
            "reading a file takes more than 5 s: possibly a file system hangs"
        );
        release.send(()).unwrap();
        let never = |log: &mut Vec<i32>| {
            log.push(9);
            log.len()
        };
        let late = log.read(never).await;
        assert_eq!(
            late.unwrap_err(),
            "reading a file took too long: result dropped"
        );
        let read = |log: &mut Vec<i32>| {
            log.push(2);
            log.len()
        };
        assert_eq!(log.read(read).await, Ok(2));
    }

    #[actix::test]
    async fn a_later_call_returns_the_result_of_a_slow_reading() {
        let (release, slow) = mpsc::channel::<()>();
        let deadline = Duration::from_millis(300);
        let mut log = Blocking::new("a file", Vec::new()).within(deadline);
        let wait = Duration::from_millis(10);
        let began = Instant::now();
        let slowly = move |log: &mut Vec<i32>| {
            let _ = slow.recv();
            log.push(1);
            log.len()
        };
        assert_eq!(log.read_within(wait, slowly).await, Ok(None));
        assert!(began.elapsed() < deadline, "the call waited too long");
        let never = |log: &mut Vec<i32>| {
            log.push(9);
            log.len()
        };
        let hangs = loop {
            match log.read_within(wait, never).await {
                Ok(none) => assert_eq!(none, None),
                Err(error) => break error,
            }
        };
        assert!(hangs.contains("possibly a file system hangs"), "{hangs}");
        assert!(began.elapsed() >= deadline);
        release.send(()).unwrap();
        let outcome = loop {
            if let Ok(Some(outcome)) = log.read_within(wait, never).await {
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
