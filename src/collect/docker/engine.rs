//! The engine's calls, each with a deadline and an error that says what to do.
//!
//! What the engine knows of containers is asked for here and read leniently: bollard's models refuse a whole answer for one value
//! that they do not know. Logs and the ping go through bollard.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::LogsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures_util::{Stream, stream};
use hyper::body::Incoming;
use hyper::{HeaderMap, Response};
use tracing::debug;

use super::events::Message;
pub(crate) use super::inspected::Inspected;
use super::json::Json;
use super::listing::{ListedContainer, Listing};
use super::pieces::{Entries, Lines};
use super::transport::{
    MOST_OF_A_CONTAINER, MOST_OF_EVENTS, MOST_OF_THE_LIST, MOST_OF_THE_REST, Transport, next_bytes,
    whole,
};
use crate::collect::causes::with_causes;
use crate::settings::DockerHost;

/// How long one call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The events that are published, or change which containers run or what is known of one.
const EVENTS: [&str; 12] = [
    "start",
    "die",
    "oom",
    "restart",
    "pause",
    "unpause",
    "rename",
    "update",
    "destroy",
    "health_status",
    // Podman's words.
    "died",
    "remove",
];

/// The most that is read of one event. Of one entry of the list it is as much as of an inspection: both have the labels.
const MOST_OF_AN_EVENT: usize = 1024 * 1024;

/// The path of the list of running containers. Podman omits paused containers unless the request names that state.
const RUNNING: &str = "/containers/json";
const RUNNING_OR_PAUSED: &str =
    "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D";

/// Why the engine did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EngineError {
    /// The container is no longer there.
    #[error("no such container")]
    Gone,
    /// The container's logging driver keeps nothing that could be read.
    #[error("its logging driver does not support reading")]
    Unreadable,
    /// No answer in time.
    #[error("{call}: no answer within {} s", DEADLINE.as_secs())]
    Deadline {
        /// What was asked for.
        call: &'static str,
    },
    /// No connection, or an answer that is none.
    #[error("{call}: {reason}")]
    Failed {
        /// What was asked for.
        call: &'static str,
        /// Why it failed, with all causes.
        reason: String,
    },
}

impl EngineError {
    fn failed(call: &'static str, reason: &impl ToString) -> Self {
        Self::Failed {
            call,
            reason: reason.to_string(),
        }
    }
}

/// An engine: connects when needed, and anew after [`Engine::disconnect`].
pub(crate) struct Engine {
    host: DockerHost,
    /// Speaks the API version negotiated with the engine, which may be another one after an
    /// outage.
    connected: Option<Call>,
}

impl Engine {
    pub(crate) fn new(host: DockerHost) -> Self {
        Self {
            host,
            connected: None,
        }
    }

    /// A handle for calls; settles the API version with a fresh engine first.
    pub(crate) async fn call(&mut self) -> Result<Call, EngineError> {
        if let Some(call) = &self.connected {
            return Ok(call.clone());
        }
        let call = Call::negotiate(&self.host).await?;
        debug!(engine = %self.host, api = call.api_version(), "engine connected");
        Ok(self.connected.insert(call).clone())
    }

    /// Forgets what was negotiated: the engine may come back as another version.
    pub(crate) fn disconnect(&mut self) {
        self.connected = None;
    }
}

/// A connected engine.
#[derive(Clone)]
pub(crate) struct Call {
    client: Docker,
    transport: Transport,
    is_podman: bool,
    /// What the last list had that could not be read.
    unreadable: Arc<Mutex<Option<String>>>,
}

impl Call {
    /// Settles on the newest API version that both sides know. An engine behind a proxy that
    /// keeps its version to itself is spoken to in its own.
    async fn negotiate(host: &DockerHost) -> Result<Self, EngineError> {
        let transport = Transport::new(host);
        let client = {
            let transport = transport.clone();
            Docker::connect_with_custom_transport(
                move |request| transport.clone().send(request),
                Some("http://docker"),
                DEADLINE.as_secs(),
                API_DEFAULT_VERSION,
            )
            .map_err(|error| classify("connect", &error))?
        };
        let mut call = Self {
            client,
            transport,
            is_podman: false,
            unreadable: Arc::default(),
        };
        let (version, is_podman) = within("connect", call.engines_version()).await?;
        call.is_podman = is_podman;
        if let Some(version) = version {
            let newest = if version < *API_DEFAULT_VERSION {
                version
            } else {
                clone_of(API_DEFAULT_VERSION)
            };
            call.transport.speak(newest);
        }
        Ok(call)
    }

    /// The newest API version of the engine, where it tells one, and whether it is Podman.
    ///
    /// The answer to a ping has it at once. Podman needs seconds for `/version` on a slow machine.
    async fn engines_version(&self) -> Result<(Option<ClientVersion>, bool), BollardError> {
        let mut is_podman = false;
        match self.get("/_ping", MOST_OF_THE_REST).await {
            Ok(answer) => {
                let headers = answer.headers();
                is_podman = headers.contains_key("libpod-api-version");
                if let Some(version) = header(headers, "api-version").and_then(version) {
                    return Ok((Some(version), is_podman));
                }
            }
            // It may tell its version all the same.
            Err(BollardError::DockerResponseServerError { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.get("/version", MOST_OF_THE_REST).await {
            Ok(answer) => {
                let answer = Json::parse(&whole(answer.into_body()).await?);
                let text = answer
                    .ok()
                    .and_then(|answer| answer.get("ApiVersion").text());
                Ok((text.as_deref().and_then(version), is_podman))
            }
            Err(BollardError::DockerResponseServerError {
                status_code: 400..500,
                ..
            }) => Ok((None, is_podman)),
            Err(error) => Err(error),
        }
    }

    /// Asks for a path. An answer with a status of failure is an error, with the engine's words.
    async fn get(&self, path: &str, most: usize) -> Result<Response<Incoming>, BollardError> {
        let answer = self.transport.get(path, most).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status_code = answer.status().as_u16();
        let body = whole(answer.into_body()).await?;
        let message = Json::parse(&body)
            .ok()
            .and_then(|body| body.get("message").words())
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(BollardError::DockerResponseServerError {
            status_code,
            message,
        })
    }

    /// Asks for a path whose answer is one JSON value.
    async fn get_json(
        &self,
        call: &'static str,
        path: &str,
        most: usize,
    ) -> Result<Json, EngineError> {
        let body = within(call, async {
            whole(self.get(path, most).await?.into_body()).await
        });
        Json::parse(&body.await?).map_err(|error| EngineError::failed(call, &error))
    }

    /// The API version that was negotiated.
    pub(crate) fn api_version(&self) -> String {
        match self.transport.version() {
            Some(version) => format!("{}.{}", version.major_version, version.minor_version),
            None => "of the engine's choice".to_owned(),
        }
    }

    /// The running containers, with their metadata. Never asks for sizes, which make the engine
    /// walk the containers' disks. Entries that cannot be read are left out: see
    /// [`Call::unreadable`].
    pub(crate) async fn list(&self) -> Result<Vec<ListedContainer>, EngineError> {
        const CALL: &str = "list containers";
        let path = if self.is_podman {
            RUNNING_OR_PAUSED
        } else {
            RUNNING
        };
        let read = async {
            let failed = |error: BollardError| classify(CALL, &error);
            let answer = self.get(path, MOST_OF_THE_LIST).await.map_err(failed)?;
            let mut body = answer.into_body();
            let mut entries = Entries::new(MOST_OF_A_CONTAINER);
            let mut listing = Listing::default();
            while !entries.is_complete()
                && let Some(bytes) = next_bytes(&mut body).await.map_err(failed)?
            {
                let pushed = entries.push(&bytes, |entry| listing.take_in(entry));
                pushed.map_err(|error| EngineError::failed(CALL, &error))?;
                let checked = listing.check();
                checked.map_err(|error| EngineError::failed(CALL, &error))?;
            }
            let ended = entries.end();
            ended.map_err(|error| EngineError::failed(CALL, &error))?;
            Ok(listing.finish())
        };
        let (listed, unreadable) = tokio::time::timeout(DEADLINE, read)
            .await
            .unwrap_or(Err(EngineError::Deadline { call: CALL }))?;
        *self
            .unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = unreadable;
        Ok(listed)
    }

    /// A sentence about the entries of the last list that could not be read, if there were any.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let unreadable = self.unreadable.lock();
        unreadable.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is there.
    pub(crate) async fn ping(&self) -> Result<(), EngineError> {
        let ping = self.client.ping();
        match within("ping", async { Ok(ping.await) }).await? {
            // A proxy that denies it has answered as well.
            Ok(_)
            | Err(BollardError::DockerResponseServerError {
                status_code: 400..500,
                ..
            }) => Ok(()),
            Err(error) => Err(classify("ping", &error)),
        }
    }

    /// What happens to containers, from `since` on: whatever changes the list of those that run,
    /// or what is known of one. Ends with the connection.
    pub(crate) fn events(&self, since: SystemTime) -> impl Stream<Item = Message> + Send + use<> {
        let since = since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let filters = format!(r#"{{"type":["container"],"event":{EVENTS:?}}}"#);
        let path = format!(
            "/events?since={}&filters={}",
            since.as_secs(),
            encoded(&filters)
        );
        let reader = EventReader {
            call: self.clone(),
            path,
            body: None,
            lines: Lines::new(MOST_OF_AN_EVENT),
            read: VecDeque::new(),
        };
        stream::unfold(reader, |mut reader| async {
            match reader.next().await {
                Ok(message) => Some((message?, reader)),
                Err(error) => {
                    debug!(error = with_causes(&error), "events ended");
                    None
                }
            }
        })
    }

    /// What the kernel's and the engine's own files need to be read.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Inspected, EngineError> {
        let path = format!("/containers/{}/json", encoded(id));
        let answer = self.get_json("inspect container", &path, MOST_OF_A_CONTAINER);
        Ok(Inspected::read(&answer.await?))
    }

    /// One container's statistics. With `one_shot` the engine takes one reading; without, it
    /// takes two and waits a second or two in between.
    pub(crate) async fn stats(&self, id: &str, one_shot: bool) -> Result<Json, EngineError> {
        let id = encoded(id);
        let path = format!("/containers/{id}/stats?stream=false&one-shot={one_shot}");
        self.get_json("container statistics", &path, MOST_OF_THE_REST)
            .await
    }

    /// The newest `tail` messages of a container's log, with timestamps; of those since a Unix
    /// time, if one is given. The caller keeps the [`DEADLINE`].
    pub(crate) fn logs(
        &self,
        id: &str,
        tail: usize,
        since: Option<i32>,
    ) -> impl Stream<Item = Result<LogOutput, BollardError>> + use<> {
        let mut options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .tail(&tail.to_string());
        if let Some(since) = since {
            options = options.since(since);
        }
        self.client.logs(id, Some(options.build()))
    }
}

/// Events while they are read.
struct EventReader {
    call: Call,
    path: String,
    /// None until they are asked for.
    body: Option<Incoming>,
    lines: Lines,
    /// Read, and not yet given away: those of one chunk.
    read: VecDeque<Message>,
}

impl EventReader {
    /// None at the end.
    async fn next(&mut self) -> Result<Option<Message>, BollardError> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return Ok(Some(message));
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let answer = self.call.get(&self.path, MOST_OF_EVENTS).await?;
                    self.body.insert(answer.into_body())
                }
            };
            let Some(bytes) = next_bytes(body).await? else {
                return Ok(None);
            };
            let read = &mut self.read;
            self.lines
                .push(&bytes, |line| read.push_back(Message::read(line)));
        }
    }
}

/// A version, as in `1.41`.
fn version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.trim().split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

fn clone_of(version: &ClientVersion) -> ClientVersion {
    ClientVersion {
        major_version: version.major_version,
        minor_version: version.minor_version,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// As a part of a path or of a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// Waits for a call until its deadline, and tells errors of interest from the rest.
async fn within<T>(
    call: &'static str,
    answer: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(classify(call, &error)),
        Err(_) => Err(EngineError::Deadline { call }),
    }
}

/// The most of an engine's own words that is passed on.
const LONGEST_REASON: usize = 300;

/// Tells errors of interest from the rest.
pub(crate) fn classify(call: &'static str, error: &BollardError) -> EngineError {
    match error {
        BollardError::RequestTimeoutError => EngineError::Deadline { call },
        // 409: it is being removed.
        BollardError::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        } => EngineError::Gone,
        BollardError::DockerResponseServerError { message, .. }
            if message.contains("does not support reading") =>
        {
            EngineError::Unreadable
        }
        _ => {
            let mut reason = with_causes(error);
            if is_denied(error) {
                reason.push_str(
                    "; the agent must run as root or in the group that owns the socket (docker)",
                );
            }
            if let Some((cut, _)) = reason.char_indices().nth(LONGEST_REASON) {
                reason.truncate(cut);
                reason.push('…');
            }
            EngineError::Failed { call, reason }
        }
    }
}

fn is_denied(error: &BollardError) -> bool {
    // Such an error hides the one that it is made of from the chain of causes.
    if let BollardError::IOError { err } = error {
        return err.kind() == io::ErrorKind::PermissionDenied;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{EVENTS, classify, encoded, version};

    #[test]
    fn a_socket_that_is_denied_says_what_to_do() {
        for (kind, told) in [
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::NotFound, false),
        ] {
            let error = io::Error::new(kind, "/run/docker.sock: text");
            let reason = classify("connect", &error.into()).to_string();
            assert!(reason.contains("/run/docker.sock"), "{reason}");
            assert_eq!(reason.contains("docker)"), told, "{reason}");
        }
    }

    #[test]
    fn a_version_is_read_or_not() {
        for (text, expected) in [
            ("1.41", Some("1.41")),
            (" 1.53\n", Some("1.53")),
            ("1", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(
                version(text).map(|version| version.to_string()).as_deref(),
                expected
            );
        }
    }

    #[test]
    fn paths_hold_what_is_put_into_them() {
        assert_eq!(encoded("../a b\"é"), "..%2Fa%20b%22%C3%A9");
        // What makes a list of words for the engine is that of Rust, too.
        assert!(serde_json::from_str::<Vec<String>>(&format!("{EVENTS:?}")).is_ok());
    }
}
