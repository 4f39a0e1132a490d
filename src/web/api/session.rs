//! The session of a browser: who uses the page, the login and the logout.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{App, Peer, answer_with, failure, from_proxy, is_encrypted};
use crate::web::auth::{Login, User};

/// Maximum size of the body of a login, in bytes.
const MAX_BODY: usize = 8 * 1024;
/// Limit on the time in which the body of a login must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Session {
    user: Option<&'static str>,
    login: bool,
    version: &'static str,
    zone: String,
}

#[derive(Deserialize)]
struct Password {
    password: Zeroizing<String>,
}

pub(super) async fn session(State(app): State<Arc<App>>, request: Request) -> Response {
    let user = request.extensions().get::<User>().map(|user| match user {
        User::Admin => "admin",
        User::Guest => "guest",
    });
    let session = Session {
        user,
        login: app.auth.has_password(),
        version: env!("CARGO_PKG_VERSION"),
        zone: zone(),
    };
    answer_with(request.headers(), &session)
}

pub(super) async fn log_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let Some(peer) = client(&app, &request) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "the address of the client is not known",
        );
    };
    let is_encrypted = is_encrypted(&app, &request);
    let body = timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY)).await;
    let wrong = || {
        failure(
            StatusCode::BAD_REQUEST,
            "the body is wrong; accepted: {\"password\": \"…\"} of at most 8 KiB",
        )
    };
    let Ok(Ok(body)) = body else {
        return wrong();
    };
    let Ok(Password { password }) = serde_json::from_slice(&body) else {
        return wrong();
    };
    let password = Zeroizing::new(password.as_bytes().to_vec());
    match app.auth.log_in(password, peer).await {
        Login::Accepted(token) => {
            info!(%peer, "login to the page");
            no_content(&app.auth.cookie(Some(&token), is_encrypted))
        }
        Login::Wrong => {
            warn!(%peer, "wrong password for the page");
            failure(StatusCode::UNAUTHORIZED, "the password is wrong")
        }
        Login::Later(wait) => {
            let seconds = wait.as_secs_f64().ceil() as u64;
            let text = format!("too many wrong passwords: try again in {seconds} s");
            let mut answer = failure(StatusCode::TOO_MANY_REQUESTS, &text);
            let wait = HeaderValue::from(seconds);
            answer.headers_mut().insert(header::RETRY_AFTER, wait);
            answer
        }
    }
}

pub(super) async fn log_out(State(app): State<Arc<App>>, request: Request) -> Response {
    app.auth.log_out(request.headers());
    no_content(&app.auth.cookie(None, is_encrypted(&app, &request)))
}

fn no_content(cookie: &str) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// Returns the address of the client. The trusted proxy tells it in the last value of `X-Forwarded-For`.
fn client(app: &App, request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<Peer>()?.0;
    if !from_proxy(app, request) {
        return Some(peer);
    }
    let told = |headers: &HeaderMap| {
        let all = headers.get_all("x-forwarded-for");
        let last = all.iter().next_back()?.to_str().ok()?.rsplit(',').next()?;
        last.trim().parse().ok()
    };
    Some(told(request.headers()).unwrap_or(peer))
}

/// Returns the name of this host's time zone, for example `Europe/Berlin`.
fn zone() -> String {
    let variable = std::env::var("TZ").ok();
    let variable = variable.map(|zone| zone.trim_start_matches(':').to_owned());
    let named = variable.filter(|zone| !zone.is_empty());
    let linked = || {
        let target = fs::read_link("/etc/localtime").ok()?;
        let (_, zone) = target.to_str()?.split_once("zoneinfo/")?;
        Some(zone.to_owned())
    };
    named.or_else(linked).unwrap_or_else(|| "UTC".to_owned())
}
