//! A connection to an HTTP server, for the output to OpenTelemetry and for the command `update`.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::settings::HttpUrl;

/// The value of the header `User-Agent`.
pub(crate) const USER_AGENT_VALUE: &str = concat!("system-agent/", env!("CARGO_PKG_VERSION"));

/// Connects to the server of a URL. `tls` is None for a URL with `http://`.
pub(crate) async fn connect(
    url: &HttpUrl,
    tls: Option<&TlsConnector>,
) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect((&*url.host, url.port)).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => handshake(stream).await,
        Some(tls) => {
            let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
            handshake(tls.connect(name, stream).await?).await
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| plain(&error))?;
    // The task ends when the server or the sender closes the connection. The sender gets the error.
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Returns the cause of an error of hyper, because hyper's own text does not name it.
pub(crate) fn plain(error: &hyper::Error) -> io::Error {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    io::Error::other(cause.unwrap_or_else(|| error.to_string()))
}
