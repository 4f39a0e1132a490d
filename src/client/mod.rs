//! A client of agents: connects, shows a key, reads snapshots. What `watch` and `check socket` use, for programs in Rust.
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
//!         // Whoever wants to stay connects again, a little later each time: see `Backoff`.
//!         Err(Error::Unauthorized) => return Err("wrong key".into()),
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # }
//! ```

mod tls;

pub use crate::backoff::Backoff;
pub use tls::{Identity, Trust, TrustError};

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::model::{self, Snapshot};
use crate::settings::ApiKey;

/// The port that agents listen on unless they are told otherwise.
pub const PORT: u16 = 9000;
/// How long each step may take until the key is sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line that is read, in bytes: far above any real snapshot.
const LONGEST_LINE: u64 = 256 * 1024 * 1024;
/// Room for what the kernel has received, in bytes.
const BUFFER: usize = 64 * 1024;
/// A host that has vanished without a word is noticed after this time and four times the other; that a snapshot is late does
/// not show it, as they may be an hour apart.
const SILENT: Duration = Duration::from_secs(10);
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// Why there are no snapshots, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent cannot be reached.
    #[error("cannot connect to {address}: {why}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the operating system says.
        why: io::Error,
    },
    /// No TLS with the agent.
    #[error("TLS with {address}: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong: a certificate that is not trusted, a certificate that is asked for, no TLS on the other side.
        why: io::Error,
    },
    /// The agent does not know the key.
    #[error("the key was refused: it is not one of the agent's")]
    Unauthorized,
    /// The agent does not know an option, or its value.
    #[error("the agent answered: {0}")]
    Answered(String),
    /// The agent closed the connection before the first snapshot.
    #[error(
        "the connection was closed without a word: is this address on the agent's WHITELISTED_CLIENTS, and TLS_ENABLED the \
         agent's? Or have too many wrong keys come from it?"
    )]
    Refused,
    /// The agent closed the connection after a snapshot: it has ended, or this client read too slowly.
    #[error("the agent closed the connection")]
    Closed,
    /// The agent accepts, and says nothing.
    #[error(
        "no snapshot within {0:?} of the key: is it an agent that listens there, and does it run?"
    )]
    Silent(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What arrived is no snapshot.
    #[error("not a valid snapshot: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// How an agent is reached. Connects as often as wanted.
pub struct Connector {
    address: String,
    /// The key and the options.
    key: Zeroizing<Vec<u8>>,
    options: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Anything that bytes go through both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connector {
    /// The agent at `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets with a port; [`PORT`] where none is given.
    #[must_use]
    pub fn new(address: &str, key: &ApiKey) -> Self {
        Self {
            address: with_port(address),
            key: Zeroizing::new(key.expose().to_vec()),
            options: String::new(),
            tls: None,
        }
    }

    /// What to ask for after the key: a JSON object, as the README lists it.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// With TLS: whom to trust, and who this client is where the agent asks for a certificate. The agent's certificate must
    /// have this name; that of the host that is connected to, where none is given.
    ///
    /// # Errors
    /// Where certificate and key do not belong together, or the host cannot be named in a certificate.
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

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects and shows the key. Whether it was accepted the first snapshot tells.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(&self) -> Result<Snapshots, Error> {
        self.connect_asking(&self.options).await
    }

    /// The same, with other options this time.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect_asking(&self, options: &str) -> Result<Snapshots, Error> {
        let mut stream = self.open().await?;
        let mut line = Zeroizing::new(Vec::with_capacity(self.key.len() + options.len() + 2));
        line.extend_from_slice(&self.key);
        if !options.is_empty() {
            line.push(b' ');
            line.extend_from_slice(options.as_bytes());
        }
        line.push(b'\n');
        within(send(&mut stream, &line)).await?;
        Ok(Snapshots {
            stream: BufReader::with_capacity(BUFFER, stream),
            line: Vec::new(),
            seen: false,
        })
    }

    /// A connection, with TLS where that is wanted, on which nothing has been said.
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
            .with_time(SILENT)
            .with_interval(ASKED_EVERY)
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
    /// Room for a line.
    line: Vec<u8>,
    /// Whether one has come.
    seen: bool,
}

impl Snapshots {
    /// The next one. Not safe to be dropped half-way: what was read of a line by then is lost.
    ///
    /// # Errors
    /// See [`Error`]; after one there are no more.
    pub async fn next(&mut self) -> Result<Snapshot, Error> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LONGEST_LINE);
        limited.read_until(b'\n', &mut self.line).await?;
        match self.line.as_slice() {
            b"Unauthorized\n" if !self.seen => Err(Error::Unauthorized),
            line if line.last() == Some(&b'\n') => match model::read(line) {
                Ok(snapshot) => {
                    self.seen = true;
                    Ok(snapshot)
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

/// What the agent says instead of a snapshot.
#[derive(serde::Deserialize)]
struct Answer {
    error: String,
}

async fn send(stream: &mut Box<dyn Stream>, line: &[u8]) -> io::Result<()> {
    stream.write_all(line).await?;
    stream.flush().await
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || {
        let text = format!("no answer within {PATIENCE:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    timeout(PATIENCE, step).await.map_err(|_| late())?
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

/// The host of an address as [`Connector::new`] takes it, without port and brackets.
#[must_use]
pub fn host_name(address: &str) -> String {
    host(&with_port(address)).to_owned()
}

/// Without the port, and an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::{host, with_port};

    #[test]
    fn addresses_have_a_port_and_a_host() {
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
