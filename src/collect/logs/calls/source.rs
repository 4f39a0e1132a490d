//! Where the messages of a log come from, if the agent does not read log files: calls to the engine, or the systemd journal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::fetch::{FetchError, Message, fetch};
use super::journal::Journal;
use super::stream::CallStream;
use crate::collect::docker::engine::{Call, EngineError, LogWindow};
use crate::collect::logs::tail::Channel;

/// Maximum number of messages that are read from the journal at a time.
const CHUNK: usize = 256;

/// Where the messages of a log come from.
#[derive(Clone)]
pub(in crate::collect::logs) enum MessageSource {
    Engine(Call),
    /// The journal of the host, and whether the container has a TTY.
    Journal(SharedJournal, bool),
}

/// The open journal. None before the first reading and after an error.
#[derive(Clone, Default)]
pub(in crate::collect::logs) struct SharedJournal(Arc<Mutex<Option<Journal>>>);

/// The messages of a log, oldest first.
pub(super) enum MessageStream {
    Engine(CallStream),
    Journal(JournalStream),
}

pub(super) struct JournalStream {
    deadline: Instant,
    /// None while a chunk is read, and after an error.
    journal: Option<Journal>,
    tty: bool,
    read: VecDeque<Message>,
}

impl MessageSource {
    /// Returns the newest `count` messages of a container, oldest first. See [`fetch`].
    pub(super) async fn newest(
        &self,
        id: &str,
        count: usize,
        since: Option<i32>,
        deadline: Instant,
    ) -> Result<Vec<Message>, FetchError> {
        match self {
            Self::Engine(call) => fetch(call, id, count, since, deadline).await,
            Self::Journal(shared, tty) => {
                let (shared, id, tty) = (shared.clone(), id.to_owned(), *tty);
                let read = move || shared.newest(&id, count, tty);
                read_journal(read).await.map_err(FetchError::Other)
            }
        }
    }

    /// Starts to read messages of a container.
    pub(super) async fn stream(
        &self,
        id: &str,
        window: LogWindow,
        deadline: Instant,
    ) -> Result<MessageStream, EngineError> {
        match self {
            Self::Engine(call) => {
                let stream = CallStream::of(call, id, window, deadline).await?;
                Ok(MessageStream::Engine(stream))
            }
            Self::Journal(_, tty) => {
                let (id, tty) = (id.to_owned(), *tty);
                let open = move || {
                    let mut journal = Journal::open()?;
                    let mut read = VecDeque::new();
                    match window {
                        LogWindow::All => journal.seek(&id, None)?,
                        LogWindow::Since(since) => journal.seek(&id, Some(since))?,
                        LogWindow::Newest(count) => {
                            // The journal is then at the first of these messages.
                            let first = journal.first_of_newest(&id, count)?;
                            read.extend(first.map(|message| of_terminal(message, tty)));
                        }
                    }
                    Ok((journal, read))
                };
                let (journal, read) = read_journal(open).await?;
                let journal = Some(journal);
                Ok(MessageStream::Journal(JournalStream {
                    deadline,
                    journal,
                    tty,
                    read,
                }))
            }
        }
    }
}

impl MessageStream {
    /// Returns the next message. None at the end of the log.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, EngineError> {
        match self {
            Self::Engine(stream) => stream.next().await,
            Self::Journal(stream) => stream.next().await,
        }
    }
}

impl JournalStream {
    async fn next(&mut self) -> Result<Option<Message>, EngineError> {
        if self.read.is_empty()
            && let Some(mut journal) = self.journal.take()
        {
            if Instant::now() >= self.deadline {
                return Err(EngineError::Deadline { call: "journal" });
            }
            let tty = self.tty;
            let (journal, read) = read_journal(move || {
                let mut read = VecDeque::new();
                while read.len() < CHUNK
                    && let Some(message) = journal.next()?
                {
                    read.push_back(of_terminal(message, tty));
                }
                Ok((journal, read))
            })
            .await?;
            (self.journal, self.read) = (Some(journal), read);
        }
        Ok(self.read.pop_front())
    }
}

impl SharedJournal {
    /// Blocks the thread.
    fn newest(&self, id: &str, count: usize, tty: bool) -> std::io::Result<Vec<Message>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut journal = match shared.take() {
            Some(journal) => journal,
            None => Journal::open()?,
        };
        let messages = journal.newest(id, count)?;
        *shared = Some(journal);
        let of_terminal = |message| of_terminal(message, tty);
        Ok(messages.into_iter().map(of_terminal).collect())
    }
}

fn of_terminal((channel, text): Message, tty: bool) -> Message {
    match tty {
        true => (Channel::Terminal, text),
        false => (channel, text),
    }
}

/// Runs a reading of the journal on a separate thread.
async fn read_journal<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, EngineError> {
    let failed = |reason: String| EngineError::Failed {
        call: "journal",
        reason,
    };
    let read = spawn_blocking(read).await;
    let read = read.map_err(|error| failed(error.to_string()))?;
    read.map_err(|error| failed(error.to_string()))
}
