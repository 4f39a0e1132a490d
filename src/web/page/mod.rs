//! The files of the page. They are built in advance, and this program contains them.

use std::borrow::Cow;
use std::io;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};

use crate::hash::{FNV64, fnv64};

// The list of the files in `dist`, made by build.rs.
include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// The name of the file for all addresses of the page.
const INDEX: &str = "index.html";
/// The level of gzip. The files are compressed once.
const LEVEL: i32 = 12;

/// The files of the page.
pub(super) struct Page(Vec<File>);

/// One file.
struct File {
    name: Cow<'static, str>,
    content: Bytes,
    /// The content with gzip. None if that is not smaller.
    gzip: Option<Bytes>,
    etag: HeaderValue,
}

impl Page {
    /// The files that this program contains.
    pub(super) fn built() -> Self {
        let files = FILES.iter();
        Self::of(files.map(|(name, content)| (Cow::Borrowed(*name), Bytes::from_static(content))))
    }

    fn of(files: impl Iterator<Item = (Cow<'static, str>, Bytes)>) -> Self {
        let file = |(name, content): (Cow<'static, str>, Bytes)| {
            let hash = fnv64(FNV64, &content);
            let etag = HeaderValue::try_from(format!("\"{hash:016x}\""));
            File {
                name,
                gzip: gzip(&content, LEVEL).map(Bytes::from),
                content,
                etag: etag.unwrap_or(HeaderValue::from_static("\"\"")),
            }
        };
        Self(files.map(file).collect())
    }

    /// Answers a request for a file. An address of the page that is no file has the content of `index.html`.
    pub(super) fn answer(&self, path: &str, headers: &HeaderMap) -> Response {
        let name = path.trim_start_matches('/');
        // The files are not in folders. The name of a host in an address can have dots.
        let is_view = name.contains('/') || !name.contains('.');
        let named = |name: &str| self.0.iter().find(|file| file.name == name);
        let file = named(name).or_else(|| named(INDEX).filter(|_| is_view));
        let Some(file) = file else {
            let text = match self.0.is_empty() {
                true => {
                    "this program was built without its page; its API is at /api/v1/openapi.json\n"
                }
                false => "there is no such file\n",
            };
            let mut answer = Response::new(Body::from(text));
            *answer.status_mut() = StatusCode::NOT_FOUND;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, plain);
            return answer;
        };
        let known = headers.get(header::IF_NONE_MATCH);
        let is_known = known.is_some_and(|known| {
            let known = known.to_str().unwrap_or_default().split(',');
            let mut known = known.map(|one| one.trim().trim_start_matches("W/"));
            known.any(|one| one == file.etag)
        });
        let zipped = file.gzip.as_ref().filter(|_| accepts_gzip(headers));
        let body = match is_known {
            true => Body::empty(),
            false => Body::from(zipped.unwrap_or(&file.content).clone()),
        };
        let mut answer = Response::new(body);
        let all = answer.headers_mut();
        all.insert(header::ETAG, file.etag.clone());
        // The browser asks each time whether the file has changed.
        all.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        all.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        let kind = HeaderValue::from_static(kind_of(&file.name));
        all.insert(header::CONTENT_TYPE, kind);
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else if zipped.is_some() {
            all.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        Some("png") => "image/png",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether a request accepts gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING);
    let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            let weight = weight.trim().trim_start_matches("q=");
            name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().unwrap_or(1.0) > 0.0
        })
    })
}

/// Compresses a text. None if it does not become smaller.
pub(super) fn gzip(text: &[u8], level: i32) -> Option<Vec<u8>> {
    let level = CompressionLvl::new(level).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let mut zipped = vec![0; compressor.gzip_compress_bound(text.len())];
    let length = compressor.gzip_compress(text, &mut zipped);
    let length = length.map_err(|_| io::ErrorKind::Other).ok()?;
    zipped.truncate(length);
    (length < text.len()).then_some(zipped)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use axum::http::{HeaderMap, HeaderValue, header};
    use bytes::Bytes;

    use super::{Page, accepts_gzip};

    fn page() -> Page {
        let files = [
            ("index.html", "<!doctype html>".to_owned()),
            ("app.js", "let a = 1;".repeat(100)),
        ];
        let files = files.into_iter();
        Page::of(files.map(|(name, text)| (Cow::Borrowed(name), Bytes::from(text))))
    }

    #[test]
    fn every_view_is_the_index_and_a_missing_file_is_an_error() {
        let page = page();
        for (path, status, kind) in [
            ("/", 200, "text/html; charset=utf-8"),
            ("/hosts/alpha/web", 200, "text/html; charset=utf-8"),
            ("/app.js", 200, "text/javascript; charset=utf-8"),
            ("/other.js", 404, "text/plain; charset=utf-8"),
            (
                "/hosts/web-1.example.org:9000",
                200,
                "text/html; charset=utf-8",
            ),
        ] {
            let answer = page.answer(path, &HeaderMap::new());
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{path}");
        }
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let page = page();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("br, gzip"),
        );
        let answer = page.answer("/app.js", &headers);
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        let etag = answer.headers()[header::ETAG].clone();
        headers.insert(header::IF_NONE_MATCH, etag);
        assert_eq!(page.answer("/app.js", &headers).status(), 304);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        assert_eq!(page.answer("/app.js", &headers).status(), 200);
    }

    #[test]
    fn gzip_with_the_weight_zero_is_not_accepted() {
        for (text, accepted) in [
            ("gzip, deflate, br", true),
            ("GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            assert_eq!(accepts_gzip(&headers), accepted, "{text}");
        }
    }
}
