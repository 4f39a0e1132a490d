//! `system-agent update --check`: finds out whether a newer release exists. Installs nothing.
//!
//! The folder of releases has the text file `latest`, with the version of the newest release in one line.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode};
use semver::Version;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Trust, TrustError};
use crate::http_connection::{USER_AGENT_VALUE, connect, plain};
use crate::settings::HttpUrl;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The file with the version of the newest release.
const LATEST: &str = "/latest";
/// Maximum number of redirections. A server of releases often redirects to the server that has the files.
const MAX_REDIRECTIONS: usize = 5;
/// Limit on the time of all requests together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on the file, in bytes.
const MAX_FILE: usize = 1024;

/// The reason why it is not known whether a newer release exists.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The URL is not one of an HTTP server.
    #[error("{0}")]
    Url(String),
    /// The certificates of the system cannot be used.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// The server was not reached, or it has closed the connection.
    #[error("{url}: {error}")]
    Connection {
        /// The URL of the file.
        url: HttpUrl,
        /// What has failed.
        error: io::Error,
    },
    /// The server has not answered in time.
    #[error("{url}: no answer within {} s", TIMEOUT.as_secs())]
    Late {
        /// The URL of the file.
        url: HttpUrl,
    },
    /// The server does not have the file.
    #[error("{url}: the server answers {status}")]
    Status {
        /// The URL of the file.
        url: HttpUrl,
        /// The status of the answer.
        status: StatusCode,
    },
    /// The server redirects the request to an address that is not accepted.
    #[error("{url}: the server redirects to another address: {reason}")]
    Redirection {
        /// The URL of the file.
        url: HttpUrl,
        /// Why the address is not accepted.
        reason: String,
    },
    /// The server, or the servers to which it redirects, redirect the request too often.
    #[error("{0}: more than {MAX_REDIRECTIONS} redirections")]
    TooManyRedirections(HttpUrl),
    /// The file is too long.
    #[error("{0}: longer than {MAX_FILE} bytes; expected: one line with a version")]
    TooLong(HttpUrl),
    /// The file has no version.
    #[error("{0}: not a version; expected: one line such as 1.2.3")]
    NoVersion(HttpUrl),
}

/// Requests the version of the newest release. Returns it if it is newer than this program. `folder` is the URL of the folder of
/// releases.
///
/// # Errors
/// Fails if the URL is wrong, or if the server does not answer with a version.
pub async fn newer_release(folder: &str) -> Result<Option<Version>, UpdateError> {
    let url = HttpUrl::parse_base(folder, LATEST).map_err(UpdateError::Url)?;
    let text = match timeout(TIMEOUT, follow(&url)).await {
        Ok(text) => text?,
        Err(_) => return Err(UpdateError::Late { url }),
    };
    let newest = std::str::from_utf8(&text).ok();
    let newest = newest.and_then(|text| Version::parse(text.trim_ascii()).ok());
    let newest = newest.ok_or(UpdateError::NoVersion(url))?;
    Ok(is_newer(&newest, VERSION).then_some(newest))
}

fn is_newer(release: &Version, than: &str) -> bool {
    // Cargo accepts only such versions. Build metadata do not count.
    Version::parse(than).is_ok_and(|than| release.cmp_precedence(&than).is_gt())
}

/// Requests a file, and follows redirections.
async fn follow(first: &HttpUrl) -> Result<Bytes, UpdateError> {
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTIONS {
        match read(&url).await? {
            Answer::File(text) => return Ok(text),
            Answer::Elsewhere(other) => url = other,
        }
    }
    Err(UpdateError::TooManyRedirections(first.clone()))
}

/// The answer of a server.
enum Answer {
    File(Bytes),
    /// The file has another URL.
    Elsewhere(HttpUrl),
}

async fn read(url: &HttpUrl) -> Result<Answer, UpdateError> {
    let tls = match url.tls {
        true => Some(TlsConnector::from(Trust::system()?.client_config(None)?)),
        false => None,
    };
    let failed = |error| UpdateError::Connection {
        url: url.clone(),
        error,
    };
    let request = request(url).map_err(failed)?;
    let mut connection = connect(url, tls.as_ref()).await.map_err(failed)?;
    let answer = connection.send_request(request).await;
    let answer = answer.map_err(|error| failed(plain(&error)))?;
    let status = answer.status();
    if let StatusCode::MOVED_PERMANENTLY
    | StatusCode::FOUND
    | StatusCode::SEE_OTHER
    | StatusCode::TEMPORARY_REDIRECT
    | StatusCode::PERMANENT_REDIRECT = status
    {
        let location = answer.headers().get(LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let other = location.map_or_else(
            || Err("the answer has no usable header Location".to_owned()),
            |location| url.redirected(location),
        );
        return match other {
            Ok(other) => Ok(Answer::Elsewhere(other)),
            Err(reason) => Err(UpdateError::Redirection {
                url: url.clone(),
                reason,
            }),
        };
    }
    if status != StatusCode::OK {
        let url = url.clone();
        return Err(UpdateError::Status { url, status });
    }
    let text = Limited::new(answer.into_body(), MAX_FILE).collect().await;
    match text {
        Ok(text) => Ok(Answer::File(text.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(UpdateError::TooLong(url.clone())),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}

fn request(url: &HttpUrl) -> io::Result<Request<Full<Bytes>>> {
    let mut request = Request::get(&url.path)
        .body(Full::default())
        .map_err(io::Error::other)?;
    let host = HeaderValue::from_str(&url.authority()).map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use semver::Version;

    use super::is_newer;

    #[test]
    fn versions_are_compared_by_their_numbers_and_a_release_is_newer_than_its_pre_releases() {
        for (release, than, expected) in [
            ("0.1.0", "0.1.0", false),
            ("0.1.1", "0.1.0", true),
            ("0.10.0", "0.9.0", true),
            ("0.9.9", "0.10.0", false),
            ("1.0.0-rc.1", "1.0.0", false),
            ("1.0.0", "1.0.0-rc.1", true),
            ("1.0.0-rc.10", "1.0.0-rc.9", true),
            ("1.0.0+build.7", "1.0.0", false),
        ] {
            let release = Version::parse(release).unwrap();
            assert_eq!(is_newer(&release, than), expected, "{release} than {than}");
        }
    }
}
