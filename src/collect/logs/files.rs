//! The logs that are read from the engine's files, and which those are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::file::LogFile;
use crate::collect::docker::engine::{EngineError, Inspected};
use crate::collect::docker::{Inspection, Listed, Running};
use crate::model::{LogLines, Positions};
use crate::settings::ContainerStats;

/// The most containers that have ended whose position is kept.
pub(super) const MOST_ENDED: usize = 1024;
/// How long the last lines of a container that has ended are kept.
const LAST_LINES: Duration = Duration::from_secs(60);

/// After this long in a round the logs that are left stay as they are until the next one: some may
/// be long, and none keeps the others waiting.
const ENOUGH: Duration = Duration::from_secs(2);

/// The logs of the running containers, as far as their files yield them.
pub(super) struct Files {
    lines: usize,
    way: ContainerStats,
    /// Running containers, by id.
    known: HashMap<String, Known>,
    /// Containers that have ended, by id: one that is started again goes on where it was.
    ended: HashMap<String, Ended>,
    /// When the first containers were met: the logs of those that were created later are followed
    /// as a whole.
    began: Option<SystemTime>,
}

/// How a container's log is read, and what was read last.
enum Known {
    /// From its file.
    File {
        name: String,
        log: Box<LogFile>,
        /// None before the first reading.
        lines: Option<Arc<LogLines>>,
    },
    /// By calls; why.
    Engine(String),
    /// The engine does not answer for it.
    Unanswered(EngineError),
}

/// The log of a container that has ended.
struct Ended {
    name: String,
    at: Instant,
    log: Box<LogFile>,
    /// None once they are old.
    lines: Option<Arc<LogLines>>,
    position: u64,
}

/// What came of reading one container's log from its file.
pub(super) enum Reading {
    /// Its newest lines.
    Lines(Arc<LogLines>),
    /// There is no file that could be read; why.
    Engine(String),
    /// The engine did not say where it is.
    Unanswered(EngineError),
    /// The container has just ended, or was just restarted.
    Absent,
}

/// What came of a round.
pub(super) struct Readings {
    /// Of the running containers, in their order.
    pub(super) running: Vec<Reading>,
    /// The last lines of those that have ended, by name.
    pub(super) ended: Vec<(String, Arc<LogLines>)>,
    /// Of those, too, whose last lines are old.
    pub(super) positions: Positions,
}

impl Files {
    /// The newest `lines` lines of each container; no files at all where calls are forced.
    pub(super) fn new(lines: usize, way: ContainerStats) -> Self {
        Self {
            lines,
            way,
            known: HashMap::new(),
            ended: HashMap::new(),
            began: None,
        }
    }

    /// Reads the files that have grown. Blocks.
    pub(super) fn read(&mut self, running: &[Running]) -> Readings {
        let end = Instant::now() + ENOUGH;
        self.update(running);
        self.began.get_or_insert_with(SystemTime::now);
        let read = |container: &Running| match self.known.get_mut(&container.listed.id) {
            Some(known) if Instant::now() < end => known.read(),
            Some(known) => known.last(),
            None => Reading::Absent,
        };
        let running: Vec<_> = running.iter().map(read).collect();
        let ended = self.ended.values();
        Readings {
            running,
            ended: ended
                .clone()
                .filter_map(|one| Some((one.name.clone(), one.lines.clone()?)))
                .collect(),
            positions: ended
                .map(|one| (Arc::clone(one.log.container()), one.position))
                .collect(),
        }
    }

    /// Settles how containers that are not known yet are read, and lays aside those that no
    /// longer run.
    fn update(&mut self, running: &[Running]) {
        let mut before = std::mem::replace(&mut self.known, HashMap::with_capacity(running.len()));
        for Running { listed, inspection } in running {
            let known = match (before.remove(&listed.id), inspection) {
                (Some(Known::File { log, lines, .. }), _) => Known::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines,
                },
                // What could not be read is tried again: the reason may have been a passing one.
                (_, Inspection::Done(inspected)) => self.meet(listed, inspected),
                (_, Inspection::Failed(error, _)) => Known::Unanswered(error.clone()),
                (_, Inspection::Due) => continue,
            };
            self.known.insert(listed.id.clone(), known);
        }
        for (id, known) in before {
            if let Known::File { name, log, lines } = known {
                self.ended.insert(id, Ended::of(name, log, lines));
            }
        }
        self.forget();
    }

    /// Forgets the last lines that are old, and the oldest of too many that have ended.
    fn forget(&mut self) {
        for ended in self.ended.values_mut() {
            if ended.at.elapsed() > LAST_LINES {
                ended.lines = None;
            }
        }
        while self.ended.len() > MOST_ENDED {
            let oldest = self.ended.iter().min_by_key(|(_, ended)| ended.at);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.ended.remove(&oldest);
        }
    }

    fn meet(&mut self, listed: &Listed, inspected: &Inspected) -> Known {
        match &inspected.log_file {
            _ if self.way == ContainerStats::Engine => {
                Known::Engine("CONTAINER_STATS is engine".to_owned())
            }
            Some(path) => {
                let ended = self.ended.remove(&listed.id);
                let log = ended.map(|ended| ended.log).unwrap_or_else(|| {
                    let (tty, whole) = (inspected.tty, self.is_new(listed));
                    let id = Arc::from(listed.id.as_str());
                    Box::new(LogFile::new(id, path.clone(), tty, self.lines, whole))
                });
                Known::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines: None,
                }
            }
            None => Known::Engine(format!("the logging driver is {}", inspected.log_driver)),
        }
    }

    /// Whether a container was created since the first ones were met.
    fn is_new(&self, listed: &Listed) -> bool {
        let since = self
            .began
            .and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
        let created = u64::try_from(listed.meta.created).ok();
        since
            .zip(created)
            .is_some_and(|(since, created)| created >= since.as_secs())
    }
}

impl Known {
    fn read(&mut self) -> Reading {
        match self {
            Self::File { log, lines, .. } => match log.update() {
                Ok(grown) => {
                    if grown {
                        *lines = Some(Arc::new(log.lines()));
                    }
                    self.last()
                }
                Err(error) => Reading::Engine(format!("its file: {error}")),
            },
            Self::Engine(_) | Self::Unanswered(_) => self.last(),
        }
    }

    /// What was read last.
    fn last(&self) -> Reading {
        match self {
            Self::File { lines, .. } => lines
                .as_ref()
                .map_or(Reading::Absent, |lines| Reading::Lines(Arc::clone(lines))),
            Self::Engine(reason) => Reading::Engine(reason.clone()),
            Self::Unanswered(error) => Reading::Unanswered(error.clone()),
        }
    }
}

impl Ended {
    /// Reads the last lines, which may be the most interesting, before the log is laid aside.
    fn of(name: String, mut log: Box<LogFile>, lines: Option<Arc<LogLines>>) -> Self {
        let lines = match log.update() {
            Ok(true) => Some(Arc::new(log.lines())),
            // Nothing more, or removed with the container.
            Ok(false) | Err(_) => lines,
        };
        let position = log.lines().place().end;
        log.rest();
        Self {
            name,
            at: Instant::now(),
            position,
            lines,
            log,
        }
    }
}
