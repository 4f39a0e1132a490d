//! The engine's list of containers.

use std::collections::HashSet;
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::json::Json;
use super::pieces::Piece;
use crate::model::{ContainerMeta, Port, PortProtocol};

/// How much of an id is published, as Docker's own tools do.
pub(super) const SHORT_ID: usize = 12;
/// The most containers that are listed. A list of more is an error.
const MOST_CONTAINERS: usize = 10_000;
/// The most bytes that are kept of a list. A list that needs more is an error.
const MOST_KEPT: usize = 16 * 1024 * 1024;
/// The longest of an entry's texts, in bytes. A longer one is cut.
const LONGEST_TEXT: usize = 4096;
/// The most names that are kept of a container.
const MOST_NAMES: usize = 256;
/// How much of an id or a name is shown in an error, in characters.
const SHOWN: usize = 64;

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListedContainer {
    /// The whole id, for calls.
    pub(crate) id: String,
    /// Its name, with the leading `/`.
    pub(crate) name: String,
    /// What is published of it.
    pub(crate) meta: Arc<ContainerMeta>,
}

/// A list while it is read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    containers: Vec<ListedContainer>,
    /// How many bytes its containers take, about.
    kept: usize,
    /// How many entries could not be read.
    unreadable: usize,
    /// The first of them, and why.
    first: Option<String>,
}

impl Listing {
    /// Takes an entry in.
    pub(super) fn take_in(&mut self, entry: Piece<'_>) {
        let read = match entry {
            Piece::Whole(text) => match Json::parse(text) {
                Ok(entry) => ListedContainer::read(&entry),
                Err(error) => Err(about(id_in(text), &error.to_string())),
            },
            Piece::TooLong(beginning) => Err(about(id_in(beginning), "it is too long")),
        };
        match read {
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

    fn is_full(&self) -> bool {
        self.containers.len() > MOST_CONTAINERS || self.kept > MOST_KEPT
    }

    /// Fails where more was listed than can be kept.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.containers.len() > MOST_CONTAINERS {
            return Err(format!("more than {MOST_CONTAINERS} containers"));
        }
        if self.kept > MOST_KEPT {
            let most = MOST_KEPT >> 20;
            return Err(format!("names and ports take more than {most} MiB"));
        }
        Ok(())
    }

    /// The containers, each once and each by a name of its own; and a sentence about the entries that could not be read.
    pub(super) fn finish(mut self) -> (Vec<ListedContainer>, Option<String>) {
        let mut ids = HashSet::new();
        self.containers.retain(|one| ids.insert(one.id.clone()));
        let mut names = HashSet::new();
        for one in &mut self.containers {
            if !names.insert(one.name.clone()) {
                // Its log and figures would otherwise be mixed with those of another container.
                one.name = format!("/{}", one.meta.id);
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
        (self.containers, unreadable)
    }
}

/// A reason, with the id or name that it is about, where one is known.
fn about(id: Option<String>, reason: &str) -> String {
    match id {
        Some(id) => {
            let shown: String = id.chars().take(SHOWN).collect();
            format!("{shown:?}: {reason}")
        }
        None => reason.to_owned(),
    }
}

/// The id, or else the name, in an entry or a line that cannot be read as a whole.
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
    /// Reads an entry of the list. Fails for an entry whose id no call could name.
    pub(super) fn read(entry: &Json) -> Result<Self, String> {
        let mut names: Vec<String> = entry.get("Names").items().iter().filter_map(name).collect();
        names.truncate(MOST_NAMES);
        let id = entry.get("Id").words();
        let id = match id {
            Some(id) if is_id(&id) => id,
            Some(id) => return Err(about(Some(id), "that is no id")),
            None => return Err(about(names.into_iter().next(), "it has no id")),
        };
        let text = |key: &str| entry.get(key).text().map(cut).unwrap_or_default();
        let state = text("State");
        let created = entry.get("Created");
        let meta = ContainerMeta {
            id: id[..SHORT_ID].to_ascii_lowercase(),
            names,
            image: text("Image"),
            status: text("Status"),
            state: if state.is_empty() {
                "unknown".to_owned()
            } else {
                state
            },
            ports: entry.get("Ports").items().iter().filter_map(port).collect(),
            created: created
                .integer()
                .or_else(|| {
                    let at = OffsetDateTime::parse(&created.text()?, &Rfc3339).ok()?;
                    Some(at.unix_timestamp())
                })
                // Year 1 stands for "not known".
                .map_or(0, |created| created.max(0)),
        };
        Ok(Self {
            id,
            name: format!("/{}", meta.own_name().unwrap_or(&meta.id)),
            meta: Arc::new(meta),
        })
    }

    /// How many bytes it takes, about.
    fn size(&self) -> usize {
        let texts = [
            &self.meta.image,
            &self.meta.status,
            &self.meta.state,
            &self.name,
        ];
        let texts: usize = texts
            .into_iter()
            .chain(&self.meta.names)
            .map(String::len)
            .sum();
        let lists =
            size_of_val(self.meta.ports.as_slice()) + size_of_val(self.meta.names.as_slice());
        size_of::<Self>() + size_of::<ContainerMeta>() + texts + lists
    }

    /// Whether an id or a name, without its slash, is this one's.
    pub(super) fn is(&self, id_or_name: &str) -> bool {
        self.id == id_or_name || self.bare_name() == id_or_name
    }

    /// The name without its slash, as logs are keyed.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

/// Digits that need no escape in a path, and are enough to be told by the published ones.
fn is_id(id: &str) -> bool {
    (SHORT_ID..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
    text
}

/// A name, with the leading `/` that some engines leave out; none where nothing else is there.
fn name(name: &Json) -> Option<String> {
    let name = cut(name.words()?);
    let bare = name.trim_start_matches('/');
    (!bare.is_empty()).then(|| format!("/{bare}"))
}

/// None where the port inside the container cannot be read: there is nothing to tell without it.
fn port(port: &Json) -> Option<Port> {
    Some(Port {
        ip: port.get("IP").words().map(cut),
        private_port: port.get("PrivatePort").number()?,
        public_port: port.get("PublicPort").number().filter(|port| *port > 0),
        protocol: protocol(&port.get("Type").text().unwrap_or_default()),
    })
}

/// In small letters; TCP where the engine does not say.
fn protocol(text: &str) -> PortProtocol {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => PortProtocol::Sctp,
        other => PortProtocol::Other(cut(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ListedContainer, Listing, MOST_CONTAINERS};
    use crate::collect::docker::json::Json;
    use crate::collect::docker::pieces::Piece;

    const ID: &str = "0123456789abcdef";

    fn listed(json: &str) -> Option<ListedContainer> {
        ListedContainer::read(&Json::parse(json.as_bytes()).unwrap()).ok()
    }

    /// A container with one odd value.
    fn with(key: &str, value: Value) -> ListedContainer {
        let mut entry =
            json!({"Id": ID, "Names": ["/web"], "Image": "i", "State": "running", "Created": 5});
        entry[key] = value;
        listed(&entry.to_string()).unwrap()
    }

    fn listing(entries: &[&str]) -> (Vec<ListedContainer>, Option<String>) {
        let mut listing = Listing::default();
        entries
            .iter()
            .for_each(|entry| listing.take_in(Piece::Whole(entry.as_bytes())));
        listing.check().unwrap();
        listing.finish()
    }

    #[test]
    fn an_odd_value_costs_itself_alone() {
        for (value, state) in [
            (json!("initialized"), "initialized"),
            (json!("stopped"), "stopped"),
            (json!("RunningContainer"), "RunningContainer"),
            (json!(7), "7"),
            (json!(null), "unknown"),
            (json!(""), "unknown"),
            (json!([1]), "unknown"),
        ] {
            assert_eq!(with("State", value).meta.state, state);
        }
        for (value, created) in [
            (json!(1.7e9), 1_700_000_000),
            (json!("1700000000"), 1_700_000_000),
            (json!("2023-11-14T22:13:20Z"), 1_700_000_000),
            (json!(-62_135_596_800_i64), 0),
            (json!(1e300), 0),
            (json!("soon"), 0),
            (json!(null), 0),
        ] {
            assert_eq!(with("Created", value).meta.created, created);
        }
        for (value, name) in [
            (json!(null), "/0123456789ab"),
            (json!([]), "/0123456789ab"),
            (json!(["", "/", null]), "/0123456789ab"),
            (json!(["web"]), "/web"),
            (json!([5, "/x"]), "/5"),
            (json!("/web"), "/0123456789ab"),
        ] {
            assert_eq!(with("Names", value).name, name);
        }
        for value in [
            json!(null),
            json!({}),
            json!("x"),
            json!([null, 5, {}, {"PrivatePort": 70000}, {"PublicPort": 1}]),
        ] {
            assert_eq!(with("Ports", value).meta.ports, []);
        }
        let ports = json!([
            {"PrivatePort": 80, "Type": "QUIC"}, {"PrivatePort": "81", "PublicPort": -1, "Type": null, "IP": null},
            {"PrivatePort": 82, "PublicPort": 70000, "Type": "TCP"}, {"PrivatePort": 0, "PublicPort": 0, "Type": 6},
        ]);
        assert_eq!(
            serde_json::to_value(&with("Ports", ports).meta.ports).unwrap(),
            json!([
                {"PrivatePort": 80, "Type": "quic"}, {"PrivatePort": 81, "Type": "tcp"},
                {"PrivatePort": 82, "Type": "tcp"}, {"PrivatePort": 0, "Type": "6"},
            ])
        );
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named() {
        let good = format!(r#"{{"Id":"{ID}","Names":["/good"]}}"#);
        for (odd, reason) in [
            ("null", "it has no id"),
            ("", "not JSON from byte 0 on"),
            (r#"{"Names":["/odd"]}"#, r#""/odd": it has no id"#),
            (r#"{"Id":"xyz"}"#, r#""xyz": that is no id"#),
            (
                r#"{"Id":"../../0123456789"}"#,
                r#""../../0123456789": that is no id"#,
            ),
            (
                r#"{"Id":"f00","Names":["/a"}"#,
                r#""f00": not JSON from byte 25 on"#,
            ),
        ] {
            let (listed, unreadable) = listing(&[odd, &good]);
            assert_eq!(listed.len(), 1, "{odd}");
            assert_eq!(listed[0].name, "/good");
            let expected = format!("list containers: an entry cannot be read: {reason}");
            assert_eq!(unreadable.unwrap(), expected);
        }
        let unreadable = listing(&["null", "{}", "[]"]).1.unwrap();
        assert!(unreadable.ends_with("(and 2 more)"), "{unreadable}");
        assert_eq!(listing(&[&good]).1, None);
    }

    #[test]
    fn no_two_containers_share_an_id_or_a_name() {
        let entry = |id: &str, name: &str| format!(r#"{{"Id":"{id}","Names":["{name}"]}}"#);
        let other = "FEDCBA987654";
        let entries = [entry(ID, "/web"), entry(ID, "/again"), entry(other, "/web")];
        let (listed, unreadable) = listing(&entries.each_ref().map(String::as_str));
        let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["/web", "/fedcba987654"]);
        assert_eq!(listed[1].id, other, "calls name it as the engine does");
        assert_eq!(unreadable, None);
    }

    #[test]
    fn a_list_has_bounds() {
        let mut listing = Listing::default();
        for number in 0..=MOST_CONTAINERS {
            listing.check().unwrap();
            listing.take_in(Piece::Whole(
                format!(r#"{{"Id":"{number:064x}"}}"#).as_bytes(),
            ));
        }
        assert_eq!(listing.check().unwrap_err(), "more than 10000 containers");

        let mut listing = Listing::default();
        let ports = vec![json!({"PrivatePort": 1}); 10_000];
        let wide = json!({"Id": ID, "Image": "x".repeat(100_000), "Ports": ports}).to_string();
        let of_one = (0..1000).take_while(|_| {
            listing.take_in(Piece::Whole(wide.as_bytes()));
            listing.check().is_ok()
        });
        assert!((2..500).contains(&of_one.count()));
        assert!(
            listing
                .containers
                .iter()
                .all(|one| one.meta.image.len() == 4096)
        );
    }

    #[test]
    fn keeps_the_engines_words() {
        let listed = listed(
            r#"{"Id":"0123456789abcdef0123456789abcdef","Names":["/db/cache","/cache"],
                "Image":"redis:7","Created":1640995200,"State":"running",
                "Status":"Up 2 hours (healthy)",
                "Ports":[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},
                         {"PrivatePort":53,"Type":"udp"}]}"#,
        )
        .unwrap();
        assert_eq!(listed.name, "/cache");
        assert_eq!(listed.bare_name(), "cache");
        assert_eq!(listed.meta.id, "0123456789ab");
        assert_eq!(listed.meta.status, "Up 2 hours (healthy)");
        assert_eq!(
            serde_json::to_string(&listed.meta.ports).unwrap(),
            r#"[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},{"PrivatePort":53,"Type":"udp"}]"#
        );
    }

    #[test]
    fn does_without_what_is_missing() {
        assert_eq!(listed("{}"), None);
        let listed = listed(r#"{"Id":"0123456789abcdef"}"#).unwrap();
        assert_eq!(listed.name, "/0123456789ab");
        assert!(listed.meta.ports.is_empty());
    }
}
