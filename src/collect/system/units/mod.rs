//! The units of systemd. Their states come from systemd over the D-Bus system bus, their figures from their control groups.

mod groups;
mod states;
mod tree;

pub(super) use groups::UnitGroups;

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;
use zbus::OwnedObjectPath;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

use crate::backoff::Backoff;
use crate::model::{FailedUnit, Unit};
use states::UnitStates;

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The D-Bus error of a call that the policy of the bus forbids.
const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
/// Timeout for the bus and systemd together.
const DEADLINE: Duration = Duration::from_millis(500);
/// Maximum age of a cached answer. It is below 1 s, so that with an interval of 1 s each round asks again.
const MAX_AGE: Duration = Duration::from_millis(900);
/// The back-off after the first failure.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Maximum back-off. It is long, because a host without systemd rarely gets systemd while the agent runs.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Maximum number of published failed units.
const MAX_FAILED: usize = 256;

/// The D-Bus interface of systemd's manager.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    /// The number of failed units.
    #[zbus(property(emits_changed_signal = "false"))]
    fn n_failed_units(&self) -> zbus::Result<u32>;

    /// Returns the units that are in one of these states.
    #[zbus(no_autostart)]
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<UnitListing>>;

    /// Returns the units that are in one of these states, and whose names match one of these patterns.
    #[zbus(no_autostart)]
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<UnitListing>>;

    /// Returns the units with these names.
    #[zbus(no_autostart)]
    fn list_units_by_names(&self, names: &[String]) -> zbus::Result<Vec<UnitListing>>;

    /// Makes systemd send signals when units change.
    #[zbus(no_autostart)]
    fn subscribe(&self) -> zbus::Result<()>;
}

/// A unit. The fields are its name, description, load state, active state, sub-state, the name of a unit that this unit follows,
/// and its object path. The final three fields describe the queued job: number, kind and object path.
type UnitListing = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// The connection to systemd, and the newest answer of systemd.
pub(super) struct Units {
    /// Whether the states of all units are wanted, not only the failed ones.
    with_states: bool,
    systemd: Option<Systemd>,
    /// The time of the next retry after a failure. None if the newest request succeeded.
    try_at: Option<Instant>,
    pauses: Backoff,
    /// The newest answer and its time.
    last: Option<(Instant, Vec<FailedUnit>)>,
    /// The reason why the bus or systemd refused the previous request. None if neither refused it.
    refused: Option<UnitsError>,
}

/// A connection to systemd.
struct Systemd {
    manager: ManagerProxy<'static>,
    /// None if the states are not wanted.
    states: Option<UnitStates>,
}

/// Why the units cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum UnitsError {
    /// The bus or systemd refuses the agent. The text is the error of the bus.
    #[error("cannot use the system bus: {0}")]
    Refused(String),
}

/// Why systemd has not answered.
#[derive(Debug)]
enum Unknown {
    /// systemd or the bus does not run. The host does not have this figure.
    Absent(zbus::Error),
    /// The bus runs and refuses the agent's user.
    Refused(zbus::Error),
}

impl Units {
    /// Creates the reader, and does not connect yet. `with_states` says whether the states of all units are wanted.
    pub(super) fn new(with_states: bool) -> Self {
        Self {
            with_states,
            systemd: None,
            try_at: None,
            pauses: Backoff::new(MIN_BACKOFF, MAX_BACKOFF),
            last: None,
            refused: None,
        }
    }

    /// Returns the failed units, sorted by name, and updates the states of all units. Returns none if systemd does not run or does
    /// not answer.
    ///
    /// # Errors
    /// Fails if the bus or systemd refuses the agent. `dbus-daemon` refuses a user that it cannot look up. An example is a user
    /// that systemd allocates (`DynamicUser=yes`) on a host without `libnss-systemd`.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<FailedUnit>>, UnitsError> {
        let now = Instant::now();
        if let Some((at, units)) = &self.last
            && now.saturating_duration_since(*at) < MAX_AGE
        {
            return Ok(Some(units.clone()));
        }
        if self.try_at.is_some_and(|at| now < at) {
            return self.unknown();
        }
        self.last = None;
        self.refused = None;
        match timeout(DEADLINE, self.ask()).await {
            Ok(Ok(units)) => {
                if !self.with_states {
                    self.pauses.reset();
                }
                self.try_at = None;
                self.last = Some((now, units.clone()));
                return Ok(Some(units));
            }
            Ok(Err(Unknown::Absent(error))) => debug!(%error, "no failed units: no systemd found"),
            Ok(Err(Unknown::Refused(error))) => {
                self.refused = Some(UnitsError::Refused(error.to_string()));
            }
            Err(_) => debug!("no failed units: systemd does not answer"),
        }
        self.retry_later();
        self.unknown()
    }

    /// Adds the states to the units that are published, and adds the units that have failed, start or stop.
    pub(super) async fn add_states(&mut self, units: &mut Vec<Unit>) {
        let Some(states) = self.systemd.as_mut().and_then(|one| one.states.as_mut()) else {
            return;
        };
        states.add_inactive(units);
        let described = states.describe(units, Instant::now() + DEADLINE).await;
        states.add_to(units);
        match described {
            Ok(()) => self.pauses.reset(),
            Err(error) => {
                debug!(%error, "incomplete states of units: systemd cannot be asked");
                self.retry_later();
            }
        }
    }

    /// Closes the connection. The next request connects again after a pause.
    fn retry_later(&mut self) {
        self.systemd = None;
        self.last = None;
        self.try_at = Some(Instant::now() + self.pauses.pause());
    }

    /// Returns the result while there is no answer.
    fn unknown(&self) -> Result<Option<Vec<FailedUnit>>, UnitsError> {
        match &self.refused {
            Some(reason) => Err(reason.clone()),
            None => Ok(None),
        }
    }

    /// Connects to systemd if there is no connection, and asks for the failed units and for the states that have changed.
    async fn ask(&mut self) -> Result<Vec<FailedUnit>, Unknown> {
        let systemd = match &mut self.systemd {
            Some(systemd) => systemd,
            None => self.systemd.insert(connect(self.with_states).await?),
        };
        let Systemd { manager, states } = systemd;
        // Asks for the number first, because systemd knows the number. For the list, systemd must search all its units.
        let failed = if manager.n_failed_units().await.map_err(unanswered)? == 0 {
            Vec::new()
        } else {
            let listed = manager.list_units_filtered(&["failed"]).await;
            let mut listed = listed.map_err(unanswered)?;
            listed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            listed.truncate(MAX_FAILED);
            listed
        };
        if let Some(known) = states
            && let Err(error) = known.update(manager, &failed).await
        {
            debug!(%error, "no states of units: systemd cannot list them");
            *states = None;
        }
        let failed = failed.into_iter();
        let units = failed.map(|(name, description, ..)| FailedUnit { name, description });
        Ok(units.collect())
    }
}

/// Connects to systemd. First asks the bus whether systemd is connected, because a call to an absent systemd would make the bus
/// try to start systemd.
async fn connect(with_states: bool) -> Result<Systemd, Unknown> {
    let bus = match Builder::system().build().await {
        Ok(bus) => bus,
        Err(error) if is_absent(&error) => return Err(Unknown::Absent(error)),
        Err(error) => return Err(Unknown::Refused(error)),
    };
    let broker = DBusProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(unanswered)?;
    let systemd = SYSTEMD.try_into().map_err(unanswered)?;
    let running = broker.name_has_owner(systemd).await.map_err(Into::into);
    if !running.map_err(unanswered)? {
        let reason = "systemd is not on the system bus".to_owned();
        return Err(Unknown::Absent(zbus::Error::Failure(reason)));
    }
    let manager = ManagerProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(unanswered)?;
    let mut states = None;
    if with_states {
        // The failed units are known even if systemd is too old for the other states.
        match UnitStates::new(&bus, &manager).await {
            Ok(known) => states = Some(known),
            Err(error) => debug!(%error, "no states of units: systemd sends no changes"),
        }
    }
    Ok(Systemd { manager, states })
}

/// Returns whether the error means that nothing listens at the address of the bus.
fn is_absent(error: &zbus::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    let (zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error)) = error else {
        return false;
    };
    matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused)
}

/// Classifies the error of a call. "Access denied" means that the bus refuses the agent. Any other error means that systemd
/// does not run or will answer later.
fn unanswered(error: zbus::Error) -> Unknown {
    let denied = match &error {
        zbus::Error::MethodError(name, ..) => name.as_str() == ACCESS_DENIED,
        zbus::Error::FDO(error) => matches!(**error, zbus::fdo::Error::AccessDenied(_)),
        _ => false,
    };
    if denied {
        Unknown::Refused(error)
    } else {
        Unknown::Absent(error)
    }
}
