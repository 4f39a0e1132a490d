//! Which containers run, and what the engine knows of each: kept, and asked for anew only when
//! something has happened.
//!
//! The engine's events say when. They are taken in without waiting, at the beginning of a round; any
//! that matters makes the list stale. So does the end of the events (the engine was restarted, or
//! dropped a reader that fell behind), and so does time: a minute, as a safety net. In between a
//! round costs the engine a ping, which shows that it is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, watch};

use super::engine::{Call, Engine, EngineError, Inspected};
use super::events::{Following, History, Told};
use super::listing::Listed;
use crate::model::Events;
use crate::settings::DockerHost;

/// How old a list may be.
const LIST_ANEW: Duration = Duration::from_secs(60);
/// How old it may be while it says of a container `Up 3 seconds`.
const LIST_YOUNG_ANEW: Duration = Duration::from_secs(1);
/// For how long an answer shows that the engine is there.
const ANSWERED: Duration = Duration::from_secs(1);
/// Containers that are inspected at once.
const INSPECTIONS_AT_ONCE: usize = 16;

/// A running container.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) listed: Arc<Listed>,
    pub(crate) inspection: Inspection,
}

/// What came of asking the engine about one container.
#[derive(Debug, Clone)]
pub(crate) enum Inspection {
    /// What it knows.
    Done(Arc<Inspected>),
    /// The container has ended since it was listed, or something has happened to it.
    Due,
    /// No answer, and why; asked again when the list has grown old.
    Failed(EngineError, Instant),
}

impl Inspection {
    async fn of(call: &Call, id: &str) -> Self {
        match call.inspect(id).await {
            Ok(inspected) => Self::Done(Arc::new(inspected)),
            Err(EngineError::Gone) => Self::Due,
            Err(error) => Self::Failed(error, Instant::now()),
        }
    }

    /// What the engine knows, where it has answered.
    pub(crate) fn done(&self) -> Option<&Inspected> {
        match self {
            Self::Done(inspected) => Some(inspected),
            Self::Due | Self::Failed(..) => None,
        }
    }

    /// Whether it still serves when the list is read anew.
    fn holds(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Due => false,
            Self::Failed(_, at) => at.elapsed() < LIST_ANEW,
        }
    }
}

/// The engine's running containers, for every collector that reads some of them.
#[derive(Clone)]
pub struct Containers {
    inventory: Arc<Mutex<Inventory>>,
    /// What is known of them, for those who would not wait for the engine.
    known: watch::Receiver<Arc<Vec<Running>>>,
    history: History,
}

impl Containers {
    /// The containers of the engine at `host`; nothing is asked yet.
    #[must_use]
    pub fn of(host: DockerHost) -> Self {
        let (publish, known) = watch::channel(Arc::default());
        let history = History::default();
        Self {
            inventory: Arc::new(Mutex::new(Inventory::new(host, history.clone(), publish))),
            known,
            history,
        }
    }

    /// What has happened to them, as far as the engine has told.
    pub(crate) fn events(&self) -> Arc<Events> {
        self.history.events()
    }

    /// The containers that ran when the engine was asked last; none while it does not answer.
    pub(crate) fn known(&self) -> Arc<Vec<Running>> {
        Arc::clone(&self.known.borrow())
    }

    /// The containers that run now, and a handle for further calls.
    pub(crate) async fn now(&self) -> Result<(Call, Arc<Vec<Running>>), EngineError> {
        let asked = Instant::now();
        let mut inventory = self.inventory.lock().await;
        match &inventory.failed {
            // Whoever asked before has waited for the engine in vain: waiting once more would
            // only make the news late.
            Some((at, error)) if *at >= asked => Err(error.clone()),
            _ => inventory.now().await,
        }
    }

    /// As [`Containers::now`], with the containers of these ids looked at anew: their files have
    /// gone, which the events may not have told yet.
    pub(crate) async fn anew(
        &self,
        ids: &[&str],
    ) -> Result<(Call, Arc<Vec<Running>>), EngineError> {
        let mut inventory = self.inventory.lock().await;
        inventory.forget(ids);
        inventory.now().await
    }
}

/// What is known of the engine's containers.
struct Inventory {
    engine: Engine,
    /// None until the first list, and after an outage.
    events: Option<Following>,
    history: History,
    running: Arc<Vec<Running>>,
    /// None while the list is stale.
    listed_at: Option<Instant>,
    answered_at: Option<Instant>,
    /// The last failure, and when it was.
    failed: Option<(Instant, EngineError)>,
    /// Where what is known goes.
    publish: watch::Sender<Arc<Vec<Running>>>,
}

impl Inventory {
    fn new(host: DockerHost, history: History, publish: watch::Sender<Arc<Vec<Running>>>) -> Self {
        Self {
            publish,
            engine: Engine::new(host),
            events: None,
            history,
            running: Arc::default(),
            listed_at: None,
            answered_at: None,
            failed: None,
        }
    }

    async fn now(&mut self) -> Result<(Call, Arc<Vec<Running>>), EngineError> {
        let asked = self.ask().await;
        if let Err(error) = &asked {
            self.failed = Some((Instant::now(), error.clone()));
            self.disconnect();
        }
        self.publish.send_if_modified(|known| {
            let new = !Arc::ptr_eq(known, &self.running);
            if new {
                known.clone_from(&self.running);
            }
            new
        });
        asked.map(|call| (call, Arc::clone(&self.running)))
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
        Ok(call)
    }

    fn is_fresh(&self) -> bool {
        let Some(age) = self.listed_at.map(|at| at.elapsed()) else {
            return false;
        };
        let young = |one: &Running| one.listed.meta.status.contains("second");
        let most = if self.running.iter().any(young) {
            LIST_YOUNG_ANEW
        } else {
            LIST_ANEW
        };
        // Without events there is no telling what has happened since.
        self.events.is_some() && age < most
    }

    /// Takes in the events that have come, without waiting for more.
    fn note_events(&mut self) {
        let Some(events) = &self.events else {
            return;
        };
        let Told {
            touched,
            too_many,
            ended,
        } = events.take();
        if ended || too_many {
            // What is not known is looked at when it is listed anew.
            self.events = None;
        }
        if too_many {
            self.running = Arc::default();
        }
        if !touched.is_empty() {
            let touched: Vec<_> = touched.iter().map(String::as_str).collect();
            self.forget(&touched);
        }
    }

    /// Makes the list stale, and what is known of these containers.
    fn forget(&mut self, ids: &[&str]) {
        self.listed_at = None;
        for one in Arc::make_mut(&mut self.running) {
            if ids.contains(&one.listed.id.as_str()) {
                one.inspection = Inspection::Due;
            }
        }
    }

    /// Lists anew, and inspects the containers that are not known.
    async fn list(&mut self, call: &Call) -> Result<(), EngineError> {
        if self.events.is_none() {
            let events = call.events(self.history.since());
            self.events = Some(Following::start(events, self.history.clone()));
        }
        let listed = call.list().await?;
        let known: HashMap<&str, &Inspection> = self
            .running
            .iter()
            .filter(|one| one.inspection.holds())
            .map(|one| (one.listed.id.as_str(), &one.inspection))
            .collect();
        let inspected = listed.into_iter().map(|listed| {
            let known = known.get(listed.id.as_str()).copied().cloned();
            async move {
                let inspection = match known {
                    Some(known) => known,
                    None => Inspection::of(call, &listed.id).await,
                };
                let listed = Arc::new(listed);
                Running { listed, inspection }
            }
        });
        let running: Vec<_> = stream::iter(inspected)
            .buffered(INSPECTIONS_AT_ONCE)
            .collect()
            .await;
        self.running = Arc::new(running);
        let now = Instant::now();
        self.listed_at = Some(now);
        self.answered_at = Some(now);
        Ok(())
    }

    /// After an outage nothing that was known need be true.
    fn disconnect(&mut self) {
        self.engine.disconnect();
        self.events = None;
        self.running = Arc::default();
        self.listed_at = None;
        self.answered_at = None;
    }
}
