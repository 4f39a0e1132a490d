//! Reads the engine's list of containers, one entry at a time.

use std::collections::HashSet;
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::choice::ContainerChoice;
use super::json::Json;
use super::pieces::Piece;
use crate::model::{ContainerMeta, Port, PortProtocol};
use crate::settings::{ContainerFacts, ContainerFilter};

/// Length of a published id, in characters. Docker's own tools show ids of the same length.
pub(super) const SHORT_ID: usize = 12;
/// Maximum number of containers. The agent refuses a longer list.
pub(super) const MAX_CONTAINERS: usize = 10_000;
/// Maximum memory for a list, in bytes. The agent refuses a list that needs more memory.
const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of stopped containers of a list that are kept. The others are only counted.
const MAX_STOPPED: usize = 10_000;
/// Maximum memory for the stopped containers of a list, in bytes.
const MAX_STOPPED_BYTES: usize = 8 * 1024 * 1024;
/// The engine's words for the states of containers that do not run. The last three are Podman's.
const STOPPED_STATES: [&str; 7] = [
    "exited",
    "created",
    "dead",
    "removing",
    "configured",
    "initialized",
    "stopped",
];
/// Maximum length of each text in an entry, in bytes. A longer text is truncated.
const MAX_TEXT_BYTES: usize = 4096;
/// Maximum number of names per container. More names are ignored.
const MAX_NAMES: usize = 256;
/// Maximum length of an id or a name in an error message, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// A container of the engine's list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListedContainer {
    /// The full id. Calls to the engine use this id.
    pub(crate) id: String,
    /// The container's name, with a `/` at the beginning.
    pub(crate) name: Arc<str>,
    /// The metadata that is published.
    pub(crate) meta: Arc<ContainerMeta>,
}

/// Which containers a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListScope {
    /// Running, paused and restarting containers.
    Running,
    All,
}

/// The containers of the engine's list. All containers have different ids and names.
#[derive(Debug, Default)]
pub(super) struct ListedContainers {
    pub(super) running: Vec<ListedContainer>,
    /// The stopped containers, in the order of the list: the newest first. Empty for [`ListScope::Running`].
    pub(super) stopped: Vec<ListedContainer>,
    /// Number of stopped containers that are not in `stopped`, because there are too many.
    pub(super) stopped_surplus: usize,
    /// Numbers of running and of stopped containers that the settings leave out.
    pub(super) excluded: Excluded,
    /// A sentence about the entries that could not be read.
    pub(super) unreadable: Option<String>,
}

/// Numbers of containers that the settings leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Excluded {
    pub(super) running: usize,
    pub(super) stopped: usize,
}

/// Collects the entries of a container list while the list is read.
#[derive(Debug)]
pub(super) struct Listing<'f> {
    scope: ListScope,
    choice: &'f ContainerChoice,
    excluded: Excluded,
    /// The ids of all containers in the list, including those that are left out.
    ids: HashSet<String>,
    containers: Vec<ListedContainer>,
    /// Approximate memory of the containers, in bytes.
    kept: usize,
    stopped: Vec<ListedContainer>,
    /// Approximate memory of the stopped containers, in bytes.
    stopped_kept: usize,
    stopped_surplus: usize,
    /// Number of entries that could not be read.
    unreadable: usize,
    /// The first entry that could not be read, and the reason.
    first: Option<String>,
}

impl<'f> Listing<'f> {
    /// `choice` tells which containers to leave out.
    pub(super) fn new(scope: ListScope, choice: &'f ContainerChoice) -> Self {
        Self {
            scope,
            choice,
            excluded: Excluded::default(),
            ids: HashSet::new(),
            containers: Vec::new(),
            kept: 0,
            stopped: Vec::new(),
            stopped_kept: 0,
            stopped_surplus: 0,
            unreadable: 0,
            first: None,
        }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, entry: Piece<'_>) {
        let read = match entry {
            Piece::Whole(text) => match Json::parse(text) {
                Ok(entry) => {
                    let read = ListedContainer::read(&entry);
                    if let Ok(container) = &read
                        && !self.wants(container, &entry)
                    {
                        return;
                    }
                    read
                }
                Err(error) => Err(about(id_in(text), &error.to_string())),
            },
            Piece::TooLong(beginning) => Err(about(id_in(beginning), "it is too long")),
        };
        match read {
            Ok(container) if self.scope == ListScope::All && container.is_stopped() => {
                self.add_stopped(container);
            }
            Ok(_) if self.is_full() => {}
            Ok(container) => {
                self.kept += container.size();
                self.containers.push(container);
            }
            Err(reason) => {
                self.unreadable += 1;
                self.first.get_or_insert(reason);
            }
        }
    }

    /// Whether the settings want a container. Counts a container that they leave out.
    fn wants(&mut self, container: &ListedContainer, entry: &Json) -> bool {
        let wanted = self.choice.wants(&container.id, |filter| ContainerFacts {
            name: container.bare_name(),
            image: &container.meta.image,
            labels: labels(entry.get("Labels"), filter),
        });
        self.ids.insert(container.id.clone());
        if !wanted {
            match self.scope == ListScope::All && container.is_stopped() {
                true => self.excluded.stopped += 1,
                false => self.excluded.running += 1,
            }
        }
        wanted
    }

    fn add_stopped(&mut self, container: ListedContainer) {
        if self.stopped.len() < MAX_STOPPED && self.stopped_kept < MAX_STOPPED_BYTES {
            self.stopped_kept += container.size();
            self.stopped.push(container);
        } else {
            self.stopped_surplus += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.containers.len() > MAX_CONTAINERS || self.kept > MAX_KEPT_BYTES
    }

    /// Fails if the list exceeds a limit.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.containers.len() > MAX_CONTAINERS {
            return Err(format!("more than {MAX_CONTAINERS} containers"));
        }
        if self.kept > MAX_KEPT_BYTES {
            let limit = MAX_KEPT_BYTES >> 20;
            return Err(format!("the entries need more than {limit} MiB of memory"));
        }
        Ok(())
    }

    /// Returns the containers.
    pub(super) fn finish(mut self) -> ListedContainers {
        if self.scope == ListScope::All {
            self.choice.keep_only(&self.ids);
        }
        let mut ids = HashSet::new();
        self.containers.retain(|one| ids.insert(one.id.clone()));
        self.stopped.retain(|one| ids.insert(one.id.clone()));
        let mut names = HashSet::new();
        for one in self.containers.iter_mut().chain(&mut self.stopped) {
            if !names.insert(one.name.clone()) {
                // If two containers had the same name, their logs and figures would be mixed.
                one.name = format!("/{}", one.meta.id).into();
                names.insert(one.name.clone());
            }
        }
        let more = match self.unreadable {
            0 | 1 => String::new(),
            all => format!(" (and {} more)", all - 1),
        };
        let unreadable = self
            .first
            .map(|first| format!("list containers: an entry cannot be read: {first}{more}"));
        ListedContainers {
            running: self.containers,
            stopped: self.stopped,
            stopped_surplus: self.stopped_surplus,
            excluded: self.excluded,
            unreadable,
        }
    }
}

/// Returns the labels whose values the filter needs.
pub(super) fn labels<'l>(labels: &'l Json, filter: &ContainerFilter) -> Vec<(&'l str, String)> {
    let labels = labels.members().iter();
    labels
        .filter(|(name, _)| filter.looks_at(name))
        .filter_map(|(name, value)| Some((name.as_str(), value.text()?)))
        .collect()
}

/// Returns an error text: the reason, after the container's id or name if it is known.
fn about(id: Option<String>, reason: &str) -> String {
    match id {
        Some(id) => {
            let shown: String = id.chars().take(MAX_SHOWN_CHARS).collect();
            format!("{shown:?}: {reason}")
        }
        None => reason.to_owned(),
    }
}

/// Finds the id in an entry or event that is too long or is not valid JSON. If there is no id, finds the name.
pub(super) fn id_in(text: &[u8]) -> Option<String> {
    let after = |key: &str| {
        let start = memchr::memmem::find(text, key.as_bytes())? + key.len();
        let rest = text[start..].trim_ascii_start().strip_prefix(b":")?;
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"[").unwrap_or(rest).trim_ascii_start();
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let id = String::from_utf8_lossy(&rest[..end]).into_owned();
        (!id.is_empty()).then_some(id)
    };
    ["\"Id\"", "\"ID\"", "\"Names\""]
        .into_iter()
        .find_map(after)
}

impl ListedContainer {
    /// Reads an entry of the container list. Fails if the entry has no valid id, because calls to the engine need the id.
    pub(super) fn read(entry: &Json) -> Result<Self, String> {
        let mut names: Vec<String> = entry.get("Names").items().iter().filter_map(name).collect();
        names.truncate(MAX_NAMES);
        let id = entry.get("Id").non_empty_text();
        let id = match id {
            Some(id) if is_id(&id) => id,
            Some(id) => return Err(about(Some(id), "not a container id")),
            None => return Err(about(names.into_iter().next(), "it has no id")),
        };
        let text = |key: &str| entry.get(key).text().map(truncated).unwrap_or_default();
        let state = text("State");
        let created = entry.get("Created");
        let meta = ContainerMeta {
            id: id[..SHORT_ID].to_ascii_lowercase().into(),
            names: names.into(),
            image: text("Image").into(),
            status: text("Status").into(),
            state: if state.is_empty() {
                "unknown".into()
            } else {
                state.into()
            },
            ports: entry.get("Ports").items().iter().filter_map(port).collect(),
            created: created
                .integer()
                .or_else(|| {
                    let at = OffsetDateTime::parse(&created.text()?, &Rfc3339).ok()?;
                    Some(at.unix_timestamp())
                })
                // The year 1 means "not known". The time of the year 1 is negative and becomes 0.
                .map_or(0, |created| created.max(0)),
            // The aggregator adds them.
            log_bytes: None,
            volumes: Vec::new(),
        };
        Ok(Self {
            id,
            name: format!("/{}", meta.own_name().unwrap_or(&meta.id)).into(),
            meta: Arc::new(meta),
        })
    }

    fn is_stopped(&self) -> bool {
        STOPPED_STATES.contains(&&*self.meta.state)
    }

    /// Returns the approximate memory of the container, in bytes.
    fn size(&self) -> usize {
        let meta = &self.meta;
        let texts = [&*meta.image, &*meta.status, &*meta.state, &*self.name];
        let names = meta.names.iter().map(String::as_str);
        let texts: usize = texts.into_iter().chain(names).map(str::len).sum();
        let lists = size_of_val(&*meta.ports) + size_of_val(&*meta.names);
        size_of::<Self>() + size_of::<ContainerMeta>() + texts + lists
    }

    /// Whether this container has this id, or this name without the `/` at the beginning.
    pub(super) fn is(&self, id_or_name: &str) -> bool {
        self.id == id_or_name || self.bare_name() == id_or_name
    }

    /// Returns the name without the `/` at the beginning. Logs use it as their key.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

/// Whether a text is a container id. An id has only hexadecimal digits, and at least [`SHORT_ID`] of them.
pub(super) fn is_id(id: &str) -> bool {
    (SHORT_ID..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Truncates a text to [`MAX_TEXT_BYTES`].
pub(super) fn truncated(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

/// Reads a name. If the engine omits the `/` at the beginning, adds it. None if the name has no other characters.
fn name(name: &Json) -> Option<String> {
    let name = truncated(name.non_empty_text()?);
    let bare = name.trim_start_matches('/');
    (!bare.is_empty()).then(|| format!("/{bare}"))
}

/// Reads a port. None if the number of the port inside the container cannot be read.
fn port(port: &Json) -> Option<Port> {
    Some(Port {
        ip: port.get("IP").non_empty_text().map(truncated),
        private_port: port.get("PrivatePort").number()?,
        public_port: port.get("PublicPort").number().filter(|port| *port > 0),
        protocol: protocol(&port.get("Type").text().unwrap_or_default()),
    })
}

/// Reads a protocol in lower-case letters. If the engine names no protocol, returns TCP.
fn protocol(text: &str) -> PortProtocol {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => PortProtocol::Sctp,
        other => PortProtocol::Other(truncated(other.to_owned())),
    }
}

#[cfg(test)]
mod tests;
