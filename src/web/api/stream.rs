//! The event stream of figures: the table of hosts, and one host.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use tokio::time::{Instant, interval, sleep_until};

use super::sse::{ALIVE_INTERVAL, Events, Gone, last_id};
use super::{App, Query, no_such_host, too_many};

/// The least time between two tables of hosts.
const LIST_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two states of one host.
const HOST_INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn stream(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let host = Query::of(&uri).get("host").map(str::to_owned);
    if host
        .as_deref()
        .is_some_and(|host| app.hosts.source(host).is_none())
    {
        return no_such_host();
    }
    let Some((events, answer)) = Events::start(&app.streams, &headers) else {
        return too_many("event streams");
    };
    let seen = last_id(&headers).and_then(|id| Seen::parse(id, &app.run));
    tokio::spawn(async move {
        // The browser has gone.
        let _ = send(&app, &events, host.as_deref(), seen.unwrap_or_default()).await;
    });
    answer
}

/// The newest versions that the browser has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    list: u64,
    host: u64,
}

impl Seen {
    /// Reads an id of this run of the server.
    fn parse(id: &str, run: &str) -> Option<Self> {
        let mut parts = id.split('-');
        if parts.next()? != run {
            return None;
        }
        let mut number = || parts.next()?.parse().ok();
        Some(Self {
            list: number()?,
            host: number()?,
        })
    }

    fn id(self, run: &str) -> String {
        format!("{run}-{}-{}", self.list, self.host)
    }
}

async fn send(app: &App, events: &Events, host: Option<&str>, mut seen: Seen) -> Result<(), Gone> {
    let mut changes = app.hosts.changes();
    let mut alive = interval(ALIVE_INTERVAL);
    let (mut next_list, mut next_host) = (Instant::now(), Instant::now());
    loop {
        let current = *changes.borrow_and_update();
        let mut wake: Option<Instant> = None;
        if let Some(host) = host
            && app
                .hosts
                .version(host)
                .is_some_and(|version| version != seen.host)
        {
            if Instant::now() >= next_host {
                // Only a browser that has read the event before gets the newest one.
                events.ready().await?;
                if let Some((version, one)) = app.hosts.one(host) {
                    seen.host = version;
                    events.send("host", Some(&seen.id(&app.run)), &one).await?;
                }
                next_host = Instant::now() + HOST_INTERVAL;
            } else {
                wake = Some(next_host);
            }
        }
        if current != seen.list {
            if Instant::now() >= next_list {
                events.ready().await?;
                let (version, list) = app.hosts.list();
                seen.list = version;
                events
                    .send("hosts", Some(&seen.id(&app.run)), &list)
                    .await?;
                next_list = Instant::now() + LIST_INTERVAL;
            } else {
                wake = Some(wake.map_or(next_list, |wake| wake.min(next_list)));
            }
        }
        tokio::select! {
            () = sleep_until(wake.unwrap_or(next_list)), if wake.is_some() => {}
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            _ = alive.tick() => events.alive().await?,
            () = events.gone() => return Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn only_an_id_of_this_run_is_continued() {
        let seen = Seen { list: 7, host: 3 };
        assert_eq!(Seen::parse(&seen.id("18f"), "18f"), Some(seen));
        for id in ["", "18e-7-3", "18f-7", "18f-x-3", "18f"] {
            assert_eq!(Seen::parse(id, "18f"), None, "{id}");
        }
    }
}
