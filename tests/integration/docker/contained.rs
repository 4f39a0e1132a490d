//! Tests the agent in a container that is started with `config/compose.yml`, and the page in another one. The agent must measure the
//! host, not its own container.

use std::process::Command;

use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::engine::{Engine, IMAGE};
use crate::support::{Client, DEADLINE, KEY, Launch, net, wait};
use crate::web::browser::get;

/// The containers that `docker-compose` started. Removed on drop.
struct Composed {
    environment: Vec<(&'static str, String)>,
}

impl Composed {
    /// Starts the agent at a port, and the page at the port `web` if there is one.
    fn up(port: u16, web: Option<u16>) -> Self {
        let topic = web.map_or("contained", |_| "page");
        let name = format!("system-agent-test-{}-{topic}", std::process::id());
        let image = format!("{name}:test");
        let made = Command::new("tests/setup/agent-image.sh")
            .args([&image, env!("CARGO_BIN_EXE_system-agent")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let composed = Self {
            environment: vec![
                ("COMPOSE_PROJECT_NAME", name.clone()),
                ("SYSTEM_AGENT_NAME", name),
                ("SYSTEM_AGENT_IMAGE", image),
                ("API_KEY", KEY.to_owned()),
                ("SOCKET_ADDRESS", "127.0.0.1".to_owned()),
                ("SOCKET_PORT", port.to_string()),
                (
                    "WEB_ADDRESS",
                    format!("127.0.0.1:{}", web.unwrap_or_default()),
                ),
                ("COMPOSE_PROFILES", web.map_or("", |_| "web").to_owned()),
            ],
        };
        let up = composed.compose(&["up", "--detach"]);
        assert!(up.status.success(), "{up:?}");
        composed
    }

    /// The name of the project, and of the agent's container.
    fn project(&self) -> &str {
        &self.environment[0].1
    }

    fn compose(&self, arguments: &[&str]) -> std::process::Output {
        // Debian's docker-compose has version 1, which does not accept this line of the file. The line sets the default value of
        // version 1.
        let file = std::fs::read_to_string("config/compose.yml").unwrap();
        let mut known = file.replace("    cgroup: host\n", "");
        assert_ne!(file, known);
        if !is_root_shared() {
            let slave = "        bind:\n          propagation: rslave\n";
            assert!(known.contains(slave));
            known = known.replace(slave, "");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("compose.yml");
        std::fs::write(&path, known).unwrap();
        Command::new("docker-compose")
            .arg("--file")
            .arg(path)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("cannot start docker-compose")
    }
}

/// Whether the mount of `/` is shared. If it is shared, mounts below `/` appear in other namespaces. systemd makes the mount
/// shared.
fn is_root_shared() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let root = mounts.lines().rfind(is_root).unwrap();
    root.contains(" shared:")
}

impl Drop for Composed {
    fn drop(&mut self) {
        let log = self.compose(&["logs"]);
        if std::thread::panicking() {
            eprintln!("{}", String::from_utf8_lossy(&log.stdout));
        }
        self.compose(&["down", "--volumes", "--timeout", "5"]);
        let (_, image) = &self.environment[2];
        // If this command fails, the image stays on the machine, which disturbs nothing.
        let _ = Command::new("docker").args(["rmi", image]).output();
    }
}

/// The values of a snapshot that do not change within a few seconds.
fn lasting(snapshot: &Value) -> Value {
    let system = &snapshot["system"];
    let each = |list: &Value, fields: &[&str]| -> Vec<Value> {
        let pick = |one: &Value| fields.iter().map(|field| one[*field].clone()).collect();
        list.as_array().unwrap().iter().map(pick).collect()
    };
    serde_json::json!({
        "host": snapshot["host"],
        "memory_total": system["memory_total"],
        "disk_total": system["disk_total"],
        "disks": each(&system["disks"], &["mount", "device", "type", "total", "inodes_total"]),
        "disk_io": each(&system["disk_io"], &["device"]),
        "sensors": system["temperatures"].as_array().map(Vec::len),
    })
}

#[test]
#[parallel]
fn an_agent_in_a_container_measures_the_host() {
    let busy = Container::run(
        "watched-from-within",
        &["--memory", "64m"],
        "echo a line; while :; do :; done",
    );
    let name = busy.name().to_owned();
    let port = net::free_port();
    let composed = Composed::up(port, None);
    let beside = Launch::new()
        .vars(&[("DOCKER_ENABLED", "true"), ("DOCKER_INTERVAL", "1s")])
        .start();
    let snapshot_of = |mut client: Client| {
        wait::until(
            "a snapshot with the container and its log",
            DEADLINE,
            || {
                let snapshot = client.snapshot();
                let busy = |container: &Value| container["cpu_percent"].as_f64() > Some(1.0);
                let has_log = snapshot["logs"][&name].get(0).is_some();
                (has_log && find(&snapshot, &name).is_some_and(busy)).then_some(snapshot)
            },
        )
    };
    wait::until("the agent in the container to listen", DEADLINE, || {
        net::listens(port).then_some(())
    });
    let within = {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send(format!("{KEY}\n"));
        snapshot_of(client)
    };
    let outside = snapshot_of(beside.login());

    assert_eq!(lasting(&within), lasting(&outside));
    // The agent reads the host's files and sends no requests for figures and logs to the engine.
    for source in ["docker", "logs"] {
        assert_eq!(within["sources"][source]["via"], "kernel", "{within:#}");
        assert_eq!(within["sources"][source]["status"], "ok", "{within:#}");
    }
    assert_eq!(within["logs"][&name], outside["logs"][&name]);
    let (one, other) = (
        find(&within, &name).unwrap(),
        find(&outside, &name).unwrap(),
    );
    for field in [
        "id",
        "memory_limit",
        "pids",
        "image_digest",
        "started_at",
        "restart_count",
    ] {
        assert_eq!(one[field], other[field], "{field}");
    }
    let near = |one: &Value, other: &Value, part: f64| {
        let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
        (one - other).abs() <= part * one.max(other)
    };
    let system = |snapshot: &Value, field: &str| snapshot["system"][field].clone();
    for field in ["memory_used", "disk_used", "uptime"] {
        let (one, other) = (system(&within, field), system(&outside, field));
        assert!(near(&one, &other, 0.1), "{field}: {one} and {other}");
    }
    let processes = |snapshot: &Value| snapshot["system"]["processes"]["total"].clone();
    assert!(near(&processes(&within), &processes(&outside), 0.2));
    // Processes have the names of their users and containers.
    let busiest = within["system"]["top_processes"].as_array().unwrap();
    assert!(
        busiest
            .iter()
            .any(|process| process["container"] == name.as_str() && process["user"] == "root"),
        "{busiest:?}"
    );
    drop(composed);
}

#[test]
#[parallel]
fn the_page_in_a_container_shows_the_host_and_has_no_rights() {
    let (port, web) = (net::free_port(), net::free_port());
    let composed = Composed::up(port, Some(web));
    let address = ([127, 0, 0, 1], web).into();
    wait::until("the page to listen", DEADLINE, || {
        net::listens(web).then_some(())
    });
    let page = get(address, "/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<title>System Agent</title>"));
    let name = rustix::system::uname();
    let row = wait::until("the host", DEADLINE, || {
        let hosts = get(address, "/api/v1/hosts").json();
        let row = hosts["hosts"][0].clone();
        (row["state"] == "live").then_some(row)
    });
    assert_eq!(row["name"], *name.nodename().to_str().unwrap());
    let host = format!("/api/v1/hosts/{}", row["id"].as_str().unwrap());
    wait::until("both containers", DEADLINE, || {
        let host = get(address, &host).json();
        find(&host["snapshot"], composed.project())?;
        find(&host["snapshot"], &format!("{}-web", composed.project())).map(|_| ())
    });

    let engine = Engine::local();
    let container = engine.inspect(&format!("{}-web", composed.project()));
    assert_eq!(container["Config"]["User"], "9180:9180");
    let rights = &container["HostConfig"];
    assert_eq!(rights["ReadonlyRootfs"], true);
    assert_eq!(rights["CapDrop"], serde_json::json!(["ALL"]));
    assert!(
        rights["CapAdd"].is_null() && rights["PidMode"] == "",
        "{rights:#}"
    );
    let mounts = container["Mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 1, "{mounts:#?}");
    assert_eq!(mounts[0]["Destination"], "/var/lib/system-agent-web");
    // The user of the page can write its history to the volume.
    let list = get(address, "/api/v1/hosts").json();
    assert!(list["history_error"].is_null(), "{list:#}");
    let volume = mounts[0]["Name"].as_str().unwrap();
    let mount = format!("{volume}:/state");
    engine.docker([
        "run",
        "--rm",
        "--volume",
        &mount,
        IMAGE,
        "test",
        "-s",
        "/state/history.db",
    ]);
}

fn find<'s>(snapshot: &'s Value, name: &str) -> Option<&'s Value> {
    let containers = snapshot["containers"].as_array()?;
    containers
        .iter()
        .find(|container| container["name"] == format!("/{name}"))
}
