//! Publishes one message, and waits until the server confirms the message. Also finds or creates the stream that stores events
//! and log lines.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{
    ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind,
    RequestError, RequestErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

use super::news::{last_of, pieces};
use super::queue::{MessageKind, QueuedMessage};
use super::subject::{DROPPED, KEPT, STREAM, Subjects, covers};

/// Limit on the age of stored messages in a stream that the agent creates.
const STREAM_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Limit on the total size of stored messages in a stream that the agent creates, in bytes.
const STREAM_MAX_BYTES: i64 = 1 << 30;
/// Time for which a stream that the agent creates remembers the ids of messages. After a longer outage, the stream can store a
/// message twice.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// Timeout for the answer of the server to a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for a message that the agent sends to itself through the server. If the message does not arrive in this time,
/// publishing has failed.
const ECHO_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of bytes that are reserved for headers in a message with log lines. If the limit on the length of a message is low,
/// only the necessary number of bytes is reserved.
const HEADER_RESERVE: usize = 1024;
/// Length of a message that can contain the longest log line and all headers, in bytes.
const SUFFICIENT_LENGTH: usize = 20 * 1024;
/// Maximum length of the headers in the format in which they are sent, in bytes. The message's id is not included.
const HEADERS: usize =
    "NATS/1.0\r\nNats-Msg-Id: .4294967295\r\n: 18446744073709551615\r\n\r\n".len() + DROPPED.len();

/// The connection, and the stream that stores messages.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) client: Client,
    /// Whether a server has refused a message from the agent to itself. The minimum permissions for an agent do not allow such
    /// messages, so every other server will most likely refuse such messages too.
    pub(super) echo_refused: watch::Receiver<bool>,
    /// The stream that stores events and log lines. None if there is no stream.
    pub(super) kept: Option<Arc<StreamHandle>>,
}

/// The stream, and the JetStream context for requests to it.
#[derive(Debug)]
pub(super) struct StreamHandle {
    context: Context,
    stream: Stream,
}

/// The result of a search for the stream.
#[derive(Debug)]
pub(super) enum Prepared {
    /// The stream exists. The text describes how the stream differs from the expected configuration. None if it does not differ.
    Stream(Arc<StreamHandle>, Option<String>),
    /// There is no usable stream. The text is the reason.
    NoStream(String),
    /// JetStream does not answer, or is not enabled. The text is the reason. A possible cause is an interrupted connection to
    /// JetStream, for example from a leaf node to its hub.
    NoJetStream(String),
    /// The agent does not know yet whether there is a stream. The text is the reason.
    NotYet(String),
}

/// The reason why a message was not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No stream stores messages of this subject.
    #[error("the stream is gone")]
    NoStream,
    /// The server or the stream refuses the message as too long, although the message is not longer than the known limit.
    #[error("the message is too long for the server or the stream")]
    TooLong,
    /// Another error.
    #[error(transparent)]
    Other(async_nats::Error),
}

/// The result of publishing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublishOutcome {
    /// Number of log lines or events that were dropped and are not reported by a published message. The dropped log lines or
    /// events belong to this message or came before this message.
    pub(super) unreported: u64,
    /// Number of log lines or events that were dropped because they are too long for a message.
    pub(super) too_long: u64,
}

impl Route {
    /// Returns the limit on the length of a message with its headers, in bytes.
    pub(super) fn longest_message(&self) -> usize {
        let of_server = self.client.max_payload();
        let of_stream = self.kept.as_ref().and_then(|kept| kept.longest_message());
        of_stream.map_or(of_server, |of_stream| of_stream.min(of_server))
    }

    /// Returns the limit on the text of a message with log lines, in bytes. `id` is the message's id.
    pub(super) fn longest(&self, id: &str) -> usize {
        let most = self.longest_message();
        match most > SUFFICIENT_LENGTH {
            true => most - HEADER_RESERVE,
            false => self.longest_line(id),
        }
    }

    /// Returns the limit on the length of a single log line or event, in bytes.
    fn longest_line(&self, id: &str) -> usize {
        self.longest_message().saturating_sub(HEADERS + id.len())
    }
}

impl Failure {
    fn other(error: impl Into<async_nats::Error>) -> Self {
        Self::Other(error.into())
    }
}

/// Looks for the stream. Creates the stream if it does not exist.
pub(super) async fn prepare(client: Client, subjects: Subjects) -> Prepared {
    let context = ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(client);
    let error = match context.get_stream(STREAM).await {
        Ok(stream) => return check_stream(context, stream, &subjects),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => create(context).await,
            ErrorCode::JETSTREAM_NOT_ENABLED
            | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            | ErrorCode::NO_ACCOUNT => Prepared::NoJetStream("JetStream is not enabled".to_owned()),
            _ => Prepared::NotYet(error.to_string()),
        },
        _ => {
            let cause = error
                .source()
                .and_then(|source| source.downcast_ref::<RequestError>());
            match cause.map(RequestError::kind) {
                Some(RequestErrorKind::NoResponders) => {
                    Prepared::NoJetStream("the server has no JetStream".to_owned())
                }
                _ => Prepared::NotYet(error.to_string()),
            }
        }
    }
}

async fn create(context: Context) -> Prepared {
    let config = Config {
        name: STREAM.to_owned(),
        description: Some("Container events and log lines of system agents".to_owned()),
        subjects: KEPT.map(str::to_owned).to_vec(),
        max_age: STREAM_MAX_AGE,
        max_bytes: STREAM_MAX_BYTES,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    };
    match context.create_stream(config).await {
        Ok(stream) => Prepared::Stream(StreamHandle::new(context, stream), None),
        Err(error) => match error.kind() {
            // The two excluded errors are temporary. Either another agent has just created the stream, or the cluster has no
            // leader now.
            CreateStreamErrorKind::JetStream(error)
                if !matches!(
                    error.error_code(),
                    ErrorCode::STREAM_NAME_EXIST | ErrorCode::CLUSTER_NOT_AVAILABLE
                ) =>
            {
                Prepared::NoStream(format!("stream {STREAM} cannot be created: {error}"))
            }
            _ => Prepared::NotYet(error.to_string()),
        },
    }
}

/// Checks whether an existing stream is usable.
fn check_stream(context: Context, stream: Stream, subjects: &Subjects) -> Prepared {
    let config = &stream.cached_info().config;
    let keeps = |subject: &str| config.subjects.iter().any(|kept| covers(kept, subject));
    let mut kept = config.subjects.clone();
    kept.sort();
    let listed = kept.join(", ");
    if config.no_ack {
        return Prepared::NoStream(format!("stream {STREAM} does not acknowledge messages"));
    }
    if !keeps(&subjects.events()) || !keeps(&subjects.logs("a")) {
        return Prepared::NoStream(format!(
            "stream {STREAM} keeps {listed}, not {}",
            KEPT.join(", ")
        ));
    }
    let small = longest_message(config).filter(|&most| most < SUFFICIENT_LENGTH);
    let small = small.map(|most| {
        format!(
            "stream {STREAM} accepts messages of at most {most} bytes (max_msg_size): longer log lines and events are \
             dropped and counted"
        )
    });
    let other = (kept != KEPT).then(|| {
        let too = match keeps(&subjects.snapshot()) {
            true => ", so it also keeps every snapshot",
            false => "",
        };
        format!(
            "stream {STREAM} keeps {listed}{too}; expected: {}",
            KEPT.join(", ")
        )
    });
    let differences: Vec<String> = small.into_iter().chain(other).collect();
    let differences = (!differences.is_empty()).then(|| differences.join("; "));
    Prepared::Stream(StreamHandle::new(context, stream), differences)
}

fn longest_message(config: &Config) -> Option<usize> {
    // If there is no limit, the server reports -1 or 0.
    let most = usize::try_from(config.max_message_size).ok();
    most.filter(|&most| most > 0)
}

impl StreamHandle {
    fn new(context: Context, stream: Stream) -> Arc<Self> {
        Arc::new(Self { context, stream })
    }

    /// Returns the stream's limit on the length of a message with its headers, in bytes. Returns None if there is no limit.
    fn longest_message(&self) -> Option<usize> {
        longest_message(&self.stream.cached_info().config)
    }
}

/// Publishes a snapshot, and waits until the server has received the snapshot.
pub(super) async fn publish_snapshot(
    route: Route,
    subject: String,
    line: Bytes,
    packed: bool,
) -> Result<(), Failure> {
    let client = &route.client;
    let published = if packed {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Encoding", "zstd");
        client.publish_with_headers(subject, headers, line).await
    } else {
        client.publish(subject, line).await
    };
    published.map_err(|error| match error.kind() {
        async_nats::PublishErrorKind::MaxPayloadExceeded => Failure::other(
            "larger than the server's max_payload: set NATS_ENCODING to zstd, set fewer NATS_SECTIONS, or raise max_payload",
        ),
        _ => Failure::other(error),
    })?;
    confirm(&route).await
}

/// Publishes an event or log lines in one or more messages, and waits until the server has received all of these messages.
///
/// `id` is unique, so that the stream can recognize repeated messages. `longest` is the limit on the text of a message, in bytes.
/// A single log line can be longer than `longest`, up to the server's limit. If `strict` is true, such a log line is dropped.
pub(super) async fn publish(
    route: Route,
    id: String,
    outgoing: QueuedMessage,
    longest: usize,
    strict: bool,
) -> Result<PublishOutcome, Failure> {
    let QueuedMessage {
        subject,
        text,
        mut dropped,
        kind,
        ..
    } = outgoing;
    let pieces = match kind {
        MessageKind::Event => vec![(0..text.len(), 1)],
        MessageKind::Lines | MessageKind::Tail => pieces(&text, longest),
    };
    let whole = pieces.len() == 1;
    let longest_line = match strict {
        true => longest,
        false => longest.max(route.longest_line(&id)),
    };
    let mut too_long = 0;
    for (index, (piece, lines)) in pieces.into_iter().enumerate() {
        if piece.len() > longest_line {
            // No message can hold this log line or event.
            dropped += lines;
            too_long += lines;
            continue;
        }
        let mut headers = HeaderMap::new();
        match whole {
            true => headers.insert("Nats-Msg-Id", id.as_str()),
            false => headers.insert("Nats-Msg-Id", format!("{id}.{index}")),
        }
        if dropped > 0 {
            headers.insert(DROPPED, dropped.to_string());
        }
        let piece = text.slice(piece);
        match &route.kept {
            Some(kept) => store(kept, &subject, headers, piece).await?,
            None => {
                let client = &route.client;
                let subject = subject.to_string();
                let published = client.publish_with_headers(subject, headers, piece).await;
                published.map_err(|error| match error.kind() {
                    async_nats::PublishErrorKind::MaxPayloadExceeded => Failure::TooLong,
                    _ => Failure::other(error),
                })?;
            }
        }
        dropped = 0;
    }
    if route.kept.is_none() {
        confirm(&route).await?;
    }
    Ok(PublishOutcome {
        unreported: dropped,
        too_long,
    })
}

/// Publishes a message to the stream, and waits until the stream has stored the message.
async fn store(
    kept: &StreamHandle,
    subject: &str,
    headers: HeaderMap,
    text: Bytes,
) -> Result<(), Failure> {
    let message = PublishMessage::build().headers(headers).payload(text);
    let failure = |error: PublishError| match error.kind() {
        PublishErrorKind::StreamNotFound => Failure::NoStream,
        PublishErrorKind::MaxPayloadExceeded => Failure::TooLong,
        _ if is_too_long(&error) => Failure::TooLong,
        _ => Failure::other(error),
    };
    let sent = kept.context.send_publish(subject.to_owned(), message).await;
    sent.map_err(failure)?.await.map_err(failure)?;
    Ok(())
}

/// Whether the stream has refused a message because of its length.
fn is_too_long(error: &PublishError) -> bool {
    let cause = error.source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<async_nats::jetstream::Error>());
    cause.is_some_and(|cause| {
        let code = cause.error_code();
        code == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            || code == ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
    })
}

/// Returns the newest log line of a subject in the stream. An earlier run of the agent has published this log line. Returns None
/// if the stream has no log line of the subject.
pub(super) async fn last_line(
    kept: Arc<StreamHandle>,
    subject: Arc<str>,
) -> Result<Option<String>, Failure> {
    let stream = &kept.stream;
    let message = if stream.cached_info().config.allow_direct {
        // The subject of this request contains the subject of the log. Therefore, permissions can restrict the request to one
        // host.
        match stream.direct_get_last_for_subject(&*subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::other(error)),
        }
    } else {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(None);
            }
            Err(error) => return Err(Failure::other(error)),
        }
    };
    let text = String::from_utf8_lossy(&message.payload);
    Ok(last_of(&text).map(str::to_owned))
}

/// Waits until the server has received all earlier messages.
///
/// Sends a message to the agent itself. The server returns this message only after it has received the earlier messages. If the
/// server does not allow a message to the agent itself, waits only until all messages are written to the connection.
async fn confirm(route: &Route) -> Result<(), Failure> {
    let client = &route.client;
    let mut refused = route.echo_refused.clone();
    let known = *refused.borrow();
    if !known {
        let inbox = client.new_inbox();
        let mut echo = client
            .subscribe(inbox.clone())
            .await
            .map_err(Failure::other)?;
        client
            .publish(inbox, Bytes::new())
            .await
            .map_err(Failure::other)?;
        tokio::select! {
            echo = timeout(ECHO_TIMEOUT, echo.next()) => return match echo {
                Ok(Some(_)) => Ok(()),
                _ => Err(Failure::other("no answer from the server")),
            },
            Ok(_) = refused.wait_for(|&refused| refused) => {}
        }
    }
    client.flush().await.map_err(Failure::other)
}
