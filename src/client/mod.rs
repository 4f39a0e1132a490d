//! A client library for agents. The library connects, sends the key and the options, and reads snapshots. The commands `watch`
//! and `check socket` use this library. Other programs in Rust can use it too.
//!
//! [`Connector::older_lines`] asks for older log lines of one container.
//!
//! The library does not reconnect. After an error, the caller connects again, and uses [`Backoff`] for the pauses.
//!
//! ```no_run
//! use system_agent::client::{Connector, Error};
//! use system_agent::settings::ApiKey;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let key = ApiKey::new("mine", &std::env::var("API_KEY")?)?;
//! let connector = Connector::new("web-1:9000", &key).options(r#"{"sections":["system"]}"#);
//! let mut snapshots = connector.connect().await?;
//! loop {
//!     match snapshots.next().await {
//!         Ok(snapshot) => println!("{} {}", snapshot.host.hostname, snapshot.system.cpu_percent[0]),
//!         // A long-running program connects again here, after a pause of `Backoff`.
//!         Err(Error::Unauthorized) => return Err("wrong key".into()),
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # }
//! ```

mod range;
mod tls;

pub use crate::backoff::Backoff;
pub use range::OlderLines;
pub use tls::{Identity, Trust, TrustError};

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::model::{MOST_HISTORY, Snapshot, StreamLine};
use crate::settings::ApiKey;

/// The default port of agents (`SOCKET_PORT`).
pub const PORT: u16 = 9000;
/// Timeout of each step. The steps are the TCP connection, the TLS handshake, and sending the key.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a JSON line, in bytes. Real snapshots are far smaller.
const MAX_LINE: u64 = 256 * 1024 * 1024;
/// The size of the read buffer, in bytes.
const BUFFER: usize = 64 * 1024;
/// If the agent sends nothing for this time, TCP sends keep-alive probes. The connection breaks after four probes without an
/// answer. A timeout for snapshots cannot replace the probes, because the publish interval of an agent can be an hour.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// The pause between two keep-alive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Why a client gets no snapshots, or no more snapshots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent cannot be reached.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        why: io::Error,
    },
    /// The TLS handshake with the agent failed.
    #[error("TLS with {address} failed: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// The reason. Examples: the agent's certificate is not trusted, the agent requires a client certificate, or the agent
        /// does not use TLS.
        why: io::Error,
    },
    /// The agent does not know the key.
    #[error("the agent refused the API key")]
    Unauthorized,
    /// The agent answered with an error, because an option is unknown or the value of an option is wrong.
    #[error("the agent answered: {0}")]
    Answered(String),
    /// The agent closed the connection before the first snapshot.
    #[error(
        "the agent closed the connection without an answer; possible reasons: the address of this client is not in \
         WHITELISTED_CLIENTS, only one side uses TLS (TLS_ENABLED), or too many wrong keys came from this client's address"
    )]
    Refused,
    /// The agent closed the connection after a snapshot: the agent stops, or this client read too slowly.
    #[error("the agent closed the connection")]
    Closed,
    /// The agent accepted the connection and sent nothing.
    #[error(
        "no snapshot came within {0:?} after the key: check that an agent listens at this address"
    )]
    Silent(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The JSON line is not a valid snapshot.
    #[error("not a valid snapshot: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// The address, key, options and TLS settings for one agent. One connector can open any number of connections.
pub struct Connector {
    address: String,
    /// The key. Its memory is overwritten when the connector is dropped.
    key: Zeroizing<Vec<u8>>,
    options: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The newest cursor that was received on a connection of this connector.
    cursor: Arc<Mutex<Option<String>>>,
}

/// A byte stream in both directions: TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connector {
    /// Creates a connector for the agent at `address`: `HOST`, `HOST:PORT`, an IPv6 address, or an IPv6 address in brackets with
    /// a port. The default port is [`PORT`].
    #[must_use]
    pub fn new(address: &str, key: &ApiKey) -> Self {
        Self {
            address: with_port(address),
            key: Zeroizing::new(key.expose().to_vec()),
            options: String::new(),
            tls: None,
            cursor: Arc::default(),
        }
    }

    /// Sets the options that are sent after the key: a JSON object. `docs/protocol.md` lists the options.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// Sets the position after which the first connection continues: the field `agent.cursor` of a snapshot that was processed
    /// earlier. Later connections continue after the newest snapshot that they have received.
    #[must_use]
    pub fn resume(self, cursor: &str) -> Self {
        *lock(&self.cursor) = Some(cursor.to_owned());
        self
    }

    /// Returns a connector for the same agent that has received no cursor yet.
    #[must_use]
    pub fn without_cursor(&self) -> Self {
        Self {
            address: self.address.clone(),
            key: self.key.clone(),
            options: self.options.clone(),
            tls: self.tls.clone(),
            cursor: Arc::default(),
        }
    }

    /// Returns the newest cursor that was received on a connection of this connector.
    #[must_use]
    pub fn cursor(&self) -> Option<String> {
        lock(&self.cursor).clone()
    }

    /// Uses TLS. `trust` says which certificates of agents are accepted. `identity` is the client certificate, for agents that
    /// require a client certificate. The agent's certificate must contain `name`. The default for `name` is the host of the
    /// address.
    ///
    /// # Errors
    /// Fails if the client certificate and its key do not match, or if the name is neither a host name nor an IP address.
    pub fn tls(
        mut self,
        trust: &Trust,
        identity: Option<&Identity>,
        name: Option<&str>,
    ) -> Result<Self, TrustError> {
        let name = name.unwrap_or_else(|| host(&self.address)).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TrustError::Name)?;
        self.tls = Some((trust.client_config(identity)?, name));
        Ok(self)
    }

    /// Returns the host and the port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects and sends the key. Does not wait for the agent's answer. If the key is wrong, [`Snapshots::next`] returns the
    /// error.
    ///
    /// Events and new log lines continue after the newest snapshot that this connector has received. No event and no log line is
    /// missing or repeated, unless the snapshot counts it as dropped. This needs options with `"logs":"new"` or with the section
    /// `events`.
    ///
    /// # Errors
    /// Fails if the agent cannot be reached, the TLS handshake fails, or the key cannot be sent. See [`Error`].
    pub async fn connect(&self) -> Result<Snapshots, Error> {
        self.connect_asking(&self.options).await
    }

    /// Works like [`Self::connect`], but sends `options` in place of the connector's own options.
    ///
    /// # Errors
    /// Fails if the agent cannot be reached, the TLS handshake fails, or the key cannot be sent. See [`Error`].
    pub async fn connect_asking(&self, options: &str) -> Result<Snapshots, Error> {
        let mut stream = self.open().await?;
        let cursor = lock(&self.cursor).clone();
        let options = match cursor {
            Some(cursor) => with_option(options, "resume", cursor.into()),
            None => options.to_owned(),
        };
        self.send_key(&mut stream, &options).await?;
        Ok(Snapshots {
            stream: BufReader::with_capacity(BUFFER, stream),
            line: Vec::new(),
            seen: false,
            cursor: Arc::clone(&self.cursor),
        })
    }

    /// Works like [`Self::connect`], but the agent first sends its figures of the last `period`. [`Snapshots::next_line`] returns them
    /// as [`StreamLine::History`], in one or more lines before the first snapshot. [`Snapshots::next`] drops them.
    ///
    /// An agent keeps figures for 10 minutes, or for the time of its setting `HISTORY`. An agent of an earlier version does not know the option,
    /// and [`Snapshots::next_line`] returns [`Error::Answered`]. The caller then connects without the history.
    ///
    /// # Errors
    /// Fails if the agent cannot be reached, the TLS handshake fails, or the key cannot be sent. See [`Error`].
    pub async fn connect_with_history(&self, period: Duration) -> Result<Snapshots, Error> {
        let seconds = period.min(MOST_HISTORY).as_millis().div_ceil(1000).max(1) as u64;
        let options = with_option(&self.options, "history", seconds.into());
        self.connect_asking(&options).await
    }

    /// Sends the key and the options.
    async fn send_key(&self, stream: &mut Box<dyn Stream>, options: &str) -> io::Result<()> {
        let mut line = Zeroizing::new(Vec::with_capacity(self.key.len() + options.len() + 2));
        line.extend_from_slice(&self.key);
        if !options.is_empty() {
            line.push(b' ');
            line.extend_from_slice(options.as_bytes());
        }
        line.push(b'\n');
        within(send(stream, &line)).await
    }

    /// Opens a connection, with TLS if it is set. Sends no key.
    pub(crate) async fn open(&self) -> Result<Box<dyn Stream>, Error> {
        let address = &self.address;
        let unreachable = |why| Error::Unreachable {
            address: address.clone(),
            why,
        };
        let stream = within(TcpStream::connect(address))
            .await
            .map_err(unreachable)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(4);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keepalive)
            .map_err(unreachable)?;
        let Some((config, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
        match within(handshake).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(why) => Err(Error::Tls {
                address: address.clone(),
                why: tls::plain(why),
            }),
        }
    }
}

/// The snapshots of one connection.
pub struct Snapshots {
    stream: BufReader<Box<dyn Stream>>,
    /// The JSON line that is being read.
    line: Vec<u8>,
    /// Whether a snapshot has arrived on this connection.
    seen: bool,
    /// The cursor of the connector.
    cursor: Arc<Mutex<Option<String>>>,
}

impl Snapshots {
    /// Reads the next snapshot. With the options `live` and `history`, use [`Self::next_line`]: this function drops the events and log
    /// lines that come between two snapshots, and the figures of the past.
    ///
    /// # Errors
    /// Fails as [`Self::next_line`] does.
    pub async fn next(&mut self) -> Result<Snapshot, Error> {
        loop {
            if let StreamLine::Snapshot(snapshot) = self.next_line().await? {
                return Ok(*snapshot);
            }
        }
    }

    /// Reads the next JSON line: a snapshot, or, with the option `live`, the events and log lines between two snapshots, or, with the
    /// option `history`, figures of the past before the first snapshot. If the
    /// future is dropped before it completes, the part of the JSON line that was read is lost.
    ///
    /// # Errors
    /// Fails if the agent refuses the client, if the connection ends, or if the JSON line cannot be read. See [`Error`]. After an
    /// error, connect again.
    pub async fn next_line(&mut self) -> Result<StreamLine, Error> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(MAX_LINE);
        limited.read_until(b'\n', &mut self.line).await?;
        match self.line.as_slice() {
            b"Unauthorized\n" if !self.seen => Err(Error::Unauthorized),
            line if line.last() == Some(&b'\n') => match StreamLine::read(line) {
                Ok(line) => {
                    self.seen = true;
                    let cursor = match &line {
                        StreamLine::Snapshot(snapshot) => snapshot.agent.cursor.as_ref(),
                        StreamLine::News(news) => news.agent.cursor.as_ref(),
                        StreamLine::History(_) => None,
                    };
                    if let Some(cursor) = cursor {
                        *lock(&self.cursor) = Some(cursor.clone());
                    }
                    Ok(line)
                }
                Err(error) if self.seen => Err(error.into()),
                Err(error) => match serde_json::from_slice(line) {
                    Ok(Answer { error }) => Err(Error::Answered(error)),
                    Err(_) => Err(error.into()),
                },
            },
            [] if !self.seen => Err(Error::Refused),
            [] => Err(Error::Closed),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The JSON line that the agent sends instead of snapshots if the options are wrong.
#[derive(serde::Deserialize)]
struct Answer {
    error: String,
}

/// Adds an option to options that do not have it. If the options are not a JSON object, returns them unchanged, and the agent reports them.
pub(crate) fn with_option(options: &str, name: &str, value: serde_json::Value) -> String {
    let mut asked = match serde_json::from_str(options) {
        Ok(serde_json::Value::Object(asked)) => asked,
        _ if options.is_empty() => serde_json::Map::new(),
        _ => return options.to_owned(),
    };
    asked.entry(name).or_insert(value);
    serde_json::Value::Object(asked).to_string()
}

/// Locks a mutex. Ignores poisoning, because no code panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(stream: &mut Box<dyn Stream>, line: &[u8]) -> io::Result<()> {
    stream.write_all(line).await?;
    stream.flush().await
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || {
        let text = format!("no answer within {STEP_TIMEOUT:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    timeout(STEP_TIMEOUT, step).await.map_err(|_| late())?
}

fn with_port(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(bare)) => format!("[{bare}]:{PORT}"),
        Ok(IpAddr::V4(bare)) => format!("{bare}:{PORT}"),
        Err(_) => {
            let after_host = address.rsplit(']').next().unwrap_or_default();
            match after_host.contains(':') {
                true => address.to_owned(),
                false => format!("{address}:{PORT}"),
            }
        }
    }
}

/// Returns the host of an address, without port and brackets. Accepts the same forms of addresses as [`Connector::new`].
#[must_use]
pub fn host_name(address: &str) -> String {
    host(&with_port(address)).to_owned()
}

/// Returns the host of an address that has a port, without port and brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::{host, with_port};

    #[test]
    fn an_address_without_a_port_gets_the_default_port() {
        for (given, full, bare) in [
            ("web-1", "web-1:9000", "web-1"),
            ("web-1:8000", "web-1:8000", "web-1"),
            ("10.0.0.7", "10.0.0.7:9000", "10.0.0.7"),
            ("10.0.0.7:1", "10.0.0.7:1", "10.0.0.7"),
            ("::1", "[::1]:9000", "::1"),
            ("[::1]", "[::1]:9000", "::1"),
            ("[fe80::1]:90", "[fe80::1]:90", "fe80::1"),
        ] {
            assert_eq!(with_port(given), full);
            assert_eq!(host(full), bare);
        }
    }
}
