//! Systemd's units that have failed, asked of systemd by way of the system bus.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;
use zbus::OwnedObjectPath;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

use crate::backoff::Backoff;
use crate::model::FailedUnit;

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// How a bus says that its policy forbids a call.
const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
/// How long the bus and systemd may take together.
const DEADLINE: Duration = Duration::from_millis(500);
/// For how long an answer stands where rounds come faster. Shorter than a second, so that an interval of one has it
/// anew in each round.
const STANDS_FOR: Duration = Duration::from_millis(900);
/// Pauses between tries: most hosts without systemd do not get it while they run.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The most units that are told of.
const MOST: usize = 256;

/// What systemd's manager is asked.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    /// How many units have failed.
    #[zbus(property(emits_changed_signal = "false"))]
    fn n_failed_units(&self) -> zbus::Result<u32>;

    /// The units in one of these states.
    #[zbus(no_autostart)]
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<UnitListing>>;
}

/// Name, description, load state, active state, sub-state, the unit that it follows, its object, and the job that is
/// queued for it: number, kind and object.
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

/// Systemd, where it runs.
pub(super) struct Units {
    manager: Option<ManagerProxy<'static>>,
    /// Before then it is not tried again.
    try_at: Option<Instant>,
    pauses: Backoff,
    /// The last answer, and when it came.
    last: Option<(Instant, Vec<FailedUnit>)>,
    /// Why the bus or systemd refused the agent at the last try.
    refused: Option<UnitsError>,
}

/// Why there are no figures of units.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum UnitsError {
    /// The bus or systemd refuses the agent: its own words.
    #[error("cannot use the system bus: {0}")]
    Refused(String),
}

/// Why systemd's units are not known.
#[derive(Debug)]
enum Unknown {
    /// Systemd or its bus does not run here, or has stopped. The host does not offer the figure.
    Absent(zbus::Error),
    /// The bus runs and does not serve this user.
    Refused(zbus::Error),
}

impl Units {
    /// Nobody is asked yet.
    pub(super) fn new() -> Self {
        Self {
            manager: None,
            try_at: None,
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            last: None,
            refused: None,
        }
    }

    /// The units that have failed; none where systemd does not run, or does not answer.
    ///
    /// # Errors
    /// The bus or systemd refuses the agent. `dbus-daemon` refuses a user whom it cannot look up, such as one that systemd
    /// allocates (`DynamicUser=yes`) on a host without `libnss-systemd`.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<FailedUnit>>, UnitsError> {
        let now = Instant::now();
        if let Some((at, units)) = &self.last
            && now.saturating_duration_since(*at) < STANDS_FOR
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
                self.pauses.reset();
                self.try_at = None;
                self.last = Some((now, units.clone()));
                return Ok(Some(units));
            }
            Ok(Err(Unknown::Absent(error))) => debug!(%error, "systemd not asked for failed units"),
            Ok(Err(Unknown::Refused(error))) => {
                self.refused = Some(UnitsError::Refused(error.to_string()));
            }
            Err(_) => debug!("systemd does not answer"),
        }
        self.manager = None;
        self.try_at = Some(now + self.pauses.pause());
        self.unknown()
    }

    fn unknown(&self) -> Result<Option<Vec<FailedUnit>>, UnitsError> {
        match &self.refused {
            Some(reason) => Err(reason.clone()),
            None => Ok(None),
        }
    }

    async fn ask(&mut self) -> Result<Vec<FailedUnit>, Unknown> {
        let manager = match &self.manager {
            Some(manager) => manager,
            None => &*self.manager.insert(connect().await?),
        };
        // Cheap for systemd, which would look through all its units for the list.
        if manager.n_failed_units().await.map_err(unanswered)? == 0 {
            return Ok(Vec::new());
        }
        let listed = manager.list_units_filtered(&["failed"]).await;
        let listed = listed.map_err(unanswered)?;
        let mut units: Vec<FailedUnit> = listed
            .into_iter()
            .map(|(name, description, ..)| FailedUnit { name, description })
            .collect();
        units.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        units.truncate(MOST);
        Ok(units)
    }
}

/// Systemd on the system bus. It is not asked for where nobody has its name: the bus would try to start it.
async fn connect() -> Result<ManagerProxy<'static>, Unknown> {
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
        let reason = "it is not on the bus".to_owned();
        return Err(Unknown::Absent(zbus::Error::Failure(reason)));
    }
    ManagerProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(unanswered)
}

/// Whether nothing listens at the bus's address.
fn is_absent(error: &zbus::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    let (zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error)) = error else {
        return false;
    };
    matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused)
}

/// What an error of a call says: a bus that denies access refuses the agent, everything else passes or is no systemd.
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
