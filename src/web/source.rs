//! Where the log lines of a host come from: its agent, the collectors in this process, or NATS.

use std::sync::Arc;

#[cfg(feature = "nats")]
use tokio::sync::mpsc;

use crate::client::{Connector, OlderLines, Snapshots};
use crate::feeds::local::{Local, Subscription};
#[cfg(feature = "nats")]
use crate::feeds::nats::{Fleet, follow_logs};
use crate::model::{LogRange, StreamLine};

/// Maximum number of messages of NATS that wait for a reader.
#[cfg(feature = "nats")]
const MAX_WAITING: usize = 64;

/// Where the log lines of one host come from.
#[derive(Clone)]
pub(super) enum Source {
    Agent(Arc<Connector>),
    Here(Arc<Local>),
    #[cfg(feature = "nats")]
    Fleet {
        fleet: Arc<Fleet>,
        /// The name in the subjects of the host's messages.
        host: String,
    },
}

/// New log lines of a host, as they are written.
pub(super) enum NewLines {
    Agent {
        connector: Connector,
        stream: Box<Snapshots>,
    },
    Here(Subscription),
    #[cfg(feature = "nats")]
    Fleet {
        lines: mpsc::Receiver<(String, Vec<String>, u64)>,
        task: tokio::task::JoinHandle<Result<(), String>>,
    },
}

/// Log lines of one container.
pub(super) struct ContainerLines {
    pub(super) container: String,
    pub(super) lines: Vec<String>,
    /// The number of lines that are missing before `lines`.
    pub(super) dropped: u64,
}

impl Source {
    /// Asks for new log lines. `cursor` is the position after which they continue.
    ///
    /// # Errors
    /// Fails if the source cannot be reached.
    pub(super) async fn follow(
        &self,
        cursor: Option<&str>,
        containers: &[String],
    ) -> Result<NewLines, String> {
        // Only a fleet is asked for the logs of some containers.
        #[cfg(not(feature = "nats"))]
        let _ = containers;
        let mut options = serde_json::json!({"sections": ["logs"], "logs": "new", "live": true});
        if let (Some(cursor), Some(options)) = (cursor, options.as_object_mut()) {
            options.insert("resume".to_owned(), cursor.into());
        }
        match self {
            Self::Agent(connector) => {
                let connector = connector.without_cursor();
                let stream = connector.connect_asking(&options.to_string()).await;
                let stream = Box::new(stream.map_err(|error| error.to_string())?);
                Ok(NewLines::Agent { connector, stream })
            }
            Self::Here(local) => {
                let lines = local.subscribe(&options.to_string());
                lines.map(NewLines::Here).map_err(|error| error.to_string())
            }
            #[cfg(feature = "nats")]
            Self::Fleet { fleet, host } => {
                let (sender, lines) = mpsc::channel(MAX_WAITING);
                let (fleet, host) = (Arc::clone(fleet), host.clone());
                let containers = containers.to_vec();
                let task =
                    tokio::spawn(
                        async move { follow_logs(&fleet, &host, &containers, &sender).await },
                    );
                Ok(NewLines::Fleet { lines, task })
            }
        }
    }

    /// Asks for older log lines of a container.
    ///
    /// # Errors
    /// Fails if the source cannot be reached, has no such container, or cannot read its log.
    pub(super) async fn older_lines(&self, range: &LogRange) -> Result<OlderLines, String> {
        match self {
            Self::Agent(connector) => {
                let older = connector.older_lines(range).await;
                older.map_err(|error| error.to_string())
            }
            Self::Here(local) => local.older_lines(range.clone()).await,
            #[cfg(feature = "nats")]
            Self::Fleet { .. } => Err("hosts of a fleet send no older log lines: connect to the \
                 agent's socket instead"
                .to_owned()),
        }
    }
}

impl NewLines {
    /// Returns the next lines, and the position after them. If the future is dropped, the connection must be dropped too.
    ///
    /// # Errors
    /// Fails if the connection fails.
    pub(super) async fn next(&mut self) -> Result<(Vec<ContainerLines>, Option<String>), String> {
        match self {
            Self::Agent { connector, stream } => {
                let line = stream.next_line().await;
                let line = line.map_err(|error| error.to_string())?;
                Ok((lines_of(line), connector.cursor()))
            }
            Self::Here(lines) => {
                let line = lines.next().await.ok_or("the collectors have ended")?;
                let line = StreamLine::read(&line).map_err(|error| error.to_string())?;
                let cursor = match &line {
                    StreamLine::Snapshot(snapshot) => snapshot.agent.cursor.clone(),
                    StreamLine::News(news) => news.agent.cursor.clone(),
                    StreamLine::History(_) => None,
                };
                Ok((lines_of(line), cursor))
            }
            #[cfg(feature = "nats")]
            Self::Fleet { lines, task } => match lines.recv().await {
                Some((container, lines, dropped)) => {
                    let lines = ContainerLines {
                        container,
                        lines,
                        dropped,
                    };
                    Ok((vec![lines], None))
                }
                None => match task.await {
                    Ok(Err(error)) => Err(error),
                    _ => Err("the connection has ended".to_owned()),
                },
            },
        }
    }
}

/// Returns the log lines in a line of a stream.
fn lines_of(line: StreamLine) -> Vec<ContainerLines> {
    match line {
        // Nobody asks for the history here.
        StreamLine::History(_) => Vec::new(),
        StreamLine::Snapshot(snapshot) => {
            let mut dropped = snapshot.logs_dropped.clone().unwrap_or_default();
            let mut all: Vec<_> = snapshot
                .logs
                .iter()
                .map(|(container, lines)| ContainerLines {
                    container: container.clone(),
                    lines: lines.after(0).texts().collect(),
                    dropped: dropped.remove(container).unwrap_or(0),
                })
                .collect();
            all.extend(dropped.into_iter().map(only_dropped));
            all
        }
        StreamLine::News(news) => {
            let mut dropped = news.logs_dropped;
            let mut all = Vec::new();
            for (container, lines) in news.logs {
                let dropped = dropped.remove(&container).unwrap_or(0);
                all.push(ContainerLines {
                    container,
                    lines,
                    dropped,
                });
            }
            all.extend(dropped.into_iter().map(only_dropped));
            all
        }
    }
}

fn only_dropped((container, dropped): (String, u64)) -> ContainerLines {
    ContainerLines {
        container,
        lines: Vec::new(),
        dropped,
    }
}
