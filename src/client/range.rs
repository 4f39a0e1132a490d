//! Asks an agent for older log lines of one container.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::{Duration, timeout};

use super::{Answer, BUFFER, Connector, Error, MAX_LINE};
use crate::model::{LogRange, time_of};

/// The timeout for the answer. The agent reads the log files of one request after the other.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Older log lines of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OlderLines {
    /// The log lines, each as `TIMESTAMP text`, oldest first.
    pub lines: Vec<String>,
    /// If the log can have more matching lines: the time at which a further request continues. It is the value for
    /// [`LogRange::before`], or for [`LogRange::after`] if the request begins with the oldest line. None if there are no more
    /// lines.
    pub reached: Option<SystemTime>,
}

#[derive(serde::Deserialize)]
struct RangeAnswer {
    logs: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    reached: Option<String>,
}

impl Connector {
    /// Connects, and asks for older log lines of one container. The agent closes the connection after its answer.
    ///
    /// # Errors
    /// Fails if the agent cannot be reached, refuses the key, does not know the container, or does not answer within a minute. See
    /// [`Error`].
    pub async fn older_lines(&self, range: &LogRange) -> Result<OlderLines, Error> {
        let mut stream = self.open().await?;
        self.send_key(&mut stream, &range.to_json()).await?;
        let mut line = Vec::new();
        let mut limited = BufReader::with_capacity(BUFFER, stream).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line);
        timeout(ANSWER_TIMEOUT, read)
            .await
            .map_err(|_| Error::Silent(ANSWER_TIMEOUT))??;
        match line.as_slice() {
            b"Unauthorized\n" => Err(Error::Unauthorized),
            [] => Err(Error::Refused),
            line if line.last() == Some(&b'\n') => match serde_json::from_slice(line) {
                Ok(RangeAnswer { logs, reached }) => Ok(OlderLines {
                    lines: logs.into_values().flatten().collect(),
                    reached: reached.and_then(|reached| time_of(&reached)),
                }),
                Err(error) => match serde_json::from_slice(line) {
                    Ok(Answer { error }) => Err(Error::Answered(error)),
                    Err(_) => Err(error.into()),
                },
            },
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}
