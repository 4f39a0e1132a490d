//! Which containers run, and what the engine knows of each.
//!
//! One task, the [`Follower`], asks the engine, and publishes the answer as an [`Inventory`]. A round of a collector
//! requests the current inventory and waits for it for a short time only. While the engine is silent, rounds go on with the
//! last inventory: what the kernel tells of its containers does not depend on the engine.
//!
//! The list and the inspections are kept. The engine's events say when they are stale. They are taken in without waiting
//! whenever a round makes a request; any event that matters makes the list stale. So does the end of the events (the engine
//! was restarted, or dropped a reader that fell behind), and so does time: a minute, as a safety net. In between a request
//! costs the engine a ping, which shows that it is there.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::engine::{Call, Engine, EngineError, Inspected};
use super::events::{EventBatch, Following, SharedEvents};
use super::listing::ListedContainer;
use super::process::FirstProcess;
use crate::backoff::Backoff;
use crate::model::{Events, Timestamp};
use crate::settings::DockerHost;

/// How old a list may be.
const LIST_ANEW: Duration = Duration::from_secs(60);
/// How old it may be while it says of a container `Up 3 seconds`.
const LIST_YOUNG_ANEW: Duration = Duration::from_secs(1);
/// When a container is inspected again after an inspection without an answer.
const INSPECT_AGAIN: Duration = Duration::from_secs(15);
/// For how long an answer shows that the engine is there.
const ANSWERED: Duration = Duration::from_secs(1);
/// Containers that are inspected at once.
const INSPECTIONS_AT_ONCE: usize = 16;
/// Requests that wait for the follower. Each collector has one at a time, and leaves it behind when it stops waiting.
const MOST_REQUESTS: usize = 64;
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The most that a round waits for an answer, and the share of its interval.
const MOST_PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_SHARE: f64 = 0.8;
/// How long a round waits for an answer that is overdue: it may be about to come.
const OVERDUE_PATIENCE: Duration = Duration::from_millis(100);

/// A running container.
#[derive(Debug, Clone)]
pub(crate) struct RunningContainer {
    pub(crate) listed: Arc<ListedContainer>,
    pub(crate) inspection: Inspection,
    /// None where it has no process, or the process cannot be seen here.
    pub(super) process: Option<FirstProcess>,
}

impl RunningContainer {
    /// How long it has run, by the clock of its first process.
    pub(super) fn uptime(&self) -> Option<Duration> {
        self.process?.uptime()
    }
}

/// The outcome of an inspection of one container.
#[derive(Debug, Clone)]
pub(crate) enum Inspection {
    /// What the engine knows.
    Done(Arc<Inspected>),
    /// The container has ended since it was listed.
    Due,
    /// The engine has not answered.
    Failed {
        error: EngineError,
        at: Instant,
        /// Its last answer.
        before: Option<Arc<Inspected>>,
    },
}

impl Inspection {
    /// Inspects a container; `before` is the last answer.
    async fn of(call: &Call, id: &str, before: Option<Arc<Inspected>>) -> Self {
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

    /// What the engine said last.
    pub(crate) fn done(&self) -> Option<&Inspected> {
        self.answer().map(|inspected| &**inspected)
    }

    fn answer(&self) -> Option<&Arc<Inspected>> {
        match self {
            Self::Done(inspected) => Some(inspected),
            Self::Failed { before, .. } => before.as_ref(),
            Self::Due => None,
        }
    }

    /// Whether it is still good when the list is read anew.
    fn holds(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Due => false,
            Self::Failed { at, .. } => at.elapsed() < INSPECT_AGAIN,
        }
    }
}

/// The running containers, as far as they are known.
#[derive(Clone)]
pub(crate) struct Inventory {
    running: Arc<Vec<RunningContainer>>,
    /// A handle for further calls; none in an outage.
    pub(crate) call: Option<Call>,
    /// Set while the engine does not answer.
    pub(crate) outage: Option<Outage>,
    /// Whether the engine has confirmed it for this round.
    confirmed: bool,
}

/// The engine does not answer.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    error: EngineError,
    /// When the list was last known to be right.
    listed: SystemTime,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = Timestamp(self.listed);
        write!(
            f,
            "engine: {}; containers as listed at {listed}",
            self.error
        )
    }
}

impl Outage {
    /// As the outcome of a call that was not made because of it.
    pub(crate) fn error(&self) -> EngineError {
        self.error.clone()
    }
}

impl Inventory {
    /// The containers that run. Where the engine does not say which of them have ended, their processes do. Blocks.
    pub(crate) fn running(&self) -> Arc<Vec<RunningContainer>> {
        let has_ended = |one: &RunningContainer| {
            let doubtful = !self.confirmed || matches!(one.inspection, Inspection::Failed { .. });
            let process = one.process.filter(|_| doubtful);
            process.is_some_and(|process| process.has_ended(Path::new("/proc")))
        };
        let ended: HashSet<&str> = self
            .running
            .iter()
            .filter(|one| has_ended(one))
            .map(|one| one.listed.id.as_str())
            .collect();
        if ended.is_empty() {
            return Arc::clone(&self.running);
        }
        let left = self.running.iter();
        let left = left.filter(|one| !ended.contains(one.listed.id.as_str()));
        Arc::new(left.cloned().collect())
    }

    /// As the engine told them last.
    pub(crate) fn as_listed(&self) -> &Arc<Vec<RunningContainer>> {
        &self.running
    }
}

/// How long a round waits for the engine when containers are known already, with rounds at this interval.
pub(crate) fn patience(interval: Duration) -> Duration {
    interval.mul_f64(PATIENCE_SHARE).min(MOST_PATIENCE)
}

/// The engine's running containers, for every collector that reads some of them.
#[derive(Clone)]
pub struct Containers {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<State>,
    history: SharedEvents,
    /// None once it runs.
    follower: Arc<Mutex<Option<Follower>>>,
}

/// What the follower publishes.
#[derive(Clone, Default)]
struct State {
    /// None before the first list.
    inventory: Option<Inventory>,
    /// When it began to ask, while it waits for the engine.
    asking: Option<Instant>,
}

/// A request for the current inventory.
struct Request {
    /// Containers to be inspected again.
    due: Vec<String>,
    reply: oneshot::Sender<Result<Inventory, EngineError>>,
}

impl Containers {
    /// The containers of the engine at `host`; nothing is asked yet.
    #[must_use]
    pub fn of(host: DockerHost) -> Self {
        let (requests, received) = mpsc::channel(MOST_REQUESTS);
        let (publish, state) = watch::channel(State::default());
        let history = SharedEvents::default();
        let follower = Follower::new(host, history.clone(), received, publish);
        Self {
            requests,
            state,
            history,
            follower: Arc::new(Mutex::new(Some(follower))),
        }
    }

    /// What has happened to them, as far as the engine has told.
    pub(crate) fn events(&self) -> Arc<Events> {
        self.history.events()
    }

    /// The containers that ran when the engine answered last.
    pub(crate) fn known(&self) -> Arc<Vec<RunningContainer>> {
        let state = self.state.borrow();
        let inventory = state.inventory.as_ref();
        inventory.map_or_else(Arc::default, |known| Arc::clone(&known.running))
    }

    /// The running containers. If the engine does not answer within `patience`, returns the last known ones.
    ///
    /// # Errors
    /// The engine has never answered.
    pub(crate) async fn now(&self, patience: Duration) -> Result<Inventory, EngineError> {
        self.request(Vec::new(), patience).await
    }

    /// As [`Containers::now`], with the containers of these ids inspected again: their files have
    /// gone, which the events may not have told yet.
    pub(crate) async fn anew(
        &self,
        ids: Vec<String>,
        patience: Duration,
    ) -> Result<Inventory, EngineError> {
        self.request(ids, patience).await
    }

    async fn request(
        &self,
        due: Vec<String>,
        patience: Duration,
    ) -> Result<Inventory, EngineError> {
        self.start();
        let (reply, answer) = oneshot::channel();
        // If too many wait, the engine is being asked already.
        let _ = self.requests.try_send(Request { due, reply });
        let State { inventory, asking } = self.state.borrow().clone();
        let Some(known) = inventory else {
            // The deadlines of calls bound this.
            return answer.await.unwrap_or_else(|_| Err(stopping()));
        };
        if known.outage.is_some() {
            return Ok(known);
        }
        let overdue = asking.is_some_and(|since| since.elapsed() > patience);
        let patience = if overdue { OVERDUE_PATIENCE } else { patience };
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Ok(Inventory {
                confirmed: false,
                ..known
            }),
        }
    }

    /// Starts the follower on the thread of the first collector that makes a request.
    fn start(&self) {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.take() {
            tokio::spawn(follower.run());
        }
    }
}

fn stopping() -> EngineError {
    EngineError::Failed {
        call: "engine",
        reason: "the agent is stopping".to_owned(),
    }
}

/// Asks the engine which containers run.
struct Follower {
    engine: Engine,
    requests: mpsc::Receiver<Request>,
    publish: watch::Sender<State>,
    /// None until the first list, and after an outage.
    events: Option<Following>,
    history: SharedEvents,
    running: Arc<Vec<RunningContainer>>,
    /// Containers to be inspected again with the next list, by id.
    due: HashSet<String>,
    /// Whether all of them are: anything may have happened to them.
    all_due: bool,
    /// None while the list is stale.
    listed_at: Option<Instant>,
    answered_at: Option<Instant>,
    /// When the engine answered last; none before its first list.
    confirmed_at: Option<SystemTime>,
}

impl Follower {
    fn new(
        host: DockerHost,
        history: SharedEvents,
        requests: mpsc::Receiver<Request>,
        publish: watch::Sender<State>,
    ) -> Self {
        Self {
            engine: Engine::new(host),
            requests,
            publish,
            events: None,
            history,
            running: Arc::default(),
            due: HashSet::new(),
            all_due: false,
            listed_at: None,
            answered_at: None,
            confirmed_at: None,
        }
    }

    /// Answers requests until the last sender is dropped. Requests that wait are answered together.
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut waiting = Vec::new();
        while self.requests.recv_many(&mut waiting, MOST_REQUESTS).await > 0 {
            let due: Vec<String> = waiting
                .iter_mut()
                .flat_map(|request| std::mem::take(&mut request.due))
                .collect();
            if !due.is_empty() {
                self.forget(due);
            }
            let began = Instant::now();
            self.publish.send_modify(|state| state.asking = Some(began));
            let asked = self.ask().await;
            let failed = asked.is_err();
            if failed {
                self.disconnect();
                // They have waited for the engine in vain, too.
                while let Ok(request) = self.requests.try_recv() {
                    waiting.push(request);
                }
            }
            let answer = self.answer(asked);
            self.publish.send_modify(|state| {
                state.asking = None;
                if let Ok(inventory) = &answer {
                    state.inventory = Some(inventory.clone());
                }
            });
            for request in waiting.drain(..) {
                // A caller that no longer waits reads the answer with its next request.
                let _ = request.reply.send(answer.clone());
            }
            if failed {
                sleep(backoff.pause()).await;
            } else {
                backoff.reset();
            }
        }
    }

    fn answer(&self, asked: Result<Call, EngineError>) -> Result<Inventory, EngineError> {
        let (call, outage) = match (asked, self.confirmed_at) {
            (Ok(call), _) => (Some(call), None),
            (Err(error), Some(listed)) => (None, Some(Outage { error, listed })),
            (Err(error), None) => return Err(error),
        };
        Ok(Inventory {
            running: Arc::clone(&self.running),
            confirmed: outage.is_none(),
            call,
            outage,
        })
    }

    async fn ask(&mut self) -> Result<Call, EngineError> {
        let call = self.engine.call().await?;
        self.note_events();
        if !self.is_fresh() {
            self.list(&call).await?;
        } else if self.answered_at.is_none_or(|at| at.elapsed() > ANSWERED) {
            call.ping().await?;
            self.answered_at = Some(Instant::now());
        }
        self.confirmed_at = Some(SystemTime::now());
        Ok(call)
    }

    fn is_fresh(&self) -> bool {
        let Some(age) = self.listed_at.map(|at| at.elapsed()) else {
            return false;
        };
        let young = |one: &RunningContainer| one.listed.meta.status.contains("second");
        let most = if self.running.iter().any(young) {
            LIST_YOUNG_ANEW
        } else {
            LIST_ANEW
        };
        let unanswered = |one: &RunningContainer| match one.inspection {
            Inspection::Failed { .. } => !one.inspection.holds(),
            Inspection::Done(_) | Inspection::Due => false,
        };
        // Without events there is no telling what has happened since.
        self.events.is_some() && age < most && !self.running.iter().any(unanswered)
    }

    /// Takes in the events that have come, without waiting for more.
    fn note_events(&mut self) {
        let Some(events) = &self.events else {
            return;
        };
        let EventBatch {
            touched,
            too_many,
            ended,
        } = events.take();
        if ended || too_many {
            // Containers that are not known are inspected when the list is read anew.
            self.events = None;
        }
        self.all_due |= too_many;
        if !touched.is_empty() {
            self.forget(touched);
        }
    }

    /// Makes the list stale, and the inspections of these containers.
    fn forget(&mut self, ids: impl IntoIterator<Item = String>) {
        self.listed_at = None;
        self.due.extend(ids);
    }

    /// Lists anew, and inspects the containers that are not known.
    async fn list(&mut self, call: &Call) -> Result<(), EngineError> {
        if self.events.is_none() {
            let events = call.events(self.history.since());
            self.events = Some(Following::start(events, self.history.clone()));
        }
        let listed = call.list().await?;
        let before: HashMap<&str, &RunningContainer> = self
            .running
            .iter()
            .map(|one| (one.listed.id.as_str(), one))
            .collect();
        let inspected = listed.into_iter().map(|listed| {
            let before = before.get(listed.id.as_str()).copied().cloned();
            let is_due = self.all_due || self.due.contains(&listed.id);
            async move {
                let (inspection, process) = match before {
                    Some(one) if !is_due && one.inspection.holds() => (one.inspection, one.process),
                    before => inspect(call, &listed.id, before).await,
                };
                let listed = Arc::new(listed);
                RunningContainer {
                    listed,
                    inspection,
                    process,
                }
            }
        });
        let mut running: Vec<_> = stream::iter(inspected)
            .buffered(INSPECTIONS_AT_ONCE)
            .collect()
            .await;
        find_processes(&mut running).await;
        self.running = Arc::new(running);
        self.due.clear();
        self.all_due = false;
        let now = Instant::now();
        self.listed_at = Some(now);
        self.answered_at = Some(now);
        Ok(())
    }

    /// After an outage nothing that was known need be true. It stands until the engine says otherwise.
    fn disconnect(&mut self) {
        self.engine.disconnect();
        self.events = None;
        self.all_due = true;
        self.due.clear();
        self.listed_at = None;
        self.answered_at = None;
    }
}

/// Inspects a container. Where the engine does not answer, what was known stands.
async fn inspect(
    call: &Call,
    id: &str,
    before: Option<RunningContainer>,
) -> (Inspection, Option<FirstProcess>) {
    let last = before.as_ref().and_then(|one| one.inspection.answer());
    let inspection = Inspection::of(call, id, last.cloned()).await;
    let process = match inspection {
        // It may have been restarted: its process is looked for again.
        Inspection::Done(_) | Inspection::Due => None,
        Inspection::Failed { .. } => before.and_then(|one| one.process),
    };
    (inspection, process)
}

/// Finds the first processes of the containers that have new ones.
async fn find_processes(running: &mut [RunningContainer]) {
    let mut unknown = Vec::new();
    for (index, one) in running.iter_mut().enumerate() {
        let pid = one.inspection.done().map_or(0, |inspected| inspected.pid);
        one.process = one.process.filter(|process| process.is(pid));
        if one.process.is_none() && pid > 0 {
            unknown.push((index, pid, one.listed.id.clone()));
        }
    }
    if unknown.is_empty() {
        return;
    }
    let find = move || -> Vec<(usize, Option<FirstProcess>)> {
        let of = |pid, id: &str| FirstProcess::of_container(Path::new("/proc"), pid, id);
        let unknown = unknown.into_iter();
        unknown
            .map(|(index, pid, id)| (index, of(pid, &id)))
            .collect()
    };
    // Fails only where the runtime ends.
    for (index, process) in spawn_blocking(find).await.unwrap_or_default() {
        running[index].process = process;
    }
}
