//! `DOCKER_HOST`: the address of the engine.

use std::fmt;
use std::path::{Path, PathBuf};

/// The accepted forms of `DOCKER_HOST`, for error messages.
const ACCEPTED: &str = "accepted: unix:///PATH, tcp://HOST[:PORT]";

/// The address of the engine, in the form that Docker's own clients read from `DOCKER_HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerHost {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address, `HOST:PORT`, of a socket proxy or of an engine that listens on TCP.
    Tcp(String),
}

impl Default for DockerHost {
    fn default() -> Self {
        Self::Unix(PathBuf::from("/var/run/docker.sock"))
    }
}

impl DockerHost {
    /// Whether the address is the default socket of a Docker engine on this host. Any other address can belong to a proxy.
    #[must_use]
    pub fn is_the_hosts_own(&self) -> bool {
        let Self::Unix(path) = self else {
            return false;
        };
        ["/var/run/docker.sock", "/run/docker.sock"]
            .iter()
            .any(|own| path == Path::new(own))
    }

    /// Reads a value of `DOCKER_HOST`.
    ///
    /// # Errors
    /// Fails if the value is not such an address. The error says which forms are accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("no scheme; {ACCEPTED}"));
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err(format!("not an absolute path; {ACCEPTED}")),
            "tcp" | "http" => Self::parse_tcp(rest.trim_end_matches('/')),
            _ => Err(format!("unsupported scheme; {ACCEPTED}")),
        }
    }

    fn parse_tcp(rest: &str) -> Result<Self, String> {
        if rest.contains(['/', '@', '?', '#', ' ']) {
            return Err(format!("more than a host and a port; {ACCEPTED}"));
        }
        // An IPv6 address has colons too. The colon of a port stands after the closing bracket.
        let after_address = rest.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match rest[after_address..].split_once(':') {
            Some((between, port)) => (&rest[..after_address + between.len()], port),
            None => (rest, "2375"),
        };
        if host.is_empty() {
            return Err(format!("no host; {ACCEPTED}"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self::Tcp(format!("{host}:{port}"))),
            _ => Err(format!("not a port; {ACCEPTED}")),
        }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DockerHost;

    #[test]
    fn addresses_that_docker_accepts_are_accepted() {
        for (text, shown) in [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://proxy:2375", "tcp://proxy:2375"),
            ("tcp://127.0.0.1", "tcp://127.0.0.1:2375"),
            ("tcp://[::1]:99/", "tcp://[::1]:99"),
            ("http://[::1]", "tcp://[::1]:2375"),
        ] {
            assert_eq!(DockerHost::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_addresses_are_refused_and_the_error_says_what_is_accepted() {
        for text in [
            "/var/run/docker.sock",
            "unix://run/docker.sock",
            "ssh://host",
            "npipe:////./pipe/docker",
            "tcp://",
            "tcp://host:",
            "tcp://host:0",
            "tcp://host:70000",
            "tcp://user:secret@host:1",
            "tcp://host:1/path",
        ] {
            let error = DockerHost::parse(text).unwrap_err();
            assert!(error.contains("accepted: unix:///PATH"), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
