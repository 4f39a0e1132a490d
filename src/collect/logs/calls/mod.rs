//! Reads a container's log by calls to the engine. The agent uses calls for a log without a log file, and for a log file that the
//! agent cannot read.

mod called_log;
mod continuation;
mod fetch;
mod gathered;
mod journal;
mod pace;
mod range;
mod reader;
mod source;
mod stream;

pub(super) use called_log::CalledLog;
pub(super) use reader::CallReader;
pub(super) use source::{MessageSource, SharedJournal};
