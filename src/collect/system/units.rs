//! Systemd's units that have failed, asked of systemd by way of the system bus.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;
use zbus::OwnedObjectPath;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

use crate::collect::backoff::Backoff;
use crate::model::FailedUnit;

const SYSTEMD: &str = "org.freedesktop.systemd1";
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
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<Listed>>;
}

/// Name, description, load state, active state, sub-state, the unit that it follows, its object, and the job that is
/// queued for it: number, kind and object.
type Listed = (
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
}

impl Units {
    /// Nobody is asked yet.
    pub(super) fn new() -> Self {
        Self {
            manager: None,
            try_at: None,
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            last: None,
        }
    }

    /// The units that have failed; none where systemd does not run, or does not answer.
    pub(super) async fn read(&mut self) -> Option<Vec<FailedUnit>> {
        let now = Instant::now();
        if let Some((at, units)) = &self.last
            && now.saturating_duration_since(*at) < STANDS_FOR
        {
            return Some(units.clone());
        }
        if self.try_at.is_some_and(|at| now < at) {
            return None;
        }
        self.last = None;
        match timeout(DEADLINE, self.ask()).await {
            Ok(Ok(units)) => {
                self.pauses.reset();
                self.try_at = None;
                self.last = Some((now, units.clone()));
                return Some(units);
            }
            Ok(Err(error)) => debug!(%error, "systemd not asked for failed units"),
            Err(_) => debug!("systemd does not answer"),
        }
        self.manager = None;
        self.try_at = Some(now + self.pauses.pause());
        None
    }

    async fn ask(&mut self) -> zbus::Result<Vec<FailedUnit>> {
        let manager = match &self.manager {
            Some(manager) => manager,
            None => &*self.manager.insert(connect().await?),
        };
        // Cheap for systemd, which would look through all its units for the list.
        if manager.n_failed_units().await? == 0 {
            return Ok(Vec::new());
        }
        let listed = manager.list_units_filtered(&["failed"]).await?;
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
async fn connect() -> zbus::Result<ManagerProxy<'static>> {
    let bus = Builder::system().build().await?;
    let broker = DBusProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    if !broker.name_has_owner(SYSTEMD.try_into()?).await? {
        return Err(zbus::Error::Failure("it is not on the bus".to_owned()));
    }
    ManagerProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}
