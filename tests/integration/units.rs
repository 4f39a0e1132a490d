//! Tests of systemd's failed units, with a real message bus. A fake service with systemd's name and methods replaces
//! systemd, because not every test machine runs systemd.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;
use zbus::OwnedObjectPath;

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
            .expect("cannot start dbus-daemon");
        let bus = Self { folder, daemon };
        wait::until("the bus", DEADLINE, || bus.socket().exists().then_some(()));
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

/// A fake systemd with these units: their names and active states.
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

    #[expect(clippy::needless_pass_by_value, reason = "the type that zbus passes")]
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
struct Serving(
    #[expect(dead_code, reason = "kept only to be dropped, before the runtime")] zbus::Connection,
    #[expect(dead_code, reason = "kept only to be dropped, after the connection")]
    tokio::runtime::Runtime,
);

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
    client.snapshot_where("failed units", DEADLINE, |s| failed(s) == Some(&expected));
    manager.0.lock().unwrap()[0].1 = "active";
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
