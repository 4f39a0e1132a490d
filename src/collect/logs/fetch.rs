//! The messages of a container's log, as the engine answers.

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout_at};

use super::tail::Channel;
use crate::collect::docker::engine::{Call, EngineError, classify};

/// What the engine is asked for, in errors.
const CALL: &str = "container logs";

/// `TIMESTAMP text`, and where it comes from.
pub(super) type Message = (Channel, Bytes);

/// Why an answer was not read to its end.
pub(super) enum FetchError {
    Late,
    /// The answer broke off after this many messages. It was probably longer than the limit on what is read.
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

/// The newest `messages` messages, of those since a Unix time where one is given.
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
        BollardError::IOError { .. } => FetchError::CutShort(error, answer.len()),
        error => FetchError::Other(classify(CALL, &error)),
    })
}

/// The output of a TTY, which comes as one stream without seams: its messages are its lines.
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

/// What the engine says in a frame of type 3: that it cannot read the log. bollard takes such a
/// frame for a console's, whose lines begin with the digit of a year.
fn engine_error(message: &[u8]) -> Option<String> {
    match message {
        [3, 0, 0, 0, _, _, _, _, text @ ..] => {
            Some(String::from_utf8_lossy(text).trim_end().to_owned())
        }
        _ => None,
    }
}

/// The messages that are whole: the last piece of a terminal's stream may not be.
pub(super) fn whole(answer: &[Message]) -> &[Message] {
    match answer.split_last() {
        Some(((channel, message), whole)) if is_open(*channel, message) => whole,
        _ => answer,
    }
}

/// Whether more of a message may follow: it is the last piece of a terminal's stream.
pub(super) fn is_open(channel: Channel, message: &[u8]) -> bool {
    channel == Channel::Console && !message.ends_with(b"\n")
}

/// The timestamp that a message begins with.
pub(super) fn timestamp(message: &[u8]) -> Option<&[u8]> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    Some(&message[..end])
}

/// The second that a message begins with.
pub(super) fn second_of(message: &[u8]) -> Option<i32> {
    let time = std::str::from_utf8(timestamp(message)?).ok()?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i32::try_from(time.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::engine_error;

    #[test]
    fn tells_the_engines_complaint_from_a_console() {
        let complaint = b"\x03\0\0\0\0\0\0\x1dError grabbing logs: EOF\n";
        assert_eq!(
            engine_error(complaint).as_deref(),
            Some("Error grabbing logs: EOF")
        );
        assert_eq!(engine_error(b"2024-01-01T12:00:00Z x\r\n"), None);
        assert_eq!(engine_error(b"\x03"), None);
    }
}
