//! The table of hosts, and one host.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{App, answer, no_such_host};

pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let (_, list) = app.hosts.list();
    answer(&headers, list)
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    headers: HeaderMap,
) -> Response {
    match app.hosts.one(&host) {
        Some((_, one)) => answer(&headers, one),
        None => no_such_host(),
    }
}
