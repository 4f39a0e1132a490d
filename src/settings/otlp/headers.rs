//! The headers of requests to a receiver of OpenTelemetry. A header can have a secret, such as a token.

use std::fmt;
use std::path::PathBuf;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::super::key::read_secret;

/// Maximum size of the file with headers, in bytes.
const MAX_FILE: usize = 64 * 1024;
/// Maximum number of headers.
const MAX_HEADERS: usize = 64;
/// The headers that the agent itself sets.
const OWN: [&str; 8] = [
    "host",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
];

/// The headers of requests. The file is read again for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtlpHeaders {
    /// `OTLP_HEADERS_FILE`: a file with a header in each line.
    File(PathBuf),
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    Given(HeaderList),
}

/// Headers whose values are not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(HeaderName, HeaderValue)>);

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl OtlpHeaders {
    /// Returns the headers. Blocks the thread until the file system answers.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or if a line is not a header. The text never contains a line of the file.
    pub fn load(&self) -> Result<HeaderList, String> {
        let path = match self {
            Self::Given(headers) => return Ok(headers.clone()),
            Self::File(path) => path,
        };
        let accepted = "accepted: a file with a line `Name: value` for each header";
        let text = read_secret(path, MAX_FILE)
            .map_err(|error| format!("the file cannot be read: {error}; {accepted}"))?;
        if text.len() > MAX_FILE {
            return Err(format!(
                "the file is longer than {MAX_FILE} bytes; {accepted}"
            ));
        }
        let text = std::str::from_utf8(&text)
            .map_err(|_| format!("the file is not UTF-8 text; {accepted}"))?;
        let mut headers = HeaderList::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.split_once(':').ok_or("not a header");
            header
                .and_then(|(name, value)| headers.push(name.trim(), value.trim()))
                .map_err(|problem| {
                    format!("line {} of the file: {problem}; {accepted}", index + 1)
                })?;
        }
        Ok(headers)
    }
}

impl HeaderList {
    /// Reads pairs `name=value`, separated by commas. A value can have characters in the form `%20`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let accepted = "accepted: NAME=VALUE, several separated by commas";
        let mut headers = Self::default();
        for (index, pair) in text.split(',').enumerate() {
            let pair = pair.trim();
            if pair.is_empty() {
                continue;
            }
            let pair = pair.split_once('=').ok_or("not a header");
            pair.and_then(|(name, value)| {
                let value = Zeroizing::new(super::standard::percent_decoded(value.trim()));
                headers.push(name.trim(), &value)
            })
            .map_err(|problem| format!("entry {}: {problem}; {accepted}", index + 1))?;
        }
        Ok(headers)
    }

    fn push(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| "not the name of a header")?;
        if OWN.contains(&name.as_str()) {
            return Err("a header that the agent sets itself");
        }
        if self.0.len() == MAX_HEADERS {
            return Err("too many headers");
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| "not the value of a header")?;
        value.set_sensitive(true);
        self.0.push((name, value));
        Ok(())
    }

    /// Adds the headers to a request.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hyper::HeaderMap;

    use super::{HeaderList, OtlpHeaders};

    fn shown(headers: &HeaderList) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        headers.add_to(&mut map);
        map.iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn a_file_has_a_header_in_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let headers = OtlpHeaders::File(path.clone());
        fs::write(
            &path,
            "# Grafana Cloud\nAuthorization: Basic abc:d==\n\nX-Scope-OrgID: team\r\n",
        )
        .unwrap();
        let expected = [
            ("authorization", "Basic abc:d=="),
            ("x-scope-orgid", "team"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(shown(&headers.load().unwrap()), expected);
        for wrong in [
            "a secret",
            "Na me: secret",
            "Host: secret",
            "A: sec\u{1}ret",
        ] {
            fs::write(&path, format!("A: b\n{wrong}\n")).unwrap();
            let problem = headers.load().unwrap_err();
            assert!(
                problem.contains("line 2") && !problem.contains("secret"),
                "{problem}"
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(headers.load().unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn pairs_are_percent_decoded_and_never_shown() {
        let headers = HeaderList::parse("api-key=se%20cret, X-A=b%3D").unwrap();
        let expected = [("api-key", "se cret"), ("x-a", "b=")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(shown(&headers), expected);
        assert!(!format!("{headers:?}").contains("cret"));
        let problem = HeaderList::parse("a=b,secret").unwrap_err();
        assert!(
            problem.contains("entry 2") && !problem.contains("secret"),
            "{problem}"
        );
    }
}
