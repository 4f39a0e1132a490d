//! The calls to the engine. Each call has a deadline. If a call fails, its error says which call failed and why.
//!
//! This module sends the calls for the container list, inspections, statistics and events itself. It accepts an answer even if it
//! does not know a value in the answer. bollard's models refuse such an answer. Only the newest lines of logs and the ping use bollard's
//! calls.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::LogsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures_util::{Stream, stream};
use hyper::body::Incoming;
use hyper::{HeaderMap, Response};
use tracing::debug;

use super::choice::ContainerChoice;
pub(crate) use super::engine_error::{DEADLINE, EngineError, classify};
use super::events::Message;
pub(crate) use super::inspected::Inspected;
use super::json::Json;
use super::listing::{ListScope, ListedContainers, Listing};
use super::pieces::{Entries, Lines, Piece};
use super::transport::{
    MAX_CONTAINER_BYTES, MAX_EVENTS_BYTES, MAX_LIST_BYTES, MAX_OTHER_BYTES, Transport, next_bytes,
    whole,
};
use crate::collect::causes::with_causes;
use crate::settings::{ContainerEnv, DockerHost};

/// The names of the events that the agent requests. Each of these events is published, or makes the container list or an
/// inspection stale.
const EVENTS: [&str; 13] = [
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
    // Podman's names for `die` and `destroy`.
    "died",
    "remove",
    // The only event of a failed start: the container leaves its networks.
    "disconnect",
];

/// Maximum size of one event, in bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Maximum size of a log that is read piece by piece, in bytes.
const MAX_LONG_LOG_BYTES: usize = 1024 * 1024 * 1024;

/// The paths of the list of all containers and of the list of running containers. Podman omits paused containers unless the request has a filter for them.
const ALL: &str = "/containers/json?all=true";
const RUNNING: &str = "/containers/json";
const RUNNING_OR_PAUSED: &str =
    "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D";
/// The same lists with the sizes of the containers.
const RUNNING_WITH_SIZES: &str = "/containers/json?size=true";
const RUNNING_OR_PAUSED_WITH_SIZES: &str =
    "/containers/json?size=true&filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%5D%7D";

/// An engine. The agent connects before the first call, and again after [`Engine::disconnect`].
pub(crate) struct Engine {
    host: DockerHost,
    env: Arc<ContainerEnv>,
    /// The handle for calls. It has the negotiated API version, which can change after an outage. None while not connected.
    connected: Option<Call>,
}

impl Engine {
    pub(crate) fn new(host: DockerHost) -> Self {
        Self {
            host,
            env: Arc::default(),
            connected: None,
        }
    }

    /// Lets inspections have the environment variables that `env` chooses.
    pub(super) fn with_env(mut self, env: ContainerEnv) -> Self {
        self.env = Arc::new(env);
        self
    }

    /// Returns a handle for calls. If the engine is not connected, negotiates the API version before that.
    pub(crate) async fn call(&mut self) -> Result<Call, EngineError> {
        if let Some(call) = &self.connected {
            return Ok(call.clone());
        }
        let call = Call::negotiate(&self.host, Arc::clone(&self.env)).await?;
        debug!(engine = %self.host, api = call.api_version(), "connected to the engine");
        Ok(self.connected.insert(call).clone())
    }

    /// Forgets the negotiated API version, because the engine can return with another version.
    pub(crate) fn disconnect(&mut self) {
        self.connected = None;
    }
}

/// Which log lines are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogWindow {
    All,
    /// The newest lines. The engine searches backwards, so the cost does not depend on the size of the log.
    Newest(u64),
    /// The lines that were written at or after this time, in Unix seconds. The engine reads the whole log for it.
    Since(u64),
}

/// A handle for calls to a connected engine.
#[derive(Clone)]
pub(crate) struct Call {
    client: Docker,
    transport: Transport,
    is_podman: bool,
    env: Arc<ContainerEnv>,
    /// A sentence about the entries of the newest container list that could not be read.
    unreadable: Arc<Mutex<Option<String>>>,
}

impl Call {
    /// Chooses the newest API version that both the agent and the engine know. If a proxy hides the engine's version, requests
    /// have no version, and the engine uses its own version.
    async fn negotiate(host: &DockerHost, env: Arc<ContainerEnv>) -> Result<Self, EngineError> {
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
            env,
            unreadable: Arc::default(),
        };
        let (version, is_podman) = within("connect", call.engine_version()).await?;
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

    /// Returns the engine's newest API version, and whether the engine is Podman. The version is none if the engine reports no
    /// version.
    ///
    /// Requests `/_ping` first, because Podman needs seconds for `/version` on a slow machine.
    async fn engine_version(&self) -> Result<(Option<ClientVersion>, bool), BollardError> {
        let mut is_podman = false;
        match self.get("/_ping", MAX_OTHER_BYTES).await {
            Ok(answer) => {
                let headers = answer.headers();
                is_podman = headers.contains_key("libpod-api-version");
                if let Some(version) = header(headers, "api-version").and_then(version) {
                    return Ok((Some(version), is_podman));
                }
            }
            // The engine or a proxy refuses the ping. The request for `/version` can still succeed.
            Err(BollardError::DockerResponseServerError { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.get("/version", MAX_OTHER_BYTES).await {
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

    /// Requests a path. `limit` is the maximum size of the answer in bytes. If the answer has no success status, returns an error
    /// with the engine's message.
    async fn get(&self, path: &str, limit: usize) -> Result<Response<Incoming>, BollardError> {
        let answer = self.transport.get(path, limit).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status_code = answer.status().as_u16();
        let body = whole(answer.into_body()).await?;
        let message = Json::parse(&body)
            .ok()
            .and_then(|body| body.get("message").non_empty_text())
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(BollardError::DockerResponseServerError {
            status_code,
            message,
        })
    }

    /// Requests a path whose answer is one JSON value.
    async fn get_json(
        &self,
        call: &'static str,
        path: &str,
        limit: usize,
    ) -> Result<Json, EngineError> {
        parse(call, &self.get_body(call, path, limit).await?)
    }

    async fn get_body(
        &self,
        call: &'static str,
        path: &str,
        limit: usize,
    ) -> Result<Vec<u8>, EngineError> {
        let body = async { whole(self.get(path, limit).await?.into_body()).await };
        within(call, body).await
    }

    /// Returns the negotiated API version, as a text for people.
    pub(crate) fn api_version(&self) -> String {
        match self.transport.version() {
            Some(version) => format!("{}.{}", version.major_version, version.minor_version),
            None => "chosen by the engine".to_owned(),
        }
    }

    /// Returns the containers that `choice` wants, with their metadata. Does not request sizes, because the engine would then read all files
    /// of the containers. Omits entries that cannot be read. [`Call::unreadable`] describes these entries.
    pub(super) async fn list(
        &self,
        scope: ListScope,
        choice: &ContainerChoice,
    ) -> Result<ListedContainers, EngineError> {
        const CALL: &str = "list containers";
        let path = match scope {
            ListScope::All => ALL,
            ListScope::Running if self.is_podman => RUNNING_OR_PAUSED,
            ListScope::Running => RUNNING,
        };
        let read = async {
            let mut listing = Listing::new(scope, choice);
            let add = |entry: Piece<'_>| {
                listing.add(entry);
                listing.check()
            };
            self.entries(CALL, path, add).await?;
            Ok(listing.finish())
        };
        let mut listed = tokio::time::timeout(DEADLINE, read)
            .await
            .unwrap_or(Err(EngineError::Deadline { call: CALL }))?;
        *self
            .unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = listed.unreadable.take();
        Ok(listed)
    }

    /// Requests a list, and passes each entry to `each` while the list arrives. Ends at the first error of `each`. The caller must limit
    /// the time.
    pub(super) async fn entries(
        &self,
        call: &'static str,
        path: &str,
        mut each: impl FnMut(Piece<'_>) -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let failed = |error: BollardError| classify(call, &error);
        let answer = self.get(path, MAX_LIST_BYTES).await.map_err(failed)?;
        let mut body = answer.into_body();
        let mut entries = Entries::new(MAX_CONTAINER_BYTES);
        let mut added = Ok(());
        while !entries.is_complete()
            && added.is_ok()
            && let Some(bytes) = next_bytes(&mut body).await.map_err(failed)?
        {
            let pushed = entries.push(&bytes, |entry| {
                if added.is_ok() {
                    added = each(entry);
                }
            });
            pushed.map_err(|error| EngineError::failed(call, &error))?;
        }
        added.map_err(|error| EngineError::failed(call, &error))?;
        let ended = entries.end();
        ended.map_err(|error| EngineError::failed(call, &error))
    }

    /// Returns the path of the list of running containers with their sizes. For this list, the engine reads directories of all of these
    /// containers.
    pub(super) fn running_with_sizes(&self) -> &'static str {
        match self.is_podman {
            true => RUNNING_OR_PAUSED_WITH_SIZES,
            false => RUNNING_WITH_SIZES,
        }
    }

    /// Returns a sentence about the entries of the newest container list that could not be read. None if all entries could be
    /// read.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let unreadable = self.unreadable.lock();
        unreadable.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that the engine answers.
    pub(crate) async fn ping(&self) -> Result<(), EngineError> {
        let ping = self.client.ping();
        match within("ping", async { Ok(ping.await) }).await? {
            // A proxy that refuses the ping has also answered.
            Ok(_)
            | Err(BollardError::DockerResponseServerError {
                status_code: 400..500,
                ..
            }) => Ok(()),
            Err(error) => Err(classify("ping", &error)),
        }
    }

    /// Returns the stream of the events in [`EVENTS`], from the time `since` on. The stream ends when the connection
    /// ends.
    pub(crate) fn events(&self, since: SystemTime) -> impl Stream<Item = Message> + Send + use<> {
        let since = since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let filters = format!(r#"{{"type":["container","network"],"event":{EVENTS:?}}}"#);
        let path = format!(
            "/events?since={}&filters={}",
            since.as_secs(),
            encoded(&filters)
        );
        let reader = EventReader {
            call: self.clone(),
            path,
            body: None,
            lines: Lines::new(MAX_EVENT_BYTES),
            read: VecDeque::new(),
        };
        stream::unfold(reader, |mut reader| async {
            match reader.next().await {
                Ok(message) => Some((message?, reader)),
                Err(error) => {
                    debug!(error = with_causes(&error), "the event stream has ended");
                    None
                }
            }
        })
    }

    /// Inspects a container.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Inspected, EngineError> {
        let path = format!("/containers/{}/json", encoded(id));
        let answer = self.get_json("inspect container", &path, MAX_CONTAINER_BYTES);
        Ok(Inspected::read(&answer.await?, &self.env))
    }

    /// Returns the statistics of one container. With `one_shot` the engine takes one reading. Without `one_shot` the engine takes
    /// two readings, one or two seconds apart.
    pub(crate) async fn stats(&self, id: &str, one_shot: bool) -> Result<Json, EngineError> {
        let id = encoded(id);
        let path = format!("/containers/{id}/stats?stream=false&one-shot={one_shot}");
        let call = "container statistics";
        let body = self.get_body(call, &path, MAX_OTHER_BYTES).await?;
        // Docker answers with the status 200 and an empty body if the container is removed during the call.
        if body.is_empty() {
            return Err(EngineError::Gone);
        }
        parse(call, &body)
    }

    /// Returns the newest `tail` log lines of a container, with timestamps. If `since` is given, in Unix seconds, omits log lines
    /// from before that time. The caller must stop reading at the [`DEADLINE`].
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

    /// Requests the log lines of a container, with timestamps. The caller must limit the time of reading.
    pub(crate) async fn long_log(
        &self,
        id: &str,
        window: LogWindow,
    ) -> Result<Incoming, EngineError> {
        let window = match window {
            LogWindow::Newest(tail) => format!("&tail={tail}"),
            LogWindow::Since(since) => format!("&since={since}"),
            LogWindow::All => String::new(),
        };
        let id = encoded(id);
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1{window}");
        let answer = within("container logs", self.get(&path, MAX_LONG_LOG_BYTES));
        Ok(answer.await?.into_body())
    }
}

/// Reads the event stream.
struct EventReader {
    call: Call,
    path: String,
    /// The answer. None before the request.
    body: Option<Incoming>,
    lines: Lines,
    /// Events of the newest chunk that [`EventReader::next`] has not returned yet.
    read: VecDeque<Message>,
}

impl EventReader {
    /// Returns the next event. None at the end of the stream.
    async fn next(&mut self) -> Result<Option<Message>, BollardError> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return Ok(Some(message));
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let answer = self.call.get(&self.path, MAX_EVENTS_BYTES).await?;
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

fn parse(call: &'static str, body: &[u8]) -> Result<Json, EngineError> {
    Json::parse(body).map_err(|error| EngineError::failed(call, &error))
}

/// Reads an API version such as `1.41`.
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

/// Percent-encodes a text for a path or a query.
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

/// Waits for the answer to a call until the deadline. Turns an error into an [`EngineError`].
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

#[cfg(test)]
mod tests {
    use super::{EVENTS, encoded, version};

    #[test]
    fn only_a_version_of_two_numbers_is_read() {
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
    fn a_path_encodes_special_characters() {
        assert_eq!(encoded("../a b\"é"), "..%2Fa%20b%22%C3%A9");
        // The filter for events is written in Rust's debug format of this list, so that format must be valid JSON.
        assert!(serde_json::from_str::<Vec<String>>(&format!("{EVENTS:?}")).is_ok());
    }
}
