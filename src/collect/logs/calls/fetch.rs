//! Requests the messages of a container's log from the engine. It does not merge the fragments of long lines.

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout_at};

use crate::collect::docker::engine::{Call, EngineError, classify};
use crate::collect::logs::line::fragments;
use crate::collect::logs::tail::Channel;

/// The name of the call in error messages.
pub(super) const CALL: &str = "container logs";

/// A message of the engine. The fields are the channel, and the bytes `TIMESTAMP text`.
pub(super) type Message = (Channel, Bytes);

/// The reason why an answer was not read to its end.
pub(super) enum FetchError {
    /// The deadline passed.
    Late,
    /// The answer ended early, after this many messages. It was probably longer than the limit for an answer.
    CutShort(BollardError, usize),
    Other(EngineError),
}

impl From<FetchError> for EngineError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Late => Self::Deadline { call: CALL },
            FetchError::CutShort(error, _) => classify(CALL, &error),
            FetchError::Other(error) => error,
        }
    }
}

/// Requests the newest `messages` messages. If `since` is given, in Unix seconds, omits messages from before that time.
pub(super) async fn fetch(
    call: &Call,
    id: &str,
    messages: usize,
    since: Option<i32>,
    deadline: Instant,
) -> Result<Vec<Message>, FetchError> {
    let mut outputs = std::pin::pin!(call.logs(id, messages, since));
    let mut console = Console::default();
    let mut answer: Vec<Message> = Vec::new();
    let mut take = |channel, message| {
        answer.push((channel, message));
    };
    let error = loop {
        let output = timeout_at(deadline, outputs.try_next()).await;
        match output.map_err(|_| FetchError::Late)? {
            Ok(None) => {
                console.finish(&mut take);
                return Ok(answer);
            }
            Ok(Some(LogOutput::StdErr { message })) => take(Channel::Stderr, message),
            Ok(Some(LogOutput::StdOut { message } | LogOutput::StdIn { message })) => {
                take(Channel::Stdout, message);
            }
            Ok(Some(LogOutput::Console { message })) => match engine_error(&message) {
                Some(reason) => {
                    return Err(FetchError::Other(EngineError::Failed {
                        call: CALL,
                        reason,
                    }));
                }
                None => console.push(&message, &mut take),
            },
            Err(error) => break error,
        }
    };
    Err(match error {
        BollardError::IOError { .. } => FetchError::CutShort(error, count_of(&answer)),
        error => FetchError::Other(classify(CALL, &error)),
    })
}

/// Splits the output of a TTY into messages. The output arrives as one stream without boundaries. Each line becomes a message.
#[derive(Default)]
struct Console(BytesMut);

impl Console {
    fn push(&mut self, piece: &[u8], take: &mut impl FnMut(Channel, Bytes)) {
        let mut searched = self.0.len();
        self.0.extend_from_slice(piece);
        while let Some(end) = memchr::memchr(b'\n', &self.0[searched..]) {
            take(
                Channel::Console,
                self.0.split_to(searched + end + 1).freeze(),
            );
            searched = 0;
        }
    }

    fn finish(self, take: &mut impl FnMut(Channel, Bytes)) {
        if !self.0.is_empty() {
            take(Channel::Console, self.0.freeze());
        }
    }
}

/// Returns the engine's error text, if the message is a frame of type 3. The engine sends such a frame if it cannot read the log.
/// bollard treats the frame as console output. Console output never begins with the byte 3, but with a digit of the year.
fn engine_error(message: &[u8]) -> Option<String> {
    match message {
        [3, 0, 0, 0, _, _, _, _, text @ ..] => {
            Some(String::from_utf8_lossy(text).trim_end().to_owned())
        }
        _ => None,
    }
}

/// Returns the whole messages of an answer. Omits an unfinished piece of a terminal's stream at the end.
pub(super) fn whole(answer: &[Message]) -> &[Message] {
    match answer.split_last() {
        Some(((channel, message), whole)) if is_open(*channel, message) => whole,
        _ => answer,
    }
}

/// Returns how many messages of the engine an answer has. The engine counts each fragment of a line, and a console has one
/// [`Message`] for the whole line.
pub(super) fn count_of(answer: &[Message]) -> usize {
    let count = |(channel, message): &Message| match channel {
        Channel::Console => fragments(message),
        _ => 1,
    };
    answer.iter().map(count).sum()
}

/// Whether a message is an unfinished piece of a terminal's stream.
pub(super) fn is_open(channel: Channel, message: &[u8]) -> bool {
    channel == Channel::Console && !message.ends_with(b"\n")
}

/// Returns the timestamp at the beginning of a message.
pub(super) fn timestamp(message: &[u8]) -> Option<&[u8]> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    Some(&message[..end])
}

/// Returns the time of a message, in Unix seconds.
pub(super) fn second_of(message: &[u8]) -> Option<i32> {
    let time = std::str::from_utf8(timestamp(message)?).ok()?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i32::try_from(time.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::engine_error;

    #[test]
    fn an_error_of_the_engine_is_not_taken_for_console_output() {
        let complaint = b"\x03\0\0\0\0\0\0\x1dError grabbing logs: EOF\n";
        assert_eq!(
            engine_error(complaint).as_deref(),
            Some("Error grabbing logs: EOF")
        );
        assert_eq!(engine_error(b"2024-01-01T12:00:00Z x\r\n"), None);
        assert_eq!(engine_error(b"\x03"), None);
    }
}
