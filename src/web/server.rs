//! The HTTP server of the page: connections, TLS, HTTP/1.1 and HTTP/2, and the headers of all answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::api::{self, App, Peer, failure};
use super::auth::User;

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 1024;
/// Maximum number of concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Limit on the length of a request's head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Limit on the time in which the head of a request must arrive, and on the idle time of a connection with HTTP/1.1.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit on the time of a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// If a browser accepts no data for this time, its connection ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The interval of the pings of HTTP/2, and the timeout of their answers.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// When the server stops, requests have this time to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed accept, for example while there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The content security policy: everything comes from this server, and no script or style is inline.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Accepts connections until `stop` is cancelled.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    app: Arc<App>,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router(app));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut was_full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            if !was_full {
                warn!(
                    limit = MAX_CONNECTIONS,
                    "too many connections to the page: new ones are closed"
                );
            }
            was_full = true;
            continue;
        };
        was_full = false;
        let connection = Connection {
            service: service.clone(),
            peer: peer.ip().to_canonical(),
            stop: stop.clone(),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            connection.serve(stream, tls).await;
            drop(permit);
        });
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    // The streams of open pages end only with the process.
    let _ = timeout(STOP_TIMEOUT, permits.acquire_many(all)).await;
}

struct Connection {
    service: TowerToHyperService<Router>,
    peer: IpAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        // If these options cannot be set, the connection only ends later.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
        let Some(tls) = tls else {
            return self.converse(stream).await;
        };
        match timeout(TLS_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => {
                debug!(peer = %self.peer, %error, "TLS handshake with a browser failed");
            }
            Err(_) => {
                debug!(peer = %self.peer, "TLS handshake with a browser not completed in time");
            }
        }
    }

    async fn converse<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (service, peer) = (self.service, self.peer);
        let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
            request.extensions_mut().insert(Peer(peer));
            service.call(request)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // The browser has closed its connection, or was idle for too long.
        if let Err(error) = ended {
            debug!(%error, "connection of a browser ended");
        }
    }
}

fn router(app: Arc<App>) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&app), guard);
    api::routes().with_state(app).layer(guard)
}

/// Refuses requests without a login and requests of other sites, and sets the headers of all answers.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let is_secure = api::is_encrypted(&app, &request);
    let mut response = match refusal(&app, &mut request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    let others = header::HeaderName::from_static("cross-origin-resource-policy");
    set(others, "same-origin");
    if is_secure {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Returns the answer to a request that is not allowed.
fn refusal(app: &App, request: &mut Request) -> Option<Response> {
    // Without a login, a page of another site must not reach this server by a name that it has directed to 127.0.0.1.
    if !app.auth.is_needed() && !api::is_local_name(request) {
        return Some(failure(
            StatusCode::FORBIDDEN,
            "without a password, this server answers only at 127.0.0.1, [::1] and localhost",
        ));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !api::is_same_site(app, request)
    {
        return Some(failure(
            StatusCode::FORBIDDEN,
            "the request comes from another site; accepted: requests of this server's own page",
        ));
    }
    let peer = request.extensions().get::<Peer>()?.0;
    let user = app.auth.user(request.headers(), peer);
    if let Some(user) = user {
        request.extensions_mut().insert::<User>(user);
    }
    let is_open = !request.uri().path().starts_with("/api/")
        || matches!(
            request.uri().path(),
            "/api/v1/session" | "/api/v1/login" | "/api/v1/logout"
        );
    (user.is_none() && !is_open)
        .then(|| failure(StatusCode::UNAUTHORIZED, "log in first: POST /api/v1/login"))
}
