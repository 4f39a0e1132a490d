//! The HTTP client: one connection to a receiver, which is used again for the next request.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use libdeflater::{CompressionLvl, Compressor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http_connection::{USER_AGENT_VALUE, connect, plain};
use crate::publish::server_tls;
use crate::settings::{OtlpCompression, OtlpTarget};

/// Limit on an answer, in bytes. Receivers answer with a few bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Limit on the text of an error from a receiver, in bytes.
const MAX_REASON: usize = 200;
/// The longest time that the agent waits because a receiver asks for it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The level of gzip. Higher levels gain little with metrics, which repeat themselves.
const GZIP_LEVEL: i32 = 1;

/// Sends requests to one receiver.
pub(super) struct Client {
    target: OtlpTarget,
    tls: Option<TlsConnector>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// The reason why a receiver has not accepted a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct SendFailure {
    pub(super) reason: String,
    pub(super) kind: FailureKind,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The same request can succeed later. The value is the time that the receiver asks the agent to wait.
    Temporary(Option<Duration>),
    /// The receiver refuses the agent or its URL, not the contents. The contents can be sent after a change of the settings.
    Denied,
    /// The request is too large.
    TooLarge,
    /// The receiver refuses the contents. The same request never succeeds.
    Rejected,
}

impl Client {
    /// Creates a client.
    ///
    /// # Errors
    /// Fails if a file of certificates cannot be used.
    pub(super) fn new(target: OtlpTarget) -> io::Result<Self> {
        let identity = target.identity.as_ref();
        let identity = identity.map(|(certificate, key)| (&**certificate, &**key));
        let tls = match target.url.tls {
            true => Some(connector(target.ca.as_deref(), identity)?),
            false => None,
        };
        Ok(Self {
            target,
            tls,
            connection: None,
        })
    }

    /// Returns the URL of the receiver.
    pub(super) fn url(&self) -> String {
        self.target.url.to_string()
    }

    /// Compresses the contents of a request as the settings say.
    ///
    /// # Errors
    /// Fails if the compressor fails. This is not expected, because it writes to memory.
    pub(super) fn compress(&self, contents: Vec<u8>) -> io::Result<Bytes> {
        match self.target.compression {
            OtlpCompression::None => Ok(contents.into()),
            OtlpCompression::Zstd => Ok(zstd::bulk::compress(&contents, 1)?.into()),
            OtlpCompression::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).unwrap_or_default();
                let mut compressor = Compressor::new(level);
                let mut compressed = vec![0; compressor.gzip_compress_bound(contents.len())];
                let length = compressor
                    .gzip_compress(&contents, &mut compressed)
                    .map_err(io::Error::other)?;
                Ok(Bytes::copy_from_slice(&compressed[..length]))
            }
        }
    }

    /// Sends compressed contents, and returns the answer of the receiver.
    ///
    /// # Errors
    /// Fails if the receiver does not accept the request within the timeout.
    pub(super) async fn send(&mut self, contents: Bytes) -> Result<Bytes, SendFailure> {
        let is_reused = self.connection.is_some();
        let limit = self.target.timeout;
        let answered = match timeout(limit, self.exchange(contents.clone())).await {
            // A receiver closes a connection that it has not used for some time.
            Ok(Err(_)) if is_reused => {
                self.connection = None;
                timeout(limit, self.exchange(contents)).await
            }
            answered => answered,
        };
        let failure = |reason: String| SendFailure {
            reason,
            kind: FailureKind::Temporary(None),
        };
        match answered {
            Ok(Ok((status, answer, after))) => verdict(status, answer, after),
            Ok(Err(error)) => {
                self.connection = None;
                Err(failure(error.to_string()))
            }
            Err(_) => {
                self.connection = None;
                Err(failure(format!("no answer within {limit:?}")))
            }
        }
    }

    async fn exchange(
        &mut self,
        contents: Bytes,
    ) -> io::Result<(StatusCode, Bytes, Option<Duration>)> {
        let request = self.request(contents)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.target.url, self.tls.as_ref()).await?,
        };
        connection.ready().await.map_err(|error| plain(&error))?;
        let answer = connection
            .send_request(request)
            .await
            .map_err(|error| plain(&error))?;
        let (status, after) = (answer.status(), retry_after(&answer));
        let answer = Limited::new(answer.into_body(), MAX_ANSWER);
        let answer = answer.collect().await.map_err(io::Error::other)?;
        self.connection = Some(connection);
        Ok((status, answer.to_bytes(), after))
    }

    fn request(&self, contents: Bytes) -> io::Result<Request<Full<Bytes>>> {
        let url = &self.target.url;
        let mut request = Request::post(&url.path)
            .body(Full::new(contents))
            .map_err(io::Error::other)?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&url.authority()).map_err(io::Error::other)?;
        headers.insert(HOST, host);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        if let Some(encoding) = self.target.compression.name() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let own = self.target.headers.load().map_err(io::Error::other)?;
        own.add_to(headers);
        Ok(request)
    }
}

fn connector(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> io::Result<TlsConnector> {
    let config = server_tls::client_config(ca, identity);
    let config = config.ok_or_else(|| io::Error::other("a file of certificates cannot be used"))?;
    Ok(TlsConnector::from(std::sync::Arc::new(config)))
}

/// Returns the time that an answer asks the agent to wait.
fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wait_of(text.trim(), OffsetDateTime::now_utc())
}

/// Reads a number of seconds, or a date.
fn wait_of(text: &str, now: OffsetDateTime) -> Option<Duration> {
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            // A date in a header ends with `GMT`, which RFC 2822 calls `+0000`.
            let date = text.replace("GMT", "+0000");
            let date = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
            (date - now).try_into().unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Decides by the status of an answer what happens with the request. The specification of OTLP names the statuses after which a
/// client repeats a request.
fn verdict(
    status: StatusCode,
    answer: Bytes,
    after: Option<Duration>,
) -> Result<Bytes, SendFailure> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(answer),
        429 | 502..=504 => FailureKind::Temporary(after),
        300..=399 | 401 | 403..=405 | 407 => FailureKind::Denied,
        413 => FailureKind::TooLarge,
        _ => FailureKind::Rejected,
    };
    let reason = match said(&answer) {
        Some(text) => format!("{status}: {text}"),
        None => status.to_string(),
    };
    Err(SendFailure { reason, kind })
}

/// Returns the text in the answer of a receiver. The answer is plain text or a `Status` of protobuf, whose message is readable too.
fn said(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let text: String = text
        .chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    let text = text.trim();
    let end = text.floor_char_boundary(MAX_REASON);
    (!text.is_empty()).then(|| text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::StatusCode;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::{FailureKind, MAX_RETRY_AFTER, verdict, wait_of};

    #[test]
    fn only_the_statuses_of_the_specification_are_repeated() {
        let kind = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            let after = Some(Duration::from_secs(7));
            verdict(status, Bytes::new(), after).map_err(|failure| failure.kind)
        };
        for status in [200, 202, 204] {
            assert_eq!(kind(status), Ok(Bytes::new()));
        }
        for status in [429, 502, 503, 504] {
            let temporary = FailureKind::Temporary(Some(Duration::from_secs(7)));
            assert_eq!(kind(status), Err(temporary), "{status}");
        }
        for status in [301, 401, 403, 404, 405, 407] {
            assert_eq!(kind(status), Err(FailureKind::Denied), "{status}");
        }
        assert_eq!(kind(413), Err(FailureKind::TooLarge));
        for status in [400, 408, 415, 422, 500, 501] {
            assert_eq!(kind(status), Err(FailureKind::Rejected), "{status}");
        }
    }

    #[test]
    fn the_reason_of_the_receiver_is_one_short_line() {
        let answer = Bytes::from(format!("out of\norder {}", "ä".repeat(400)));
        let failure = verdict(StatusCode::BAD_REQUEST, answer, None).unwrap_err();
        assert!(
            failure
                .reason
                .starts_with("400 Bad Request: out of order ä")
        );
        assert!(failure.reason.len() < 230 && !failure.reason.contains('\n'));
    }

    #[test]
    fn the_wait_is_a_number_of_seconds_or_a_date() {
        let now = OffsetDateTime::parse("2026-01-01T00:00:00Z", &Rfc3339).unwrap();
        for (text, expected) in [
            ("0", Some(0)),
            ("30", Some(30)),
            ("99999", Some(MAX_RETRY_AFTER.as_secs())),
            ("Thu, 01 Jan 2026 00:00:20 GMT", Some(20)),
            ("Wed, 31 Dec 2025 23:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                wait_of(text, now),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
