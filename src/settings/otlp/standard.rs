//! Reads the standard variables of OpenTelemetry. The variables of one signal win over those of all signals.

use std::path::PathBuf;
use std::time::Duration;

use super::super::parse::Reader;
use super::super::standard::{
    COMPRESSION, ENDPOINT, HEADERS, PROTOCOL, RESOURCE_ATTRIBUTES, SERVICE_NAME, STATE_DIRECTORY,
    Standard, TIMEOUT,
};
use super::{HeaderList, HttpUrl, OtlpCompression, without_credentials};

/// The longest timeout, in milliseconds.
const MAX_TIMEOUT: u64 = 3_600_000;
/// Maximum number of resource attributes.
const MAX_ATTRIBUTES: usize = 64;

/// A kind of signals. Events of containers are logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Metrics,
    Logs,
}

impl Signal {
    /// The path that follows a URL for all signals.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }
}

impl Standard {
    /// Whether one of the variables is set.
    pub(super) fn is_set(&self, reader: &Reader) -> bool {
        self.0.iter().any(|name| reader.standard(name).is_some())
    }

    /// Returns the variable that counts for a signal, and its value.
    pub(super) fn of(&self, reader: &Reader, signal: Signal) -> Option<(&'static str, String)> {
        let [all, metrics, logs] = self.0;
        let own = match signal {
            Signal::Metrics => metrics,
            Signal::Logs => logs,
        };
        [own, all]
            .into_iter()
            .find_map(|name| Some((name, reader.standard(name)?.to_owned())))
    }

    fn read<T>(
        &self,
        reader: &mut Reader,
        signal: Signal,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (variable, text) = self.of(reader, signal)?;
        reader.optional(variable, &Some(text), parse)
    }
}

/// Returns the URL of a signal. The path of the signal follows only the URL for all signals.
pub(super) fn endpoint(reader: &mut Reader, signal: Signal) -> Option<HttpUrl> {
    let (variable, text) = ENDPOINT.of(reader, signal)?;
    reader.optional(variable, &Some(text), |text| {
        without_credentials(text)?;
        if variable == ENDPOINT.0[0] {
            HttpUrl::parse_base(text, signal.path())
        } else {
            HttpUrl::parse(text)
        }
    })
}

pub(super) fn headers(reader: &mut Reader, signal: Signal) -> HeaderList {
    let read = HEADERS.read(reader, signal, HeaderList::parse);
    read.unwrap_or_default()
}

/// Returns the timeout. The standard variable is a number of milliseconds.
pub(super) fn timeout(reader: &mut Reader, signal: Signal) -> Option<Duration> {
    TIMEOUT.read(reader, signal, |text| match text.parse::<u64>() {
        Ok(number) if (1..=MAX_TIMEOUT).contains(&number) => Ok(Duration::from_millis(number)),
        _ => Err(format!(
            "not a number of milliseconds; accepted: 1 to {MAX_TIMEOUT}"
        )),
    })
}

pub(super) fn compression(reader: &mut Reader, signal: Signal) -> OtlpCompression {
    let read = COMPRESSION.read(reader, signal, OtlpCompression::parse);
    read.unwrap_or_default()
}

/// Records a problem if the standard variable names a protocol that the agent does not have.
pub(super) fn check_protocol(reader: &mut Reader, signal: Signal) {
    PROTOCOL.read(reader, signal, |text| match text {
        "http/protobuf" => Ok(()),
        _ => Err("unsupported protocol; accepted: http/protobuf".to_owned()),
    });
}

/// Returns the attributes in `OTEL_RESOURCE_ATTRIBUTES`: pairs `name=value`, separated by commas.
pub(super) fn resource_attributes(reader: &mut Reader) -> Vec<(String, String)> {
    let text = reader.standard(RESOURCE_ATTRIBUTES).map(str::to_owned);
    let read = reader.optional(RESOURCE_ATTRIBUTES, &text, |text| {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pairs: Option<Vec<_>> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let name = percent_decoded(name.trim());
                (!name.is_empty()).then(|| (name, percent_decoded(value.trim())))
            })
            .collect();
        pairs
            .filter(|pairs| pairs.len() <= MAX_ATTRIBUTES)
            .ok_or_else(|| {
                format!("not a list of attributes; accepted: up to {MAX_ATTRIBUTES} pairs NAME=VALUE, separated by commas")
            })
    });
    read.unwrap_or_default()
}

pub(super) fn service_name(reader: &Reader) -> Option<String> {
    reader.standard(SERVICE_NAME).map(str::to_owned)
}

/// Returns the first directory in `STATE_DIRECTORY`.
pub(super) fn state_directory(reader: &Reader) -> Option<PathBuf> {
    let first = reader.standard(STATE_DIRECTORY)?.split(':').next()?;
    let path = PathBuf::from(first);
    path.is_absolute().then_some(path)
}

/// Replaces `%XX` by the character with this code. Other text stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => {
                decoded.push(code);
                rest = &after[2..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}
