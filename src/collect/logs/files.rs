//! The logs that are read from the engine's files, and which those are.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::LogFile;
use crate::collect::docker::engine::{EngineError, Inspected};
use crate::collect::docker::{Inspection, Running};
use crate::model::LogLines;
use crate::settings::ContainerStats;

/// The logs of the running containers, as far as their files yield them.
pub(super) struct Files {
    lines: usize,
    way: ContainerStats,
    /// By container id.
    known: HashMap<String, Known>,
}

/// How a container's log is read, and what was read last.
enum Known {
    /// From its file.
    File(Box<LogFile>, Arc<LogLines>),
    /// By calls; why.
    Engine(String),
    /// The engine does not answer for it.
    Unanswered(EngineError),
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

impl Files {
    /// The newest `lines` lines of each container; no files at all where calls are forced.
    pub(super) fn new(lines: usize, way: ContainerStats) -> Self {
        Self {
            lines,
            way,
            known: HashMap::new(),
        }
    }

    /// Reads the files that have grown; what came of each of `running`, in their order. Blocks.
    pub(super) fn read(&mut self, running: &[Running]) -> Vec<Reading> {
        self.update(running);
        let read = |container: &Running| match self.known.get_mut(&container.listed.id) {
            Some(known) => known.read(),
            None => Reading::Absent,
        };
        running.iter().map(read).collect()
    }

    /// Forgets containers that no longer run, and settles how those not known yet are read.
    fn update(&mut self, running: &[Running]) {
        let mut before = std::mem::replace(&mut self.known, HashMap::with_capacity(running.len()));
        for Running { listed, inspection } in running {
            let known = match (before.remove(&listed.id), inspection) {
                (Some(known @ Known::File(..)), _) => known,
                // What could not be read is tried again: the reason may have been a passing one.
                (_, Inspection::Done(inspected)) => self.meet(inspected),
                (_, Inspection::Failed(error, _)) => Known::Unanswered(error.clone()),
                (_, Inspection::Due) => continue,
            };
            self.known.insert(listed.id.clone(), known);
        }
    }

    fn meet(&self, inspected: &Inspected) -> Known {
        match &inspected.log_file {
            _ if self.way == ContainerStats::Engine => {
                Known::Engine("CONTAINER_STATS is engine".to_owned())
            }
            Some(path) => {
                let file = LogFile::new(path.clone(), inspected.tty, self.lines);
                Known::File(Box::new(file), Arc::default())
            }
            None => Known::Engine(format!("the logging driver is {}", inspected.log_driver)),
        }
    }
}

impl Known {
    fn read(&mut self) -> Reading {
        match self {
            Self::File(file, lines) => match file.update() {
                Ok(grown) => {
                    if grown {
                        *lines = Arc::new(file.lines().into());
                    }
                    Reading::Lines(Arc::clone(lines))
                }
                Err(error) => {
                    let reason = format!("its file: {error}");
                    *self = Self::Engine(reason.clone());
                    Reading::Engine(reason)
                }
            },
            Self::Engine(reason) => Reading::Engine(reason.clone()),
            Self::Unanswered(error) => Reading::Unanswered(error.clone()),
        }
    }
}
