//! Publishing one message, until the server has said that it has it.

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

/// How long the stream keeps what it is sent, where the agent creates it, and how many bytes.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
const KEPT_BYTES: i64 = 1 << 30;
/// How long it knows messages by their ids: an outage that is longer may have a message stored twice.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same where nothing but a connection that is dead would keep it from answering.
const ECHO_WITHIN: Duration = Duration::from_secs(60);
/// Of what a server, or the stream, accepts as a message so much is left for headers, in bytes, where there is enough.
const FOR_HEADERS: usize = 1024;
/// So much should a message hold: the longest log line, and what belongs to it.
const ENOUGH: usize = 20 * 1024;
/// The headers as they are sent, but for the message's id.
const HEADERS: usize =
    "NATS/1.0\r\nNats-Msg-Id: .4294967295\r\n: 18446744073709551615\r\n\r\n".len() + DROPPED.len();

/// How messages are published.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) client: Client,
    /// Whether a server has refused to let the agent send itself a message. That is so with the permissions that suffice, and most
    /// likely again with the next connection.
    pub(super) echo_refused: watch::Receiver<bool>,
    /// The stream that keeps events and log lines; none where there is none.
    pub(super) kept: Option<Arc<StreamHandle>>,
}

/// The stream, and how it is reached.
#[derive(Debug)]
pub(super) struct StreamHandle {
    context: Context,
    stream: Stream,
}

/// What is to be known of a server before anything but snapshots is published.
#[derive(Debug)]
pub(super) enum Prepared {
    /// The stream is there. With what is odd about it.
    Stream(Arc<StreamHandle>, Option<String>),
    /// There is none that would do: why.
    NoStream(String),
    /// Nobody answers who could have one: why. It may be that the way there is interrupted, as that from a leaf node to its hub.
    NoJetStream(String),
    /// It cannot be told now: why.
    NotYet(String),
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody keeps what is published as its subject.
    #[error("the stream is gone")]
    NoStream,
    /// It is longer than the server, or the stream, takes it, whatever was said before.
    #[error("longer than a message may be")]
    TooLong,
    /// Something else.
    #[error(transparent)]
    Other(async_nats::Error),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublishOutcome {
    /// How many lines of it are lost, or were lost before, without a message that says so.
    pub(super) unsaid: u64,
    /// How many lines or events were left out, as no message may be so long.
    pub(super) too_long: u64,
}

impl Route {
    /// The longest message that is taken, with its headers.
    pub(super) fn longest_message(&self) -> usize {
        let of_server = self.client.max_payload();
        let of_stream = self.kept.as_ref().and_then(|kept| kept.longest_message());
        of_stream.map_or(of_server, |of_stream| of_stream.min(of_server))
    }

    /// How long a text of log lines should be at most.
    pub(super) fn longest(&self, id: &str) -> usize {
        let most = self.longest_message();
        match most > ENOUGH {
            true => most - FOR_HEADERS,
            false => self.longest_line(id),
        }
    }

    /// The longest text that a message can hold.
    fn longest_line(&self, id: &str) -> usize {
        self.longest_message().saturating_sub(HEADERS + id.len())
    }
}

impl Failure {
    fn other(error: impl Into<async_nats::Error>) -> Self {
        Self::Other(error.into())
    }
}

/// Looks for the stream, and creates it where it is not there.
pub(super) async fn prepare(client: Client, subjects: Subjects) -> Prepared {
    let context = ContextBuilder::new().timeout(ANSWER_WITHIN).build(client);
    let error = match context.get_stream(STREAM).await {
        Ok(stream) => return judge(context, stream, &subjects),
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
        max_age: KEPT_FOR,
        max_bytes: KEPT_BYTES,
        duplicate_window: KNOWN_FOR,
        allow_direct: true,
        ..Config::default()
    };
    match context.create_stream(config).await {
        Ok(stream) => Prepared::Stream(StreamHandle::new(context, stream), None),
        Err(error) => match error.kind() {
            // Another agent was faster, or the cluster has no leader at the moment.
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

/// Whether a stream that was there before will do.
fn judge(context: Context, stream: Stream, subjects: &Subjects) -> Prepared {
    let config = &stream.cached_info().config;
    let keeps = |subject: &str| config.subjects.iter().any(|kept| covers(kept, subject));
    let mut kept = config.subjects.clone();
    kept.sort();
    let listed = kept.join(", ");
    if config.no_ack {
        return Prepared::NoStream(format!("stream {STREAM} does not acknowledge"));
    }
    if !keeps(&subjects.events()) || !keeps(&subjects.logs("a")) {
        return Prepared::NoStream(format!(
            "stream {STREAM} keeps {listed}, not {}",
            KEPT.join(", ")
        ));
    }
    let small = longest_message(config).filter(|&most| most < ENOUGH);
    let small = small.map(|most| {
        format!(
            "stream {STREAM} takes messages of at most {most} bytes (max_msg_size): log lines and events that are longer are \
             left out and counted"
        )
    });
    let other = (kept != KEPT).then(|| {
        let too = match keeps(&subjects.snapshot()) {
            true => ", and so every snapshot, too",
            false => "",
        };
        format!(
            "stream {STREAM} keeps {listed}{too}; expected: {}",
            KEPT.join(", ")
        )
    });
    let odd: Vec<String> = small.into_iter().chain(other).collect();
    let odd = (!odd.is_empty()).then(|| odd.join("; "));
    Prepared::Stream(StreamHandle::new(context, stream), odd)
}

fn longest_message(config: &Config) -> Option<usize> {
    // Where it is not limited that is -1, or 0.
    let most = usize::try_from(config.max_message_size).ok();
    most.filter(|&most| most > 0)
}

impl StreamHandle {
    fn new(context: Context, stream: Stream) -> Arc<Self> {
        Arc::new(Self { context, stream })
    }

    /// The longest message that it takes, with its headers; none where that is not limited.
    fn longest_message(&self) -> Option<usize> {
        longest_message(&self.stream.cached_info().config)
    }
}

/// Publishes a snapshot, and waits until the server has it: no other one is on its way until then.
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
            "larger than the server's max_payload: set NATS_ENCODING to zstd, or fewer NATS_SECTIONS, or raise it there",
        ),
        _ => Failure::other(error),
    })?;
    confirm(&route).await
}

/// Publishes an event or log lines, in as many messages as it takes, and waits until the server has them. `id` tells them from
/// all others. No message has more than `longest` of text, unless it is a single line and not `strict`.
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
            // No message can hold it.
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
        unsaid: dropped,
        too_long,
    })
}

/// Publishes to the stream, and waits until it is stored.
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

/// The last line of a log that the stream has, from an agent that ran before.
pub(super) async fn last_line(
    kept: Arc<StreamHandle>,
    subject: Arc<str>,
) -> Result<Option<String>, Failure> {
    let stream = &kept.stream;
    let message = if stream.cached_info().config.allow_direct {
        // The subject is a part of what is asked for, and so of what an agent may ask for.
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

/// Waits until the server has taken in all that was sent to it before: a message to the agent itself comes back after that. Where
/// the server does not allow that, until all is on its way.
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
            echo = timeout(ECHO_WITHIN, echo.next()) => return match echo {
                Ok(Some(_)) => Ok(()),
                _ => Err(Failure::other("no answer")),
            },
            Ok(_) = refused.wait_for(|&refused| refused) => {}
        }
    }
    client.flush().await.map_err(Failure::other)
}
