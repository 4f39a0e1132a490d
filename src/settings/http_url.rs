//! The URL of an HTTP server: a receiver of OpenTelemetry, or the folder of releases.

use std::fmt;
use std::net::IpAddr;

/// The accepted form of a URL, for error messages.
pub(super) const ACCEPTED: &str =
    "accepted: http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]";
/// Maximum length of a URL, in bytes.
const MAX_LENGTH: usize = 2048;

/// The URL of an HTTP server, without credentials. Only the URL of a redirection can have a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether the URL begins with `https://`.
    pub tls: bool,
    /// The name or address of the host, without brackets.
    pub host: String,
    /// The port. Without a port in the URL, 80 or 443.
    pub port: u16,
    /// The path, with its leading `/`. After a redirection, it can have a query.
    pub path: String,
}

impl HttpUrl {
    /// Reads a URL, and appends a path to it, such as `/v1/logs`.
    ///
    /// # Errors
    /// Fails if the text is not such a URL. The error does not contain the text, because it can have a secret.
    pub fn parse_base(text: &str, path: &str) -> Result<Self, String> {
        let mut url = Self::parse(text)?;
        url.path.truncate(url.path.trim_end_matches('/').len());
        url.path += path;
        Ok(url)
    }

    /// Reads a complete URL.
    ///
    /// # Errors
    /// Fails if the text is not such a URL. The error does not contain the text, because it can have a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let problem = |words: &str| Err(format!("{words}; {ACCEPTED}"));
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return problem("unsupported scheme"),
            None => return problem("no scheme"),
        };
        if text.len() > MAX_LENGTH {
            return problem("too long");
        }
        if rest.contains('@') {
            return problem("credentials in the URL");
        }
        if rest.contains(['?', '#', '\\']) || !rest.chars().all(|one| one.is_ascii_graphic()) {
            return problem("more than a host, a port and a path");
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let after_address = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[after_address..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(after_address + colon);
                (host, Some(&port[1..]))
            }
            None => (authority, None),
        };
        let port = match port.map(str::parse::<u16>) {
            None if tls => 443,
            None => 80,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return problem("not a port"),
        };
        let host = match host.strip_prefix('[') {
            Some(address) => match address.strip_suffix(']') {
                Some(address) if address.parse::<IpAddr>().is_ok() => address,
                _ => return problem("not a host"),
            },
            None => host,
        };
        let is_name = |one: char| one.is_ascii_alphanumeric() || "-._:".contains(one);
        if host.is_empty() || !host.chars().all(is_name) {
            return problem("not a host");
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// Returns the URL to which a server redirects a request for this URL. `location` is the header `Location`: a URL, or a path that
    /// begins with `/`. Unlike other URLs, it can have a query.
    ///
    /// # Errors
    /// Fails if `location` is not a URL of an HTTP server, or if it leaves HTTPS. The error does not contain the text.
    pub fn redirected(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        if location.len() > MAX_LENGTH {
            return Err(format!("too long; {ACCEPTED}"));
        }
        let (place, query) = match location.find('?') {
            Some(mark) => location.split_at(mark),
            None => (location, ""),
        };
        if !query.chars().all(|one| one.is_ascii_graphic()) {
            return Err(format!("not the text of a URL; {ACCEPTED}"));
        }
        let scheme = if self.tls { "https" } else { "http" };
        let place = match place {
            same_scheme if same_scheme.starts_with("//") => format!("{scheme}:{same_scheme}"),
            path if path.starts_with('/') => format!("{scheme}://{}{path}", self.authority()),
            whole => whole.to_owned(),
        };
        let mut url = Self::parse(&place)?;
        if self.tls && !url.tls {
            return Err("it leaves HTTPS".to_owned());
        }
        url.path += query;
        Ok(url)
    }

    /// Whether the server is on this host.
    #[must_use]
    pub fn is_on_this_host(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Returns the host and the port, for the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        // The query of a redirection can have a secret.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::HttpUrl;

    #[test]
    fn the_path_of_the_signal_follows_a_base_url() {
        for (base, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
            ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
            (
                "https://otlp.example.org",
                "https://otlp.example.org:443/v1/logs",
            ),
            (
                "http://[::1]:9090/api/v1/otlp",
                "http://[::1]:9090/api/v1/otlp/v1/logs",
            ),
            ("http://h/a//", "http://h:80/a/v1/logs"),
        ] {
            let url = HttpUrl::parse_base(base, "/v1/logs").unwrap();
            assert_eq!(url.to_string(), expected);
        }
        let whole = HttpUrl::parse("https://a.example.org:8443/insert").unwrap();
        assert_eq!(whole.to_string(), "https://a.example.org:8443/insert");
    }

    #[test]
    fn a_url_without_a_host_or_with_more_than_a_path_is_refused() {
        for text in [
            "127.0.0.1:4318",
            "grpc://h",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:99999",
            "http://user:secret@h",
            "http://h/?a=b",
            "http://h/#a",
            "http://two words",
            "http://[nonsense]",
            "http://ä",
        ] {
            let problem = HttpUrl::parse(text).unwrap_err();
            assert!(
                problem.contains("accepted: ") && !problem.contains("secret"),
                "{text}: {problem}"
            );
        }
    }

    #[test]
    fn a_redirection_can_change_the_host_and_must_not_leave_https() {
        let from = HttpUrl::parse("https://h:8443/a/latest").unwrap();
        for (location, expected, path) in [
            ("/b?c=d", "https://h:8443/b", "/b?c=d"),
            ("//other/b", "https://other:443/b", "/b"),
            ("https://other/b?sig=x#y", "https://other:443/b", "/b?sig=x"),
        ] {
            let url = from.redirected(location).unwrap();
            assert_eq!((url.to_string(), &*url.path), (expected.to_owned(), path));
        }
        for location in [
            "http://h/b",
            "b",
            "",
            "ftp://h/",
            "https://user:pw@h/",
            "/b?c d",
        ] {
            from.redirected(location).unwrap_err();
        }
        let plain = HttpUrl::parse("http://h/latest").unwrap();
        assert!(plain.redirected("https://h/latest").unwrap().tls);
        assert_eq!(plain.redirected("/b").unwrap().to_string(), "http://h:80/b");
    }

    #[test]
    fn only_loopback_addresses_are_on_this_host() {
        for (text, expected) in [
            ("http://localhost", true),
            ("http://127.1.2.3", true),
            ("http://[::1]", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example.org", false),
        ] {
            assert_eq!(
                HttpUrl::parse(text).unwrap().is_on_this_host(),
                expected,
                "{text}"
            );
        }
    }
}
