//! The JSON API: `/api/v1/…`. `openapi.json` describes it.

mod history;
mod hosts;
mod lines;
mod logs;
mod session;
mod sse;
mod stream;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::auth::Auth;
use super::hosts::Hosts;
use super::page::{Page, accepts_gzip, gzip};

/// Maximum number of event streams of figures.
const MAX_STREAMS: usize = 256;
/// Maximum number of log streams. Each one has a connection to an agent.
const MAX_LOG_STREAMS: usize = 64;
/// Maximum number of requests for older lines and downloads at a time.
const MAX_READINGS: usize = 8;
/// Answers of at least this length are compressed, in bytes.
const LEAST_COMPRESSED: usize = 1024;
/// The level of gzip for answers.
const LEVEL: i32 = 4;
/// Maximum length of the name of a container or host in a request, in bytes.
const LONGEST_NAME: usize = 512;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What all requests share.
pub(super) struct App {
    pub(super) auth: Arc<Auth>,
    hosts: Arc<Hosts>,
    page: Page,
    /// Identifies this run of the server in the ids of event streams.
    run: String,
    streams: Arc<Semaphore>,
    log_streams: Arc<Semaphore>,
    readings: Arc<Semaphore>,
}

/// The address of the client of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl App {
    pub(super) fn new(auth: Arc<Auth>, hosts: Arc<Hosts>) -> Arc<Self> {
        Arc::new(Self {
            auth,
            hosts,
            page: Page::built(),
            // The run is no secret. It only has to differ from the runs before.
            run: format!("{:x}", super::now()),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            log_streams: Arc::new(Semaphore::new(MAX_LOG_STREAMS)),
            readings: Arc::new(Semaphore::new(MAX_READINGS)),
        })
    }
}

/// Returns the routes of the API and of the page.
pub(super) fn routes() -> Router<Arc<App>> {
    let api = Router::new()
        .route("/session", get(session::session))
        .route("/login", post(session::log_in))
        .route("/logout", post(session::log_out))
        .route("/hosts", get(hosts::list))
        .route("/hosts/{host}", get(hosts::one))
        .route("/hosts/{host}/history", get(history::history))
        .route("/hosts/{host}/series", get(history::series))
        .route("/hosts/{host}/events", get(history::events))
        .route("/hosts/{host}/logs", get(logs::follow))
        .route("/hosts/{host}/logs/older", get(logs::older))
        .route("/hosts/{host}/logs/download", get(logs::download))
        .route("/stream", get(stream::stream))
        .route("/openapi.json", get(openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method);
    Router::new().nest("/api/v1", api).fallback(page)
}

async fn openapi(headers: HeaderMap) -> Response {
    let text = Bytes::from_static(include_bytes!("openapi.json"));
    answer(&headers, text)
}

async fn unknown() -> Response {
    failure(
        StatusCode::NOT_FOUND,
        "there is no such path; /api/v1/openapi.json lists all paths",
    )
}

async fn wrong_method() -> Response {
    failure(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path has no such method; /api/v1/openapi.json lists all methods",
    )
}

async fn page(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    match uri.path().starts_with("/api/") {
        true => unknown().await,
        false => app.page.answer(uri.path(), &headers),
    }
}

/// The body of an answer to a request that failed.
#[derive(Serialize)]
struct Failure<'t> {
    error: &'t str,
}

/// Returns the answer to a request that failed.
pub(super) fn failure(status: StatusCode, text: &str) -> Response {
    let body = serde_json::to_vec(&Failure { error: text }).unwrap_or_default();
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

fn no_such_host() -> Response {
    failure(
        StatusCode::NOT_FOUND,
        "there is no such host; accepted: an id of /api/v1/hosts",
    )
}

fn too_many(what: &str) -> Response {
    let text = format!("too many {what} at a time: try again later");
    let mut answer = failure(StatusCode::SERVICE_UNAVAILABLE, &text);
    let wait = HeaderValue::from_static("5");
    answer.headers_mut().insert(header::RETRY_AFTER, wait);
    answer
}

/// Returns an answer with JSON, compressed if the client accepts it. `headers` are those of the request.
fn answer(headers: &HeaderMap, json: Bytes) -> Response {
    let is_long = json.len() >= LEAST_COMPRESSED && accepts_gzip(headers);
    let zipped = is_long.then(|| gzip(&json, LEVEL)).flatten();
    let is_zipped = zipped.is_some();
    let mut answer = Response::new(Body::from(zipped.map_or(json, Bytes::from)));
    let all = answer.headers_mut();
    all.insert(header::CONTENT_TYPE, JSON);
    all.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_zipped {
        all.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn answer_with<T: Serialize>(headers: &HeaderMap, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => answer(headers, json.into()),
        Err(_) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer cannot be encoded",
        ),
    }
}

/// The parameters in the query of a request.
struct Query(HashMap<String, String>);

impl Query {
    fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Self(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Reads a whole number from `least` to `most`. The error is the answer.
    fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // A page in JavaScript can send a time with a fraction.
        let number = text.parse().ok().or_else(|| {
            let number = text.parse::<f64>().ok()?;
            number.is_finite().then_some(number as i64)
        });
        let number = number.filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            format!("{name}: not a number in the range; accepted: {least} to {most}")
        })
    }

    /// Reads a time in milliseconds since 1970.
    fn time(&self, name: &str) -> Result<Option<i64>, String> {
        self.number(name, 0, MAX_TIME)
    }
}

/// The end of the year 9999, in milliseconds since 1970.
const MAX_TIME: i64 = 253_402_300_799_999;

/// Whether the client uses TLS, with this server or with the trusted proxy.
pub(super) fn is_encrypted(app: &App, request: &Request) -> bool {
    let scheme = request.headers().get("x-forwarded-proto");
    let by_proxy = scheme.is_some_and(|scheme| scheme == "https") && from_proxy(app, request);
    app.auth.has_tls() || by_proxy
}

fn from_proxy(app: &App, request: &Request) -> bool {
    let peer = request.extensions().get::<Peer>();
    peer.is_some_and(|peer| app.auth.is_proxy(peer.0))
}

/// Returns the name and the port by which the client reaches this server.
fn authority(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    host.or_else(|| {
        request
            .uri()
            .authority()
            .map(|authority| authority.as_str())
    })
}

/// Whether the client reaches this server by an address of the loopback interface, or by a name that always means it.
pub(super) fn is_local_name(request: &Request) -> bool {
    let Some(authority) = authority(request) else {
        return false;
    };
    let name = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    name.parse().is_ok_and(is_loopback)
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a request comes from this server's own page, or from a client that is no browser.
pub(super) fn is_same_site(app: &App, request: &Request) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().unwrap_or_default();
    let origin = origin.split_once("://").map_or("", |(_, host)| host);
    let forwarded = headers.get("x-forwarded-host");
    let forwarded = forwarded.filter(|_| from_proxy(app, request));
    let forwarded = forwarded.and_then(|host| host.to_str().ok());
    !origin.is_empty() && (authority(request) == Some(origin) || forwarded == Some(origin))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;

    use super::is_local_name;

    #[test]
    fn only_names_of_the_loopback_interface_are_local() {
        for (host, is_local) in [
            ("127.0.0.1:9180", true),
            ("127.9.8.7", true),
            ("[::1]:9180", true),
            ("localhost:80", true),
            ("page.localhost", true),
            ("example.org", false),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            let request = Request::builder().header("host", host);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(is_local_name(&request), is_local, "{host}");
        }
    }

    #[test]
    fn the_description_has_every_path() {
        let described: serde_json::Value =
            serde_json::from_str(include_str!("openapi.json")).unwrap();
        let described = described["paths"].as_object().unwrap();
        let source = include_str!("mod.rs");
        let routes = source.lines().filter_map(|line| {
            let route = line.trim().strip_prefix(".route(\"")?;
            route.split('"').next()
        });
        let mut count = 0;
        for route in routes {
            assert!(
                described.contains_key(&format!("/api/v1{route}")),
                "{route}"
            );
            count += 1;
        }
        assert_eq!((count, described.len()), (13, 13));
    }
}
