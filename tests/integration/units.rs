//! Tests of systemd's units. The message bus and the control groups are real. A fake service with systemd's name and methods replaces
//! systemd, because not every test machine runs systemd. The part `units` of `make test-vm` has a real systemd.

mod groups;

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;
use zbus::{OwnedObjectPath, Variant};

use groups::UnitGroup;

use crate::support::{Agent, DEADLINE, Launch, schema, wait};

/// A user id that is not in any user database.
const NO_USER: &str = "--reuid=54321";

/// A D-Bus message bus for one test.
struct Bus {
    folder: TempDir,
    daemon: Child,
}

impl Bus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let configuration = folder.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy><limit name=\"max_replies_per_connection\">128</limit></busconfig>",
            socket.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut arguments = std::ffi::OsString::from("--config-file=");
        arguments.push(&configuration);
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .arg(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("cannot start dbus-daemon");
        let bus = Self { folder, daemon };
        wait::for_server("the bus", &bus.socket());
        bus
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// An agent that uses this bus. The agent publishes every 200 ms and reads the units every second.
    fn launch(&self) -> Launch {
        Launch::new()
            .var("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .var("PUBLISH_INTERVAL", "200ms")
            .var("SYSTEM_INTERVAL", "200ms")
    }

    fn agent(&self) -> Agent {
        self.launch().start()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

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

/// A fake systemd.
#[derive(Clone, Default)]
struct Manager {
    /// The units: their names and active states.
    units: Arc<Mutex<Vec<(&'static str, &'static str)>>>,
    /// The requests for lists of units, except for those of failed units.
    requests: Arc<Mutex<Vec<String>>>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    #[zbus(property)]
    fn n_failed_units(&self) -> u32 {
        let units = self.units.lock().unwrap();
        let failed = units.iter().filter(|(_, state)| *state == "failed");
        u32::try_from(failed.count()).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "the type that zbus passes")]
    fn list_units_filtered(&self, states: Vec<String>) -> Vec<Listed> {
        self.list(|_, state| states.iter().any(|one| one == state))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the types that zbus passes")]
    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<Listed> {
        self.requests.lock().unwrap().push("all".to_owned());
        let matches = |name: &str, pattern: &String| {
            let (start, end) = pattern.split_once('*').unwrap();
            name.starts_with(start) && name.ends_with(end)
        };
        self.list(|name, state| {
            states.iter().any(|one| one == state) && patterns.iter().any(|one| matches(name, one))
        })
    }

    #[expect(clippy::needless_pass_by_value, reason = "the type that zbus passes")]
    fn list_units_by_names(&self, names: Vec<String>) -> Vec<Listed> {
        self.requests.lock().unwrap().push(names.join(" "));
        self.list(|name, _| names.iter().any(|one| one == name))
    }

    fn subscribe(&self) {}
}

/// The properties of a unit and of a service.
struct UnitObject;

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn active_enter_timestamp(&self) -> u64 {
        1_704_110_400_250_000
    }

    #[zbus(property)]
    fn inactive_enter_timestamp(&self) -> u64 {
        1_704_110_500_250_000
    }

    #[zbus(property)]
    fn inactive_exit_timestamp(&self) -> u64 {
        1_704_110_600_250_000
    }
}

/// A service with this main process and this number of restarts.
struct ServiceObject(u32, u32);

#[zbus::interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0
    }

    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> u32 {
        self.1
    }
}

/// Returns the object path of a unit, as systemd escapes it.
fn object_path(name: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("_{b:02x}"),
        })
        .collect();
    format!("/org/freedesktop/systemd1/unit/{escaped}")
}

impl Manager {
    fn with(units: &[(&'static str, &'static str)]) -> Self {
        let manager = Self::default();
        *manager.units.lock().unwrap() = units.to_vec();
        manager
    }

    /// Returns the units whose names and states `wanted` accepts.
    fn list(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<Listed> {
        let object = |path: &str| OwnedObjectPath::try_from(path.to_owned()).unwrap();
        let units = self.units.lock().unwrap();
        units
            .iter()
            .filter(|(name, state)| wanted(name, state))
            .map(|(name, state)| {
                (
                    (*name).to_owned(),
                    format!("What {name} is"),
                    "loaded".to_owned(),
                    (*state).to_owned(),
                    (*state).to_owned(),
                    String::new(),
                    object(&object_path(name)),
                    0,
                    String::new(),
                    object("/"),
                )
            })
            .collect()
    }

    /// Serves on a bus until the returned value is dropped.
    fn serve(&self, bus: &Bus) -> Serving {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let builder = zbus::connection::Builder::address(bus.address().as_str())
            .name("org.freedesktop.systemd1")
            .serve_at("/org/freedesktop/systemd1", self.clone());
        let connection = runtime.block_on(builder.build()).unwrap();
        Serving(connection, runtime)
    }
}

/// A connection to the bus and the runtime that serves it. On drop both end.
struct Serving(zbus::Connection, tokio::runtime::Runtime);

impl Serving {
    /// Serves the properties of a service.
    fn service(&self, name: &str, main_pid: u32, restarts: u32) {
        let (path, server) = (object_path(name), self.0.object_server());
        self.1.block_on(async {
            let _ = server.remove::<ServiceObject, _>(&*path).await;
            server.at(&*path, UnitObject).await.unwrap();
            server
                .at(&*path, ServiceObject(main_pid, restarts))
                .await
                .unwrap();
        });
    }

    /// Sends the signal that a unit of this kind has changed.
    fn changed(&self, name: &str, interface: &str) {
        let path = object_path(name);
        let changed: HashMap<&str, Variant<'_>> = HashMap::new();
        let body = (interface, changed, Vec::<&str>::new());
        let sent = self.0.emit_signal(
            None::<&str>,
            &*path,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &body,
        );
        self.1.block_on(sent).unwrap();
    }
}

const SERVICE: &str = "org.freedesktop.systemd1.Service";

fn failed(snapshot: &Value) -> Option<&Value> {
    snapshot["system"].get("failed_units")
}

#[test]
#[parallel]
fn failed_units_match_systemds_list() {
    let bus = Bus::start();
    let manager = Manager::default();
    let serving = manager.serve(&bus);
    let agent = bus.agent();
    let mut client = agent.login();
    let none = json!([]);
    client.snapshot_where("no failed units", DEADLINE, |s| failed(s) == Some(&none));
    *manager.units.lock().unwrap() = vec![
        ("web.service", "failed"),
        ("ssh.service", "active"),
        ("backup.timer", "failed"),
        ("new.service", "activating"),
    ];
    let expected = json!([
        { "name": "backup.timer", "description": "What backup.timer is" },
        { "name": "web.service", "description": "What web.service is" }
    ]);
    client.snapshot_where("failed units", DEADLINE, |s| failed(s) == Some(&expected));
    manager.units.lock().unwrap()[0].1 = "active";
    let expected = json!([{ "name": "backup.timer", "description": "What backup.timer is" }]);
    client.snapshot_where("one failed unit", DEADLINE, |s| {
        failed(s) == Some(&expected)
    });

    // While systemd is gone, the figure is absent and the status is ok. When systemd is back, the figure is in snapshots again.
    drop(serving);
    let gone = client.snapshot_where("no answer", DEADLINE, |s| failed(s).is_none());
    assert_eq!(gone["sources"]["system"]["status"], "ok");
    let _serving = manager.serve(&bus);
    client.snapshot_where("an answer", DEADLINE, |s| failed(s) == Some(&expected));
}

#[test]
#[parallel]
fn without_systemd_or_without_a_bus_the_status_is_ok() {
    let bus = Bus::start();
    for address in [bus.address(), "unix:path=/nonexistent/bus".to_owned()] {
        let finished = Launch::new()
            .var("DBUS_SYSTEM_BUS_ADDRESS", address)
            .args(["snapshot"])
            .run();
        let snapshot = schema::snapshot(&finished.stdout[0]);
        assert_eq!(failed(&snapshot), None);
        assert_eq!(snapshot["sources"]["system"]["status"], "ok");
    }
}

/// `dbus-daemon` refuses a user that it cannot look up, such as a user of `DynamicUser=yes`.
#[test]
#[parallel]
fn a_bus_that_refuses_the_agent_is_an_error_in_sources() {
    let bus = Bus::start();
    let _serving = Manager::default().serve(&bus);
    // By default only the owner can open the folder.
    std::fs::set_permissions(bus.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let launch = bus.launch();
    let refused = launch
        .clone()
        .launched_by(["setpriv", NO_USER, "--clear-groups"])
        .start();
    let error_is_reported = |snapshot: &Value| {
        let error = snapshot["sources"]["system"]["error"].as_str();
        error.is_some_and(|error| error.contains("failed_units: "))
    };
    let snapshot = refused
        .login()
        .snapshot_where("a refusal", DEADLINE, error_is_reported);
    assert_eq!(failed(&snapshot), None);
    assert!(snapshot["system"]["memory_total"].as_f64() > Some(0.0));
    let agent = launch.start();
    let listed = |snapshot: &Value| failed(snapshot).is_some() && !error_is_reported(snapshot);
    agent.login().snapshot_where("an answer", DEADLINE, listed);
}

#[test]
#[parallel]
fn a_bus_that_hangs_delays_no_snapshot() {
    let bus = Bus::start();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(bus.daemon.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let agent = bus.agent();
    let mut client = agent.login();
    let mut late = 0;
    for _ in 0..20 {
        let snapshot = client.snapshot();
        assert_eq!(failed(&snapshot), None);
        assert_eq!(snapshot["sources"]["system"]["status"], "ok");
        late += usize::from(snapshot["sources"]["system"]["duration_ms"].as_u64() > Some(400));
    }
    // In four seconds the agent tries at most three times: immediately, after a pause, and after a longer pause.
    assert!(late <= 14, "{late} of 20 rounds were late");
}

fn unit<'a>(snapshot: &'a Value, name: &str) -> Option<&'a Value> {
    let mut units = snapshot["system"]["units"].as_array()?.iter();
    units.find(|unit| unit["name"] == name)
}

#[test]
#[parallel]
fn units_have_the_states_of_systemd_and_only_changes_are_asked_for() {
    let group = UnitGroup::new("states.service");
    let broken = UnitGroup::new("states-broken.service");
    let bus = Bus::start();
    let manager = Manager::with(&[
        ("states.service", "active"),
        ("states-other.service", "inactive"),
        ("states-broken.service", "failed"),
        ("states-home.mount", "failed"),
        ("states-waits.service", "activating"),
    ]);
    let serving = manager.serve(&bus);
    serving.service("states.service", 4242, 7);
    serving.service("states-waits.service", 0, 9);
    serving.service("states-broken.service", 0, 3);
    let agent = bus.launch().var("UNITS", "1000").start();
    let mut client = agent.login();
    let snapshot = client.snapshot_where("the states", DEADLINE, |s| {
        unit(s, "states.service").is_some_and(|unit| unit["state"] == "active")
    });
    let active = unit(&snapshot, "states.service").unwrap();
    assert_eq!(active["sub_state"], "active");
    assert_eq!(active["since"], "2024-01-01T12:00:00.250Z");
    assert_eq!(
        (&active["main_pid"], &active["restarts"]),
        (&json!(4242), &json!(7))
    );
    assert!(active["tasks"].is_u64(), "{active}");
    // A unit that has failed comes first, with and without a control group.
    let units = snapshot["system"]["units"].as_array().unwrap();
    // So does a unit that waits for its restart.
    let names: Vec<_> = units.iter().take(3).map(|unit| &unit["name"]).collect();
    let expected = [
        "states-broken.service",
        "states-home.mount",
        "states-waits.service",
    ];
    assert_eq!(names, expected);
    assert_eq!(units[2]["restarts"], 9);
    let failed = &units[0];
    assert_eq!(
        (&failed["state"], &failed["restarts"]),
        (&json!("failed"), &json!(3))
    );
    assert_eq!(failed["since"], "2024-01-01T12:01:40.250Z");
    assert!(failed["main_pid"].is_null(), "{failed}");
    drop(broken);

    // Nothing changes, so systemd is not asked for units again.
    let before = manager.requests.lock().unwrap().clone();
    assert_eq!(before, ["all"]);
    for _ in 0..10 {
        client.snapshot();
    }
    assert_eq!(*manager.requests.lock().unwrap(), before);

    // A signal makes the agent ask for the unit that has changed.
    manager.units.lock().unwrap()[0].1 = "activating";
    serving.service("states.service", 4343, 8);
    serving.changed("states.service", SERVICE);
    let snapshot = client.snapshot_where("the new state", DEADLINE, |s| {
        unit(s, "states.service").is_some_and(|unit| unit["state"] == "activating")
    });
    let starting = unit(&snapshot, "states.service").unwrap();
    assert_eq!(
        (&starting["main_pid"], &starting["restarts"]),
        (&json!(4343), &json!(8))
    );
    assert_eq!(starting["since"], "2024-01-01T12:03:20.250Z");
    assert_eq!(*manager.requests.lock().unwrap(), ["all", "states.service"]);
    // The changes of mount units are not received. When a failed one is repaired, it is left out.
    serving.changed("states-home.mount", "org.freedesktop.systemd1.Mount");
    manager.units.lock().unwrap()[3].1 = "inactive";
    client.snapshot_where("the repaired unit", DEADLINE, |s| {
        unit(s, "states-home.mount").is_none()
    });
    assert_eq!(manager.requests.lock().unwrap().len(), 2);

    // While systemd is gone, the units have figures and no states. When systemd is back, they have states again.
    drop(serving);
    client.snapshot_where("no state", DEADLINE, |s| {
        unit(s, "states.service")
            .is_some_and(|unit| unit["state"].is_null() && unit["tasks"].is_u64())
    });
    let _serving = manager.serve(&bus);
    client.snapshot_where("a state", DEADLINE, |s| {
        unit(s, "states.service").is_some_and(|unit| unit["state"] == "activating")
    });
    drop(group);
}

#[test]
#[parallel]
fn a_crowd_of_changes_makes_the_agent_ask_once_for_all_units() {
    let bus = Bus::start();
    let manager = Manager::with(&[("crowd.service", "failed")]);
    let serving = manager.serve(&bus);
    let agent = bus.agent();
    let mut client = agent.login();
    client.snapshot_where("the state", DEADLINE, |s| {
        unit(s, "crowd.service").is_some_and(|unit| unit["state"] == "failed")
    });
    for number in 0..2000 {
        serving.changed(&format!("crowd-{number}.service"), SERVICE);
    }
    wait::until("the request", DEADLINE, || {
        client.snapshot();
        let requests = manager.requests.lock().unwrap();
        (requests.iter().filter(|one| *one == "all").count() > 1).then_some(())
    });
    let requests = manager.requests.lock().unwrap();
    assert!(requests.len() < 40, "{requests:?}");
    assert!(unit(&client.snapshot(), "crowd.service").is_some());
}

#[test]
#[parallel]
fn with_units_zero_only_failed_units_are_published() {
    let group = UnitGroup::new("zero.service");
    let bus = Bus::start();
    let manager = Manager::with(&[("zero.service", "active"), ("home.mount", "failed")]);
    let _serving = manager.serve(&bus);
    let agent = bus.launch().var("UNITS", "0").start();
    let snapshot = agent
        .login()
        .snapshot_where("the failed unit", DEADLINE, |s| {
            failed(s).is_some_and(|failed| failed[0]["name"] == "home.mount")
        });
    assert!(snapshot["system"]["units"].is_null());
    assert!(manager.requests.lock().unwrap().is_empty());
    drop(group);
}

/// The system bus refuses more than 128 calls without an answer.
#[test]
#[parallel]
fn hundreds_of_units_all_get_their_properties() {
    let names: Vec<&'static str> = (0..250)
        .map(|number| &*format!("hundreds-{number:03}.service").leak())
        .collect();
    let bus = Bus::start();
    let units: Vec<_> = names.iter().map(|name| (*name, "failed")).collect();
    let serving = Manager::with(&units).serve(&bus);
    for name in &names {
        serving.service(name, 0, 3);
    }
    let agent = bus.agent();
    let snapshot = agent.login().snapshot_where("all restarts", DEADLINE, |s| {
        let units = s["system"]["units"].as_array();
        let complete = |unit: &&Value| unit["restarts"] == 3 && unit["since"].is_string();
        units.is_some_and(|units| units.iter().filter(complete).count() == names.len())
    });
    assert_eq!(failed(&snapshot).unwrap().as_array().unwrap().len(), 250);
}
