//! Server-sent events.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::web::page::accepts_gzip;

/// The pause after which a comment shows that the stream is alive.
pub(super) const ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Number of events that wait for the browser. The producer waits for a slow browser.
const MAX_WAITING: usize = 2;
/// If a browser reads nothing for this time, its stream ends.
const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest id. A browser sends the id back in a header.
const LONGEST_ID: usize = 6000;

/// The sending side of an event stream.
pub(super) struct Events {
    sender: Sender<Bytes>,
    /// None if the browser does not accept gzip.
    encoder: Option<Mutex<GzEncoder<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

/// The browser has gone, or reads nothing.
pub(super) struct Gone;

impl Events {
    /// Starts an event stream. `headers` are those of the request. None if there are too many.
    pub(super) fn start(permits: &Arc<Semaphore>, headers: &HeaderMap) -> Option<(Self, Response)> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let mut answer = Response::new(body(receiver));
        let all = answer.headers_mut();
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        all.insert(header::CONTENT_TYPE, kind);
        // Proxies such as nginx must not collect the events.
        all.insert("x-accel-buffering", HeaderValue::from_static("no"));
        all.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        let encoder = accepts_gzip(headers).then(|| {
            all.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Mutex::new(GzEncoder::new(Vec::new(), Compression::fast()))
        });
        let events = Self {
            sender,
            encoder,
            _permit: permit,
        };
        Some((events, answer))
    }

    /// Sends an event with one line of JSON. An id that is too long is left out.
    pub(super) async fn send(&self, name: &str, id: Option<&str>, json: &[u8]) -> Result<(), Gone> {
        let mut event = Vec::with_capacity(json.len() + 64);
        event.extend_from_slice(b"event: ");
        event.extend_from_slice(name.as_bytes());
        if let Some(id) = id.filter(|id| id.len() <= LONGEST_ID) {
            event.extend_from_slice(b"\nid: ");
            event.extend_from_slice(id.as_bytes());
        }
        event.extend_from_slice(b"\ndata: ");
        event.extend_from_slice(json);
        event.extend_from_slice(b"\n\n");
        self.send_text(event.into()).await
    }

    /// Sends a comment.
    pub(super) async fn alive(&self) -> Result<(), Gone> {
        self.send_text(Bytes::from_static(b":\n\n")).await
    }

    async fn send_text(&self, text: Bytes) -> Result<(), Gone> {
        let text = match &self.encoder {
            Some(encoder) => {
                let mut encoder = encoder.lock().unwrap_or_else(PoisonError::into_inner);
                // The flush makes the whole event readable. Writing to memory does not fail.
                let written = encoder.write_all(&text).and_then(|()| encoder.flush());
                written.map_err(|_| Gone)?;
                std::mem::take(encoder.get_mut()).into()
            }
            None => text,
        };
        match timeout(SLOW_TIMEOUT, self.sender.send(text)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Waits until the browser has read enough for the next event.
    pub(super) async fn ready(&self) -> Result<(), Gone> {
        match timeout(SLOW_TIMEOUT, self.sender.reserve()).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Waits until the browser has gone.
    pub(super) async fn gone(&self) {
        self.sender.closed().await;
    }
}

/// Returns a body that has what the channel receives.
pub(super) fn body(receiver: Receiver<Bytes>) -> Body {
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(piece), receiver))
    });
    Body::from_stream(pieces)
}

/// Returns the id of the last event that the browser has received before its connection was cut.
pub(super) fn last_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    Some(id).filter(|id| !id.is_empty())
}
