//! The HTTP server for Prometheus, at `METRICS_PORT`. Serves the figures of the newest snapshot, and the kernel's own figures. A scrape
//! does not start a round of a source. Only the kernel's own figures are read for a scrape, because nobody else needs them.
//!
//! `/metrics` returns the figures. `/healthz` answers 200 if the agent is alive. `/readyz` answers 200 if the agent has a recent
//! snapshot.

mod compression;
mod exposition;
mod format;
mod last_seen;
mod metric_text;
mod stream;
mod textfile;
mod texts;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Recipient;
use actix_rt::ArbiterHandle;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
    HeaderMap, HeaderValue, VARY, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::admission::first_input::{FirstInput, first_input};
use super::admission::inbound::{BindError, Inbound};
use super::admission::{Admission, ConnectionLimits, PendingConnection};
use super::figures::collectors::Choice;
use super::on_request::{OnRequest, ReadFigures};
use crate::messages::{NewestSnapshot, Reports};
use crate::published::Published;
use crate::settings::{ApiKeys, Credentials, ServeSettings};
use compression::Compression;
use exposition::Figures;
use format::Format;
use last_seen::LastSeen;
use stream::ScraperStream;
use texts::Texts;

/// Limit on connections that are not evicted. A scraper needs one connection. At the limit, the oldest silent connection is
/// evicted.
const MAX_CONNECTIONS: usize = 64;
/// Limit on connections, including connections that are evicted but not closed yet.
pub const MOST_SCRAPERS: usize = 2 * MAX_CONNECTIONS;
/// Limit on the length of a request's head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Limit on the idle time of a connection, and on the time in which the head of a request must arrive. Prometheus does not close
/// its connection between two scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Timeout of the aggregator's answer. The agent is alive if the aggregator answers.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// A snapshot is recent if it is not older than this number of intervals plus [`RECENT_MARGIN`].
const RECENT_INTERVALS: u32 = 3;
/// See [`RECENT_INTERVALS`].
const RECENT_MARGIN: Duration = Duration::from_secs(3);

/// The socket for Prometheus.
pub struct Metrics {
    inbound: Inbound,
    /// The admission control for scrapers. The socket for clients has its own admission control. Wrong tokens do not block
    /// clients, and wrong keys do not block scrapers.
    admission: Arc<Admission>,
    shared: Arc<Shared>,
}

/// The state that all connections share.
struct Shared {
    settings: Arc<ServeSettings>,
    credentials: watch::Receiver<Arc<Credentials>>,
    /// The time between two snapshots.
    interval: Duration,
    texts: Texts,
    last_seen: LastSeen,
}

/// A response whose body is in memory.
type HttpResponse = Response<Full<Bytes>>;

impl Metrics {
    /// Opens the socket at `port`, for snapshots every `interval`.
    ///
    /// # Errors
    /// Fails if the address or the port cannot be used.
    pub fn bind(
        port: u16,
        settings: Arc<ServeSettings>,
        credentials: watch::Receiver<Arc<Credentials>>,
        interval: Duration,
        reports: Arc<Reports>,
    ) -> Result<Self, BindError> {
        // A scraper's connection stays pending, because a token authenticates only one request.
        let limits = ConnectionLimits {
            pending: MAX_CONNECTIONS,
            total: usize::MAX,
        };
        Ok(Self {
            inbound: Inbound::open(settings.address, port, "METRICS_PORT")?,
            admission: Admission::new(Arc::clone(&settings), limits, MOST_SCRAPERS, reports),
            shared: Arc::new(Shared {
                settings,
                credentials,
                interval,
                texts: Texts::default(),
                last_seen: LastSeen::default(),
            }),
        })
    }

    /// Returns the local address. If the configured port is 0, the address has the port that the kernel chose.
    ///
    /// # Errors
    /// Fails if the kernel does not return the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inbound.local_addr()
    }

    /// Returns the semaphore with one permit for each possible connection. All permits are available when there is no connection.
    #[must_use]
    pub fn permits(&self) -> Arc<Semaphore> {
        self.admission.client_permits()
    }

    /// Accepts connections until `stop` is cancelled. Serves the connections on `thread`, which serves no clients. `newest` is
    /// the address at which the aggregator returns the newest snapshot. `on_request` has the addresses of all other figures.
    pub async fn run(
        mut self,
        newest: Recipient<NewestSnapshot>,
        on_request: OnRequest,
        thread: ArbiterHandle,
        stop: CancellationToken,
    ) {
        while let Some((stream, mut pending)) = self.inbound.next(&self.admission, &stop).await {
            // These two calls are not in the connection's task. Otherwise, connections could not be evicted until their tasks
            // run, and many new connections would reach the limit.
            pending.start();
            pending.state.set_silent(true);
            // Evicted connections hold their permits until they are closed.
            let Some(permit) = self.admission.client_permit() else {
                self.admission.refused(pending.peer, &"too many scrapers");
                continue;
            };
            let connection = Scraper {
                shared: Arc::clone(&self.shared),
                newest: newest.clone(),
                on_request: on_request.clone(),
                pending,
            };
            let stop = stop.clone();
            thread.spawn(async move {
                let ended = match TcpStream::from_std(stream) {
                    Ok(stream) => connection.serve(stream, &stop).await,
                    Err(error) => Err(error.to_string()),
                };
                if let Err(reason) = ended {
                    let PendingConnection {
                        admission, peer, ..
                    } = &connection.pending;
                    admission.refused(*peer, &reason);
                }
                drop(permit);
            });
        }
    }
}

/// One connection of a scraper.
struct Scraper {
    shared: Arc<Shared>,
    newest: Recipient<NewestSnapshot>,
    on_request: OnRequest,
    pending: PendingConnection,
}

impl Scraper {
    /// Serves the connection until the connection ends, the connection is evicted, or the agent stops. The error is the reason
    /// why the agent refused the connection.
    async fn serve(&self, stream: TcpStream, stop: &CancellationToken) -> Result<(), String> {
        let auth_timeout = self.shared.settings.auth_timeout;
        let admission = &self.pending.admission;
        let tls = self.shared.credentials.borrow().tls.clone();
        let serving = async {
            let Some(tls) = tls else {
                self.converse(stream, stop).await;
                return Ok(());
            };
            match timeout(auth_timeout, first_input(&stream, true, || ())).await {
                Ok(Ok(FirstInput::End)) => {
                    admission.closed_early(self.pending.peer);
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => return Err("TLS handshake not completed in time".to_owned()),
            }
            let handshake = TlsAcceptor::from(tls.server).accept(stream);
            let handshake = timeout(auth_timeout, handshake);
            match admission.tls_handshakes().run(handshake).await {
                Some(Ok(Ok(stream))) => self.converse(stream, stop).await,
                Some(Ok(Err(error))) => return Err(format!("TLS handshake failed: {error}")),
                Some(Err(_)) | None => {
                    return Err("TLS handshake not completed in time".to_owned());
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = Box::pin(serving) => ended,
            () = self.pending.state.evicted() => {
                debug!("scraper's connection evicted");
                Ok(())
            }
        }
    }

    /// Answers the requests of a connection one after another.
    async fn converse<S>(&self, stream: S, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let answering =
            service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let write_timeout = self.shared.settings.write_timeout;
        let state = Arc::clone(&self.pending.state);
        let stream = ScraperStream::new(stream, state, write_timeout);
        let closed_early = stream.closed_early();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), answering);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if closed_early.load(Ordering::Relaxed) {
            self.pending.admission.closed_early(self.pending.peer);
        }
        // This is no error of the agent. The scraper has closed its connection, or was idle for too long.
        if let Err(error) = ended {
            debug!(%error, "scraper's connection ended");
        }
    }

    async fn answer<B>(&self, request: &Request<B>) -> HttpResponse {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return text(
                StatusCode::NOT_FOUND,
                "not found: this server has /metrics, /healthz and /readyz\n",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        if path == "/metrics" && !self.is_allowed(request.headers()) {
            return unauthorized();
        }
        // `/healthz` and `/readyz` need no token.
        let newest = timeout(ALIVE_TIMEOUT, self.newest.send(NewestSnapshot)).await;
        let Ok(Ok(newest)) = newest else {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent does not answer\n",
            );
        };
        match (path, newest) {
            ("/healthz", _) => text(StatusCode::OK, "ok\n"),
            ("/metrics", Some(newest)) => self.figures(&newest, request).await,
            ("/metrics", None) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "there is no snapshot yet\n",
            ),
            (_, newest) => match newest.is_some_and(|newest| self.shared.is_recent(&newest)) {
                true => text(StatusCode::OK, "ok\n"),
                false => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "there is no recent snapshot\n",
                ),
            },
        }
    }

    async fn figures<B>(&self, newest: &Published, request: &Request<B>) -> HttpResponse {
        let choice = match Choice::from_query(request.uri().query().unwrap_or_default()) {
            Ok(choice) => choice,
            Err(error) => return respond(StatusCode::BAD_REQUEST, PLAIN_TEXT, error.into()),
        };
        let mut read = self.on_request.read(newest.snapshot(), &choice).await;
        if choice.has("containers") {
            read.ended = self.shared.last_seen.update(newest.snapshot());
        }
        let answer = self.shared.figures(newest, read, choice, request.headers());
        let shared = Arc::clone(&self.shared);
        actix_rt::spawn(async move {
            sleep(texts::KEPT).await;
            shared.texts.forget_old();
        });
        answer
    }

    /// Whether the request has a right token. Also true if no token is required.
    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let credentials = self.shared.credentials.borrow().clone();
        let Some(tokens) = &credentials.metrics_tokens else {
            return true;
        };
        let Some(shown) = headers.get(AUTHORIZATION) else {
            return false;
        };
        let PendingConnection {
            admission, prefix, ..
        } = &self.pending;
        // The prefix can be blocked after the connection was accepted.
        let is_right = !admission.is_blocked(*prefix) && is_one_of(tokens, shown.as_bytes());
        if is_right {
            admission.right_key(*prefix);
        } else {
            admission.wrong_key(*prefix);
        }
        is_right
    }
}

impl Shared {
    /// Whether a snapshot is recent, see [`RECENT_INTERVALS`].
    fn is_recent(&self, newest: &Published) -> bool {
        newest.at().elapsed() <= self.interval * RECENT_INTERVALS + RECENT_MARGIN
    }

    fn figures(
        &self,
        newest: &Published,
        read: ReadFigures,
        choice: Choice,
        headers: &HeaderMap,
    ) -> HttpResponse {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let format = Format::accepted(header(ACCEPT).unwrap_or_default());
        let compression = Compression::accepted(header(ACCEPT_ENCODING).unwrap_or_default());
        let figures = Figures {
            snapshot: Arc::clone(newest.snapshot()),
            interval: self.interval,
            read,
            choice,
        };
        match self.texts.text(figures, format, compression) {
            Ok(text) => {
                let mut answer = respond(StatusCode::OK, format.content_type(), text);
                let headers = answer.headers_mut();
                headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
                if let Some(name) = compression.name() {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
                }
                answer
            }
            Err(error) => {
                error!(%error, "metrics cannot be written");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the metrics cannot be written\n",
                )
            }
        }
    }
}

/// Whether a header consists of `Bearer`, in upper or lower case, and one of the tokens.
fn is_one_of(tokens: &ApiKeys, header: &[u8]) -> bool {
    const SCHEME: &[u8] = b"Bearer ";
    let Some((scheme, token)) = header.split_at_checked(SCHEME.len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(SCHEME) && tokens.find(token.trim_ascii()).is_some()
}

fn unauthorized() -> HttpResponse {
    let mut answer = text(StatusCode::UNAUTHORIZED, "a bearer token is required\n");
    let scheme = HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    answer
}

fn text(status: StatusCode, text: &'static str) -> HttpResponse {
    let body = Bytes::from_static(text.as_bytes());
    respond(status, PLAIN_TEXT, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> HttpResponse {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use actix::{Actor, Context, Handler, MessageResult, ResponseFuture};
    use hyper::Request;
    use tokio::sync::watch;

    use super::format::Format;
    use super::{
        Admission, ConnectionLimits, LastSeen, MOST_SCRAPERS, OnRequest, Scraper, Shared, Texts,
        is_one_of,
    };
    use crate::messages::{NewestSnapshot, ReadKernel, ReadTextfiles};
    use crate::model::{Kernel, LogSample, Snapshot};
    use crate::published::Published;
    use crate::settings::{ApiKey, ApiKeys, Settings};

    /// A fake aggregator.
    enum Aggregator {
        /// Returns this snapshot as the newest snapshot.
        Has(Option<Arc<Published>>),
        /// Never answers.
        Hangs,
    }

    impl Actor for Aggregator {
        type Context = Context<Self>;
    }

    impl Handler<NewestSnapshot> for Aggregator {
        type Result = ResponseFuture<Option<Arc<Published>>>;

        fn handle(&mut self, _: NewestSnapshot, _: &mut Self::Context) -> Self::Result {
            match self {
                Self::Has(newest) => Box::pin(future::ready(newest.clone())),
                Self::Hangs => Box::pin(future::pending()),
            }
        }
    }

    /// A fake collector of figures for a scrape. There are no text files, and the reading of the kernel's own figures always fails.
    struct NoFigures;

    impl Actor for NoFigures {
        type Context = Context<Self>;
    }

    impl Handler<ReadTextfiles> for NoFigures {
        type Result = MessageResult<ReadTextfiles>;

        fn handle(&mut self, _: ReadTextfiles, _: &mut Self::Context) -> Self::Result {
            MessageResult(Arc::default())
        }
    }

    impl Handler<ReadKernel> for NoFigures {
        type Result = Result<Arc<Kernel>, String>;

        fn handle(&mut self, _: ReadKernel, _: &mut Self::Context) -> Self::Result {
            Err("the reading hangs".to_owned())
        }
    }

    async fn scraper(aggregator: Aggregator) -> Scraper {
        let variables = [("API_KEY", "0123456789abcdef")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let settings = Settings::from_env(variables.into_iter()).unwrap();
        let serve = Arc::new(settings.serve);
        let limits = ConnectionLimits {
            pending: 2,
            total: usize::MAX,
        };
        let admission = Admission::new(Arc::clone(&serve), limits, MOST_SCRAPERS, Arc::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Scraper {
            pending: admission.admit(peer).await.unwrap(),
            shared: Arc::new(Shared {
                settings: serve,
                credentials: watch::channel(Arc::new(settings.credentials)).1,
                interval: Duration::from_secs(5),
                texts: Texts::default(),
                last_seen: LastSeen::default(),
            }),
            newest: aggregator.start().recipient(),
            on_request: OnRequest {
                kernel: NoFigures.start().recipient(),
                textfiles: NoFigures.start().recipient(),
            },
        }
    }

    fn published(seconds_ago: u64, seq: u64) -> Arc<Published> {
        let text = include_str!("../../../tests/fixtures/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(text).unwrap();
        snapshot.agent.seq = seq;
        let at = Instant::now() - Duration::from_secs(seconds_ago);
        let events = (Arc::default(), 0);
        Arc::new(Published::new(
            snapshot,
            LogSample::default(),
            events,
            at,
            None,
        ))
    }

    async fn statuses(aggregator: Aggregator) -> [u16; 3] {
        let scraper = scraper(aggregator).await;
        let mut statuses = [0; 3];
        for (status, path) in statuses.iter_mut().zip(["/healthz", "/readyz", "/metrics"]) {
            let request = Request::get(path).body(()).unwrap();
            *status = scraper.answer(&request).await.status().as_u16();
        }
        statuses
    }

    #[actix::test]
    async fn the_agent_is_alive_if_the_aggregator_answers_and_ready_if_the_snapshot_is_recent() {
        tokio::time::pause();
        let recent = Aggregator::Has(Some(published(1, 1)));
        assert_eq!(statuses(recent).await, [200, 200, 200]);
        let old = Aggregator::Has(Some(published(30, 1)));
        assert_eq!(statuses(old).await, [200, 503, 200]);
        assert_eq!(statuses(Aggregator::Has(None)).await, [200, 503, 503]);
        assert_eq!(statuses(Aggregator::Hangs).await, [503, 503, 503]);
    }

    #[test]
    fn only_a_complete_bearer_token_is_accepted() {
        let keys = ["first-token", "other-token"].map(|key| ApiKey::new("", key).unwrap());
        let tokens = ApiKeys::of(keys.into());
        for (header, is_right) in [
            ("Bearer first-token", true),
            ("bearer  other-token ", true),
            ("Bearer first-toke", false),
            ("Bearer first-token2", false),
            ("Basic first-token", false),
            ("first-token", false),
            ("Bearer ", false),
            ("", false),
        ] {
            assert_eq!(is_one_of(&tokens, header.as_bytes()), is_right, "{header}");
        }
    }

    #[test]
    fn the_scraper_gets_the_format_that_it_prefers() {
        for (accept, format) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("text/plain", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            // The header of Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text;q=0.5",
                Format::Classic,
            ),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("application/openmetrics-text;q=x", Format::Classic),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
