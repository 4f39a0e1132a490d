//! Knows which containers exist, and caches the engine's inspection of each container.
//!
//! One task, the [`Follower`], makes all calls of this module to the engine. It publishes the result as an [`Inventory`]: the
//! running containers, and whether the engine answers. A round of a collector requests the current inventory. If there is an
//! earlier inventory, the round waits only a short time. While the engine does not answer, rounds use the previous inventory.
//! During this time, a round can still read the containers' files in `/proc` and in the cgroup file system.
//!
//! The engine's list of running containers and the inspections are cached. At each request, the follower processes the engine's
//! events that have arrived. The follower does not wait for more events. The list becomes stale:
//!
//! - after an event of a container,
//! - after a failed start of a container that is not in the list,
//! - at the end of the event stream, which happens if the engine restarts or if the agent reads the stream too slowly,
//! - after one minute,
//! - after one second, if a container in the list started less than a minute ago,
//! - after a failed inspection, when the pause before its retry is over,
//! - after a failed call to the engine,
//! - when a collector asks for a new inspection of a container.
//!
//! While the list is fresh, a request costs the engine at most one ping, and none if the engine has answered within the last seconds.
//! The ping shows that the engine answers.
//!
//! Once a minute, and after an event that can change them, the list also has the stopped containers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::choice::ContainerChoice;
use super::engine::{Call, Engine, EngineError};
use super::events::{EventBatch, Following, SharedEvents, StartedContainer};
use super::inspection::{INSPECTIONS_AT_ONCE, Inspection};
use super::inventory::{Inventory, Outage, RunningContainer};
use super::listing::{Excluded, ListScope, ListedContainers};
use super::process::FirstProcess;
use super::stopped::StoppedContainers;
use crate::backoff::Backoff;
use crate::model::Events;
use crate::settings::{CollectSettings, DockerHost};

/// Maximum age of the container list.
const MAX_LIST_AGE: Duration = Duration::from_secs(60);
/// Maximum age of the container list if it has a container that started less than a minute ago. The status of such a container,
/// for example `Up 3 seconds`, changes every second.
const MAX_LIST_AGE_WITH_YOUNG: Duration = Duration::from_secs(1);
/// Timeout for the list of all containers. It is shorter than the timeout of other calls, because the list of running containers is read
/// after it.
const ALL_DEADLINE: Duration = Duration::from_secs(3);
/// Maximum age of the engine's previous answer. If the answer is older, the next request sends a ping. An engine that has ended is noticed
/// at once, because the stream of its events ends. Only an engine that hangs is noticed by a ping.
const MAX_ANSWER_AGE: Duration = Duration::from_secs(8);
/// Maximum number of requests that wait for the follower. Each collector makes one request at a time. If a collector stops
/// waiting for an answer, its request stays in the queue.
const MAX_REQUESTS: usize = 64;
/// Pause after the first failed request to the engine. Later pauses are longer, up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Limit on the wait of one request for the inventory, if there is an earlier inventory.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A round waits at most this share of the collector's interval for the engine, and never longer than [`MAX_WAIT`].
const WAIT_SHARE: f64 = 0.8;
/// Time that a round waits for the engine if the engine's answer is already overdue. The engine can still answer soon.
const OVERDUE_WAIT: Duration = Duration::from_millis(100);

/// Returns how long a round waits for the engine if there is an earlier inventory. `interval` is the time between two rounds.
pub(crate) fn patience(interval: Duration) -> Duration {
    interval.mul_f64(WAIT_SHARE).min(MAX_WAIT)
}

/// The engine's running containers, shared by all collectors.
#[derive(Clone)]
pub struct Containers {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<State>,
    history: SharedEvents,
    /// The follower, until the first request starts it. None after that.
    follower: Arc<Mutex<Option<Follower>>>,
}

/// The follower's state, as the collectors see it.
#[derive(Clone, Default)]
struct State {
    /// None before the first container list.
    inventory: Option<Inventory>,
    /// When the follower began to process the current requests. None while it processes no requests.
    asking_since: Option<Instant>,
}

/// A request for the current inventory.
struct Request {
    /// The ids of containers to inspect again.
    due: Vec<String>,
    reply: oneshot::Sender<Result<Inventory, EngineError>>,
}

impl Containers {
    /// Creates the view of the containers of the engine at `host`. The settings choose the containers and their environment variables.
    /// Makes no call to the engine yet.
    #[must_use]
    pub fn of(host: DockerHost, settings: &CollectSettings) -> Self {
        let (requests, received) = mpsc::channel(MAX_REQUESTS);
        let (publish, state) = watch::channel(State::default());
        let choice = Arc::new(ContainerChoice::new(settings.containers.clone()));
        let history = SharedEvents::new(Arc::clone(&choice));
        let engine = Engine::new(host).with_env(settings.container_env.clone());
        let follower = Follower::new(
            engine,
            Arc::clone(&choice),
            history.clone(),
            received,
            publish,
        );
        Self {
            requests,
            state,
            history,
            follower: Arc::new(Mutex::new(Some(follower))),
        }
    }

    /// Returns the newest events of the containers.
    pub(crate) fn events(&self) -> Arc<Events> {
        self.history.events()
    }

    /// Returns a receiver that is notified of every new event.
    pub(crate) fn event_changes(&self) -> watch::Receiver<()> {
        self.history.changes()
    }

    /// Returns a receiver of all containers that start from now on.
    pub(crate) fn starts(&self) -> broadcast::Receiver<StartedContainer> {
        self.history.starts()
    }

    /// Returns the containers of the newest container list. Empty before the first list.
    pub(crate) fn known(&self) -> Arc<Vec<RunningContainer>> {
        let state = self.state.borrow();
        let inventory = state.inventory.as_ref();
        inventory.map_or_else(Arc::default, |known| Arc::clone(&known.running))
    }

    /// Returns the running containers. If there is no answer within `patience`, returns the containers of the previous list. In
    /// an outage, returns the containers of the previous list immediately. If there is no previous list, waits until the calls
    /// to the engine end or reach their deadlines.
    ///
    /// # Errors
    /// Fails if there is no previous list and the engine returns none. Also fails if the agent stops before the first list.
    pub(crate) async fn now(&self, patience: Duration) -> Result<Inventory, EngineError> {
        self.request(Vec::new(), patience).await
    }

    /// Works like [`Containers::now`], and also requests a new inspection of the containers `ids`. Use it if the files of a
    /// container are gone. The container has probably restarted or ended, and its event has possibly not arrived yet.
    pub(crate) async fn inspected_again(
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
        // If the queue is full, this request is dropped. The round then uses the previous inventory.
        let _ = self.requests.try_send(Request { due, reply });
        let State {
            inventory,
            asking_since,
        } = self.state.borrow().clone();
        let Some(known) = inventory else {
            // There is no previous inventory to return. The deadlines of the calls limit this wait.
            return answer.await.unwrap_or_else(|_| Err(stopping()));
        };
        if known.outage.is_some() {
            return Ok(known);
        }
        let overdue = asking_since.is_some_and(|since| since.elapsed() > patience);
        let patience = if overdue { OVERDUE_WAIT } else { patience };
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Ok(Inventory {
                confirmed: false,
                ..known
            }),
        }
    }

    /// Starts the follower if it does not run yet. The follower runs on the thread of the first collector that makes a request.
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

/// Calls the engine, and caches the container list and the inspections.
struct Follower {
    engine: Engine,
    requests: mpsc::Receiver<Request>,
    publish: watch::Sender<State>,
    /// The event stream. [`Self::list`] starts it before it reads the container list. None if the stream was not started yet,
    /// has ended or had events of too many containers, and after a failed call to the engine.
    events: Option<Following>,
    history: SharedEvents,
    running: Arc<Vec<RunningContainer>>,
    stopped: StoppedContainers,
    choice: Arc<ContainerChoice>,
    excluded: Excluded,
    /// When the list of all containers was read. None before that, and after a failed call to the engine.
    all_listed_at: Option<Instant>,
    /// When the list of all containers was not read in time.
    all_failed_at: Option<Instant>,
    /// Whether there was an event after which the stopped containers are possibly others.
    may_have_stopped: bool,
    /// The ids of containers to inspect again when the container list is read again.
    due: HashSet<String>,
    /// Whether to inspect all containers again when the container list is read again. True if the ids of some containers with
    /// events are not known, for example after an outage.
    all_due: bool,
    /// When the container list was read. None before the first list, and after the list was marked as stale.
    listed_at: Option<Instant>,
    answered_at: Option<Instant>,
    /// When the engine confirmed the container list for the last time. None before the first list.
    confirmed_at: Option<SystemTime>,
}

impl Follower {
    fn new(
        engine: Engine,
        choice: Arc<ContainerChoice>,
        history: SharedEvents,
        requests: mpsc::Receiver<Request>,
        publish: watch::Sender<State>,
    ) -> Self {
        Self {
            engine,
            requests,
            publish,
            events: None,
            history,
            running: Arc::default(),
            stopped: StoppedContainers::default(),
            choice,
            excluded: Excluded::default(),
            all_listed_at: None,
            all_failed_at: None,
            may_have_stopped: false,
            due: HashSet::new(),
            all_due: false,
            listed_at: None,
            answered_at: None,
            confirmed_at: None,
        }
    }

    /// Answers requests until all [`Containers`] are dropped. All requests that wait get the same answer.
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut waiting = Vec::new();
        while self.requests.recv_many(&mut waiting, MAX_REQUESTS).await > 0 {
            let due: Vec<String> = waiting
                .iter_mut()
                .flat_map(|request| std::mem::take(&mut request.due))
                .collect();
            if !due.is_empty() {
                self.mark_stale(due);
            }
            let began = Instant::now();
            self.publish
                .send_modify(|state| state.asking_since = Some(began));
            let asked = self.ask().await;
            let failed = asked.is_err();
            if failed {
                self.disconnect();
                // Requests that arrived during the failed call get the same answer.
                while let Ok(request) = self.requests.try_recv() {
                    waiting.push(request);
                }
            }
            let answer = self.answer(asked);
            self.publish.send_modify(|state| {
                state.asking_since = None;
                if let Ok(inventory) = &answer {
                    state.inventory = Some(inventory.clone());
                }
            });
            for request in waiting.drain(..) {
                // An error here means that the caller no longer waits. The published state has the inventory for its next
                // request.
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
            stopped: Arc::clone(self.stopped.published()),
            excluded: self.excluded,
            choice: Arc::clone(&self.choice),
            confirmed: outage.is_none(),
            call,
            outage,
        })
    }

    async fn ask(&mut self) -> Result<Call, EngineError> {
        let call = self.engine.call().await?;
        self.process_events();
        let mut has_asked = true;
        if !self.is_fresh() {
            self.list(&call).await?;
            self.update_stopped(&call).await;
        } else if self.stopped.is_due() {
            self.update_stopped(&call).await;
        } else if self
            .answered_at
            .is_none_or(|at| at.elapsed() > MAX_ANSWER_AGE)
        {
            call.ping().await?;
            self.answered_at = Some(Instant::now());
        } else {
            has_asked = false;
        }
        if has_asked {
            self.confirmed_at = Some(SystemTime::now());
        }
        Ok(call)
    }

    fn is_fresh(&self) -> bool {
        let Some(age) = self.listed_at.map(|at| at.elapsed()) else {
            return false;
        };
        let young = |one: &RunningContainer| one.listed.meta.status.contains("second");
        let max_age = if self.running.iter().any(young) {
            MAX_LIST_AGE_WITH_YOUNG
        } else {
            MAX_LIST_AGE
        };
        let unanswered = |one: &RunningContainer| match one.inspection {
            Inspection::Failed { .. } => !one.inspection.is_valid(),
            Inspection::Done(_) | Inspection::Due => false,
        };
        // Without the event stream, the agent does not know what has changed after the list was read.
        self.events.is_some() && age < max_age && !self.running.iter().any(unanswered)
    }

    /// Processes the events that have arrived. Does not wait for more events.
    fn process_events(&mut self) {
        let Some(events) = &self.events else {
            return;
        };
        let EventBatch {
            touched,
            too_many,
            ended,
            may_have_stopped,
            disconnected,
        } = events.take();
        if ended || too_many {
            // The next call of `list` starts a new event stream. That stream begins early enough to have the missing events.
            self.events = None;
        }
        self.all_due |= too_many;
        self.may_have_stopped |= may_have_stopped;
        if !touched.is_empty() {
            self.mark_stale(touched);
        }
        for (id, at) in disconnected {
            let is_running = self.running.iter().any(|one| one.listed.id == id);
            if !is_running && !self.stopped.inspect_after(&id, at) {
                // The container was created after the newest list, and its start has failed.
                self.may_have_stopped = true;
                self.mark_stale([id]);
            }
        }
    }

    /// Marks the container list and the inspections of the containers `ids` as stale.
    fn mark_stale(&mut self, ids: impl IntoIterator<Item = String>) {
        self.listed_at = None;
        self.due.extend(ids);
    }

    /// Reads the container list again. Inspects the containers that are due or have no valid inspection.
    async fn list(&mut self, call: &Call) -> Result<(), EngineError> {
        if self.events.is_none() {
            let events = call.events(self.history.since());
            self.events = Some(Following::start(events, self.history.clone()));
        }
        let (scope, listed) = self.read_list(call).await?;
        self.excluded.running = listed.excluded.running;
        let last = Arc::clone(&self.running);
        let before: HashMap<&str, &RunningContainer> = last
            .iter()
            .map(|one| (one.listed.id.as_str(), one))
            .collect();
        let inspected = listed.running.into_iter().map(|listed| {
            let before = before.get(listed.id.as_str()).copied().cloned();
            let is_due = self.all_due || self.due.contains(&listed.id);
            async move {
                let (inspection, process) = match before {
                    Some(one) if !is_due && one.inspection.is_valid() => {
                        (one.inspection, one.process)
                    }
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
        let now = Instant::now();
        if scope == ListScope::All {
            self.excluded.stopped = listed.excluded.stopped;
            let has_changed = |id: &str| self.due.contains(id) || before.contains_key(id);
            let (stopped, surplus) = (listed.stopped, listed.stopped_surplus);
            self.stopped
                .take_list(stopped, surplus, has_changed, self.all_due);
            self.all_listed_at = Some(now);
            self.may_have_stopped = false;
        }
        self.due.clear();
        self.all_due = false;
        self.listed_at = Some(now);
        self.answered_at = Some(now);
        Ok(())
    }

    /// Reads the list of all containers if the stopped containers have possibly changed, and once a minute. Reads the list of running
    /// containers otherwise, and if the list of all containers is too long to be read in time.
    async fn read_list(
        &mut self,
        call: &Call,
    ) -> Result<(ListScope, ListedContainers), EngineError> {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < MAX_LIST_AGE);
        let can_read_all = !is_recent(self.all_failed_at);
        let is_stale = !is_recent(self.all_listed_at) || self.may_have_stopped || self.all_due;
        if is_stale
            && can_read_all
            && let Some(listed) = self.read_all(call).await?
        {
            return Ok((ListScope::All, listed));
        }
        let listed = call.list(ListScope::Running, &self.choice).await?;
        // A container can stop or start before its event arrives.
        let ids: HashSet<&str> = listed.running.iter().map(|one| one.id.as_str()).collect();
        let has_ended = |one: &RunningContainer| !ids.contains(one.listed.id.as_str());
        let is_stale =
            self.running.iter().any(has_ended) || ids.iter().any(|id| self.stopped.has(id));
        if is_stale
            && can_read_all
            && let Some(listed) = self.read_all(call).await?
        {
            return Ok((ListScope::All, listed));
        }
        Ok((ListScope::Running, listed))
    }

    /// Returns none if the engine does not return the list in time.
    async fn read_all(&mut self, call: &Call) -> Result<Option<ListedContainers>, EngineError> {
        match timeout(ALL_DEADLINE, call.list(ListScope::All, &self.choice)).await {
            Ok(listed) => listed.map(Some),
            Err(_) => {
                debug!("the list of all containers is too long to be read in time");
                self.all_failed_at = Some(Instant::now());
                Ok(None)
            }
        }
    }

    /// Inspects stopped containers that are due, and publishes all.
    async fn update_stopped(&mut self, call: &Call) {
        if self.stopped.is_due() {
            let running_again = self.stopped.inspect(call).await;
            if !running_again.is_empty() {
                self.mark_stale(running_again);
            }
        }
        let running = self.running.iter().map(|one| one.listed.id.as_str());
        self.stopped.publish(&running.collect());
    }

    /// Drops the handle for calls, and ends the event stream. Marks the list and all inspections as stale, because any
    /// container can change during an outage. The previous list stays in use until the engine returns a new list.
    fn disconnect(&mut self) {
        self.engine.disconnect();
        self.events = None;
        self.all_due = true;
        self.due.clear();
        self.listed_at = None;
        self.all_listed_at = None;
        self.answered_at = None;
    }
}

/// Inspects a container. The second value is the previous process if the inspection failed, and none if not.
async fn inspect(
    call: &Call,
    id: &str,
    before: Option<RunningContainer>,
) -> (Inspection, Option<FirstProcess>) {
    let last = before.as_ref().and_then(|one| one.inspection.answer());
    let inspection = Inspection::of(call, id, last.cloned()).await;
    let process = match inspection {
        // The container has possibly restarted, so its first process must be searched again.
        Inspection::Done(_) | Inspection::Due => None,
        Inspection::Failed { .. } => before.and_then(|one| one.process),
    };
    (inspection, process)
}

/// Finds the first process of each container whose process is not known, for example after an inspection. If the process id of a
/// container has changed, the known process is discarded.
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
    // `spawn_blocking` fails only if the runtime stops.
    for (index, process) in spawn_blocking(find).await.unwrap_or_default() {
        running[index].process = process;
    }
}
