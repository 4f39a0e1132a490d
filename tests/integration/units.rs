//! Systemd's failed units. A real message bus; where tests run systemd is not what started the host, so a service with
//! its name and its methods stands in for it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;
use zbus::OwnedObjectPath;

use crate::support::{Agent, Launch, PATIENCE, schema, wait};

/// A user id that no database of users has.
const NO_USER: &str = "--reuid=54321";

/// A message bus of a test's own.
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
             </policy></busconfig>",
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
            .expect("dbus-daemon");
        let bus = Self { folder, daemon };
        wait::until("the bus", PATIENCE, || bus.socket().exists().then_some(()));
        bus
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// A snapshot each 200 ms, the units in it each second.
    fn launch(&self) -> Launch {
        Launch::new()
            .var("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .var("PUBLISH_INTERVAL", "200ms")
            .var("SYSTEM_INTERVAL", "200ms")
    }

    fn watched(&self) -> Agent {
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

/// Its units, by name: their active states.
#[derive(Clone, Default)]
struct Manager(Arc<Mutex<Vec<(&'static str, &'static str)>>>);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    #[zbus(property)]
    fn n_failed_units(&self) -> u32 {
        let units = self.0.lock().unwrap();
        let failed = units.iter().filter(|(_, state)| *state == "failed");
        u32::try_from(failed.count()).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "as it comes off the bus")]
    fn list_units_filtered(&self, states: Vec<String>) -> Vec<Listed> {
        let object = |path: &str| OwnedObjectPath::try_from(path.to_owned()).unwrap();
        let units = self.0.lock().unwrap();
        let wanted = units
            .iter()
            .filter(|(_, state)| states.iter().any(|one| one == state));
        wanted
            .map(|(name, state)| {
                (
                    (*name).to_owned(),
                    format!("What {name} is"),
                    "loaded".to_owned(),
                    (*state).to_owned(),
                    (*state).to_owned(),
                    String::new(),
                    object("/org/freedesktop/systemd1/unit/one"),
                    0,
                    String::new(),
                    object("/"),
                )
            })
            .collect()
    }
}

impl Manager {
    /// Serves on a bus until what is returned is dropped.
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

/// A connection to the bus, and what runs it: both end with this.
struct Serving(
    #[expect(dead_code, reason = "dropped first")] zbus::Connection,
    #[expect(dead_code, reason = "dropped then")] tokio::runtime::Runtime,
);

fn failed(snapshot: &Value) -> Option<&Value> {
    snapshot["system"].get("failed_units")
}

#[test]
#[parallel]
fn failed_units_are_those_that_systemd_lists() {
    let bus = Bus::start();
    let manager = Manager::default();
    let serving = manager.serve(&bus);
    let agent = bus.watched();
    let mut client = agent.login();
    let none = json!([]);
    client.snapshot_where("no failed units", PATIENCE, |s| failed(s) == Some(&none));
    *manager.0.lock().unwrap() = vec![
        ("web.service", "failed"),
        ("ssh.service", "active"),
        ("backup.timer", "failed"),
        ("new.service", "activating"),
    ];
    let expected = json!([
        { "name": "backup.timer", "description": "What backup.timer is" },
        { "name": "web.service", "description": "What web.service is" }
    ]);
    client.snapshot_where("failed units", PATIENCE, |s| failed(s) == Some(&expected));
    manager.0.lock().unwrap()[0].1 = "active";
    let expected = json!([{ "name": "backup.timer", "description": "What backup.timer is" }]);
    client.snapshot_where("one failed unit", PATIENCE, |s| {
        failed(s) == Some(&expected)
    });

    // Where it goes nothing is known, and nothing amiss; once it is back, it is asked again.
    drop(serving);
    let gone = client.snapshot_where("no answer", PATIENCE, |s| failed(s).is_none());
    assert_eq!(gone["sources"]["system"]["status"], "ok");
    let _serving = manager.serve(&bus);
    client.snapshot_where("an answer", PATIENCE, |s| failed(s) == Some(&expected));
}

#[test]
#[parallel]
fn without_systemd_or_without_a_bus_nothing_is_amiss() {
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

/// `dbus-daemon` refuses a user whom it cannot look up, as one of `DynamicUser=yes`; a bus's policy may refuse any.
#[test]
#[parallel]
fn a_bus_that_refuses_the_agent_is_named_in_sources() {
    let bus = Bus::start();
    let _serving = Manager::default().serve(&bus);
    // The folder is its owner's alone.
    std::fs::set_permissions(bus.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let launch = bus.launch();
    let refused = launch
        .clone()
        .by(["setpriv", NO_USER, "--clear-groups"])
        .start();
    let told = |snapshot: &Value| {
        let error = snapshot["sources"]["system"]["error"].as_str();
        error.is_some_and(|error| error.contains("failed_units: "))
    };
    let snapshot = refused.login().snapshot_where("a refusal", PATIENCE, told);
    assert_eq!(failed(&snapshot), None);
    assert!(snapshot["system"]["memory_total"].as_f64() > Some(0.0));
    let agent = launch.start();
    let listed = |snapshot: &Value| failed(snapshot).is_some() && !told(snapshot);
    agent.login().snapshot_where("an answer", PATIENCE, listed);
}

#[test]
#[parallel]
fn a_bus_that_hangs_holds_up_nothing() {
    let bus = Bus::start();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(bus.daemon.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let agent = bus.watched();
    let mut client = agent.login();
    let mut late = 0;
    for _ in 0..20 {
        let snapshot = client.snapshot();
        assert_eq!(failed(&snapshot), None);
        assert_eq!(snapshot["sources"]["system"]["status"], "ok");
        late += usize::from(snapshot["sources"]["system"]["duration_ms"].as_u64() > Some(400));
    }
    // In four seconds it is tried at most three times: at once, after one pause and after a longer one.
    assert!(late <= 14, "{late} of 20 readings were late");
}
