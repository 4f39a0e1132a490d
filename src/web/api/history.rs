//! The past of a host: figures over time and events.

use std::io;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{App, Query, answer_with, failure, no_such_host};
use crate::web::{History, now};

/// The default and the largest number of points.
const POINTS: i64 = 600;
const MOST_POINTS: i64 = 5000;
/// Maximum number of series of a request.
const MAX_SERIES: usize = 64;
/// The default range, in milliseconds.
const RANGE_MS: i64 = 3_600_000;

#[derive(Serialize)]
struct Series {
    series: Vec<String>,
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = Query::of(&uri);
    let asked = range(&query).and_then(|range| {
        let points = query.number("points", 1, MOST_POINTS)?.unwrap_or(POINTS);
        let series = query.get("series").unwrap_or_default().split(',');
        let series: Vec<String> = series.map(str::to_owned).filter(|one| !one.is_empty()).collect();
        match (1..=MAX_SERIES).contains(&series.len()) {
            true => Ok((range, points, series)),
            false => Err(format!(
                "series: accepted: 1 to {MAX_SERIES} names of /api/v1/hosts/{{host}}/series, separated by commas"
            )),
        }
    });
    let ((from, to), points, series) = match asked {
        Ok(asked) => asked,
        Err(text) => return failure(StatusCode::BAD_REQUEST, &text),
    };
    let points = usize::try_from(points).unwrap_or_default();
    read(&app, &headers, host, move |history, host| {
        let series: Vec<&str> = series.iter().map(String::as_str).collect();
        history.query(host, &series, from, to, points)
    })
    .await
}

pub(super) async fn series(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    headers: HeaderMap,
) -> Response {
    read(&app, &headers, host, |history, host| {
        history.series(host).map(|series| Series { series })
    })
    .await
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(host): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = Query::of(&uri);
    let (from, to) = match range(&query) {
        Ok(range) => range,
        Err(text) => return failure(StatusCode::BAD_REQUEST, &text),
    };
    let container = query.get("container").map(str::to_owned);
    read(&app, &headers, host, move |history, host| {
        history.events(host, from, to, container.as_deref())
    })
    .await
}

/// Reads the range of a request. The default is the last hour.
fn range(query: &Query) -> Result<(i64, i64), String> {
    let to = query.time("to")?.unwrap_or_else(now);
    let from = query.time("from")?.unwrap_or(to - RANGE_MS);
    match from < to {
        true => Ok((from, to)),
        false => Err("from: not before `to`; accepted: milliseconds since 1970".to_owned()),
    }
}

/// Reads the history in a thread of its own, because it can be in files.
async fn read<T: Serialize + Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    host: String,
    read: impl FnOnce(&History, &str) -> io::Result<T> + Send + 'static,
) -> Response {
    if app.hosts.source(&host).is_none() {
        return no_such_host();
    }
    let history = Arc::clone(&app.hosts.history);
    match spawn_blocking(move || read(&history, &host)).await {
        Ok(Ok(answer)) => answer_with(headers, &answer),
        Ok(Err(error)) => {
            let text = format!("the history cannot be read: {error}");
            failure(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
        Err(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "the server stops"),
    }
}
