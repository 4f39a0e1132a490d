//! A client that asks for metrics as Prometheus does.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::agent::TIMEOUT;

/// The formats that Prometheus asks for.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// An answer to a request.
pub(super) struct Answer {
    /// The time from the request to the final byte of the answer.
    pub(super) took: Duration,
    /// The value of `Content-Encoding`, or an empty text.
    pub(super) encoding: String,
    pub(super) body: Vec<u8>,
}

/// Asks for a page. `encoding` is the compression that the client accepts, or an empty text.
pub(super) fn get(address: SocketAddr, path: &str, encoding: &str) -> io::Result<Answer> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAccept: {ACCEPT}\r\n"
    );
    if !encoding.is_empty() {
        request += &format!("Accept-Encoding: {encoding}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let took = began.elapsed();
    parse(&answer, took).ok_or_else(|| io::Error::other(format!("no page at {address}{path}")))
}

fn parse(answer: &[u8], took: Duration) -> Option<Answer> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|part| part == END)?;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_lowercase();
    let mut lines = head.lines();
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let header = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.strip_prefix(": "))
    };
    let body = &answer[end + END.len()..];
    let body = match header("transfer-encoding") {
        Some("chunked") => unchunked(body)?,
        _ => body.to_vec(),
    };
    Some(Answer {
        took,
        encoding: header("content-encoding").unwrap_or_default().to_owned(),
        body,
    })
}

/// Joins the chunks of a body.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.iter().position(|byte| *byte == b'\n')?;
        let length = std::str::from_utf8(&body[..end]).ok()?.trim();
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 1..end + 1 + length)?);
        body = body.get(end + 1 + length + 2..)?;
    }
}
