//! Follows the states of systemd's units. systemd sends a signal when a unit changes. The next round asks systemd for the states
//! of the changed units only.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::{self, select_all};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;
use zbus::{
    Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant, match_rule,
    message,
};

use super::{ManagerProxy, SYSTEMD, UnitListing};
use crate::collect::system::containers::container_ids;
use crate::model::{Timestamp, Unit};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// The D-Bus error for a unit that does not exist.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// The start of the object paths of units.
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit";
/// The kinds of units that the agent follows: D-Bus interface and pattern of names. Docker makes a mount unit for each command in a
/// container, so the agent does not listen to the changes of mount units.
const KINDS: [(&str, &str); 3] = [
    (SERVICE, "*.service"),
    ("org.freedesktop.systemd1.Scope", "*.scope"),
    ("org.freedesktop.systemd1.Slice", "user-*.slice"),
];
/// All states except `inactive`. Inactive units are not published.
const STATES: [&str; 6] = [
    "active",
    "reloading",
    "refreshing",
    "activating",
    "deactivating",
    "failed",
];
/// Maximum number of units whose states are stored.
const MAX_UNITS: usize = 4096;
/// Maximum number of published units that are not active.
const MAX_INACTIVE: usize = 256;
/// Maximum number of changed units. If more units have changed, systemd is asked for all units.
const MAX_CHANGED: usize = 256;
/// Maximum number of units that systemd is asked about at the same time. The bus allows 128 calls without an answer.
const MAX_CALLS: usize = 32;
/// Maximum number of unread messages for each match rule. If there are more, the bus keeps them.
const MAX_QUEUED: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// How often systemd is asked for all units even if nothing has changed, in case a signal was lost.
const RELOAD_INTERVAL: Duration = Duration::from_secs(300);

/// The states of all units.
pub(super) struct UnitStates {
    bus: Connection,
    changes: Arc<Mutex<Changes>>,
    /// Stops the task that receives signals.
    listener: AbortHandle,
    /// The units by name. Has no inactive units.
    known: HashMap<String, UnitState>,
    /// When systemd was asked for all units. None before the first time.
    loaded: Option<Instant>,
}

/// The units that have changed since the previous round.
#[derive(Debug, Default)]
struct Changes {
    names: HashSet<String>,
    /// Whether any unit can have changed.
    all: bool,
}

/// The state of a unit.
struct UnitState {
    active: String,
    sub: String,
    path: OwnedObjectPath,
    /// None until the unit is published for the first time after a change.
    details: Option<Details>,
}

/// Properties of a unit that cost one call each.
#[derive(Clone, Default)]
struct Details {
    since: Option<Timestamp>,
    main_pid: Option<u32>,
    restarts: Option<u64>,
}

impl Drop for UnitStates {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl UnitStates {
    /// Starts to listen to changes.
    pub(super) async fn new(bus: &Connection, manager: &ManagerProxy<'_>) -> zbus::Result<Self> {
        let mut streams = Vec::new();
        for (interface, _) in KINDS {
            let rule = rule(PROPERTIES, "PropertiesChanged")
                .path_namespace(UNIT_PATH)
                .arg(0, interface);
            streams.push(listen(bus, rule).await?);
        }
        let reloading = rule("org.freedesktop.systemd1.Manager", "Reloading");
        streams.push(listen(bus, reloading).await?);
        manager.subscribe().await?;
        let changes = Arc::new(Mutex::new(Changes::default()));
        let noted = Arc::clone(&changes);
        let listener = tokio::spawn(async move {
            let mut messages = select_all(streams);
            while let Some(Ok(message)) = messages.next().await {
                let mut changes = noted.lock().unwrap_or_else(PoisonError::into_inner);
                changes.note(message.header().path().map(|path| path.as_str()));
            }
        });
        Ok(Self {
            bus: bus.clone(),
            changes,
            listener: listener.abort_handle(),
            known: HashMap::new(),
            loaded: None,
        })
    }

    /// Asks systemd for the states of changed units. `failed` are the failed units of all kinds.
    pub(super) async fn update(
        &mut self,
        manager: &ManagerProxy<'_>,
        failed: &[UnitListing],
    ) -> zbus::Result<()> {
        let changes = {
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            mem::take(&mut *changes)
        };
        let is_old = |at: Instant| at.elapsed() >= RELOAD_INTERVAL;
        if changes.all || self.loaded.is_none_or(is_old) {
            let patterns = KINDS.map(|(_, pattern)| pattern);
            let listed = manager.list_units_by_patterns(&STATES, &patterns).await?;
            self.known.clear();
            self.set(listed);
            self.loaded = Some(Instant::now());
        } else if !changes.names.is_empty() {
            let names: Vec<String> = changes.names.into_iter().collect();
            let listed = manager.list_units_by_names(&names).await?;
            for name in &names {
                self.known.remove(name);
            }
            self.set(listed);
        }
        // The agent does not listen to the changes of other kinds of units, for example mount units.
        self.known.retain(|name, state| {
            state.active != "failed" || failed.iter().any(|(failed, ..)| failed == name)
        });
        let new = |unit: &&UnitListing| {
            self.known
                .get(&unit.0)
                .is_none_or(|known| known.active != "failed")
        };
        let new: Vec<UnitListing> = failed.iter().filter(new).cloned().collect();
        self.set(new);
        Ok(())
    }

    /// Stores the states of the units that are not inactive.
    fn set(&mut self, listed: Vec<UnitListing>) {
        for (name, _, _, active, sub, _, path, ..) in listed {
            if active == "inactive" || self.known.len() >= MAX_UNITS {
                continue;
            }
            let state = UnitState {
                active,
                sub,
                path,
                details: None,
            };
            self.known.insert(name, state);
        }
    }

    /// Moves the units that are not active to the front: the failed units, and then those that start or stop. Adds those that have no
    /// control group. For example, a unit that waits for its restart has none.
    pub(super) fn add_inactive(&self, units: &mut Vec<Unit>) {
        let inactive = |name: &str| {
            self.known
                .get(name)
                .filter(|state| state.active != "active")
        };
        let (mut first, others): (Vec<_>, Vec<_>) = mem::take(units)
            .into_iter()
            .partition(|unit| inactive(&unit.name).is_some());
        for name in self.known.keys().filter(|name| inactive(name).is_some()) {
            if !first.iter().any(|unit| unit.name == *name) {
                first.push(Unit {
                    name: name.clone(),
                    ..Unit::default()
                });
            }
        }
        let is_failed = |name: &str| inactive(name).is_some_and(|state| state.active == "failed");
        first.sort_by_cached_key(|unit| (!is_failed(&unit.name), unit.name.clone()));
        first.truncate(MAX_INACTIVE);
        *units = first;
        units.extend(others);
    }

    /// Asks systemd for the properties of these units that are not known yet. What is known at `deadline` is stored, and the next
    /// round asks for the rest.
    pub(super) async fn describe(&mut self, units: &[Unit], deadline: Instant) -> zbus::Result<()> {
        let mut described = Vec::new();
        let mut outcome = Ok(());
        {
            let asked = units.iter().filter_map(|unit| {
                let state = self.known.get(&unit.name)?;
                let asked = state.details.is_none().then_some(state)?;
                Some(self.ask(&unit.name, asked))
            });
            let mut answers = stream::iter(asked).buffer_unordered(MAX_CALLS);
            while let Ok(Some(answer)) = timeout_at(deadline.into(), answers.next()).await {
                match answer {
                    Ok(answer) => described.push(answer),
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
        }
        for (name, details) in described {
            if let Some(state) = self.known.get_mut(&name) {
                state.details = Some(details);
            }
        }
        outcome
    }

    /// Adds the states of these units.
    pub(super) fn add_to(&self, units: &mut [Unit]) {
        for unit in units {
            let Some(state) = self.known.get(&unit.name) else {
                continue;
            };
            unit.state = Some(state.active.clone());
            unit.sub_state = Some(state.sub.clone());
            let details = state.details.clone().unwrap_or_default();
            unit.since = details.since;
            unit.main_pid = details.main_pid;
            unit.restarts = details.restarts;
        }
    }

    async fn ask(&self, name: &str, state: &UnitState) -> zbus::Result<(String, Details)> {
        let since = match &*state.active {
            "active" | "reloading" | "refreshing" => "ActiveEnterTimestamp",
            "activating" => "InactiveExitTimestamp",
            "failed" => "InactiveEnterTimestamp",
            _ => "ActiveExitTimestamp",
        };
        let micros = self.property(&state.path, UNIT, since).await?;
        let mut details = Details {
            since: micros.and_then(timestamp),
            ..Details::default()
        };
        if name.ends_with(".service") {
            let main_pid = self.property(&state.path, SERVICE, "MainPID").await?;
            details.main_pid = main_pid
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid > 0);
            details.restarts = self.property(&state.path, SERVICE, "NRestarts").await?;
        }
        Ok((name.to_owned(), details))
    }

    /// Reads a property that is a number. Returns none if the unit no longer exists, or if this version of systemd does not have
    /// the property.
    async fn property(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        name: &str,
    ) -> zbus::Result<Option<u64>> {
        let answer = self
            .bus
            .call_method(
                Some(SYSTEMD),
                path,
                Some(PROPERTIES),
                "Get",
                &(interface, name),
            )
            .await;
        match answer {
            Ok(answer) => {
                let value: OwnedVariant = answer.body().deserialize()?;
                Ok(match &*value {
                    Variant::U64(number) => Some(*number),
                    Variant::U32(number) => Some(u64::from(*number)),
                    _ => None,
                })
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Changes {
    /// Notes that the unit with this object path has changed. Without the path of a unit, all units can have changed.
    fn note(&mut self, path: Option<&str>) {
        let name = path.and_then(unit_name);
        match name {
            // The scope of a container is not published.
            Some(name) if self.names.contains(&name) || !container_ids(&name).is_empty() => {}
            Some(name) if self.names.len() < MAX_CHANGED => {
                self.names.insert(name);
            }
            _ => {
                self.all = true;
                self.names.clear();
            }
        }
    }
}

fn rule(interface: &'static str, member: &'static str) -> match_rule::Builder<'static> {
    MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .interface(interface)
        .member(member)
}

async fn listen(
    bus: &Connection,
    rule: match_rule::Builder<'static>,
) -> zbus::Result<MessageStream> {
    MessageStream::for_match_rule(rule.build()?, bus, Some(MAX_QUEUED)).await
}

/// Returns the name of the unit with this object path. In an object path, systemd writes each byte that is not a letter or a digit
/// as `_` and two hexadecimal digits.
fn unit_name(path: &str) -> Option<String> {
    let label = path.strip_prefix(UNIT_PATH)?.strip_prefix('/')?;
    let mut name = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'_' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            name.push(*first);
            rest = after;
        }
    }
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// Whether the error means that the unit or the property does not exist. A unit that has ended no longer exists.
fn is_absent(error: &zbus::Error) -> bool {
    use zbus::fdo::Error::{UnknownInterface, UnknownMethod, UnknownObject, UnknownProperty};
    match error {
        zbus::Error::MethodError(name, ..) => name.as_str() == NO_SUCH_UNIT,
        zbus::Error::FDO(error) => matches!(
            **error,
            UnknownInterface(_) | UnknownMethod(_) | UnknownObject(_) | UnknownProperty(_)
        ),
        _ => false,
    }
}

/// Converts microseconds since 1970. Returns none for 0, which means that it has not happened.
fn timestamp(micros: u64) -> Option<Timestamp> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))?;
    (micros > 0).then_some(Timestamp(at))
}

#[cfg(test)]
mod tests {
    use super::{Changes, MAX_CHANGED, timestamp, unit_name};

    #[test]
    fn names_of_units_are_decoded_from_object_paths() {
        let name = |label: &str| unit_name(&format!("/org/freedesktop/systemd1/unit/{label}"));
        assert_eq!(name("ssh_2eservice").as_deref(), Some("ssh.service"));
        assert_eq!(
            name("getty_40tty1_2eservice").as_deref(),
            Some("getty@tty1.service")
        );
        let escaped = name("run_2d_5cx2d_2eservice");
        assert_eq!(escaped.as_deref(), Some("run-\\x2d.service"));
        for odd in ["", "_", "_2", "_zz", "_ff"] {
            assert_eq!(name(odd), None, "{odd}");
        }
        assert_eq!(unit_name("/org/freedesktop/systemd1"), None);
        assert_eq!(unit_name("/org/freedesktop/systemd1/unitary"), None);
    }

    #[test]
    fn after_too_many_changes_all_units_count_as_changed() {
        let mut changes = Changes::default();
        for number in 0..MAX_CHANGED {
            let path = format!("/org/freedesktop/systemd1/unit/a{number}_2eservice");
            changes.note(Some(&path));
            changes.note(Some(&path));
        }
        assert_eq!((changes.names.len(), changes.all), (MAX_CHANGED, false));
        changes.note(Some("/org/freedesktop/systemd1/unit/b_2eservice"));
        assert_eq!((changes.names.len(), changes.all), (0, true));
        let mut changes = Changes::default();
        changes.note(Some("/org/freedesktop/systemd1"));
        assert!(changes.all);
    }

    #[test]
    fn a_time_of_0_is_no_time() {
        assert_eq!(timestamp(0), None);
        let at = timestamp(1_704_110_400_250_000).unwrap();
        assert_eq!(at.to_string(), "2024-01-01T12:00:00.250Z");
        // Must not panic.
        let _ = timestamp(u64::MAX);
    }
}
