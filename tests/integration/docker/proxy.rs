//! Tests an engine behind a real proxy that allows only reading. The proxy uses `config/haproxy-docker.cfg`, as users do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::snapshots::{Snapshots, figure, healthy, lines, metadata, shows};
use super::{INTERVAL, launch};
use crate::support::{DEADLINE, net, wait};

/// HAProxy with `config/haproxy-docker.cfg` on a free port. Killed on drop.
struct Proxy {
    haproxy: Child,
    port: u16,
    _folder: TempDir,
}

impl Proxy {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let port = net::free_port();
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/haproxy-docker.cfg");
        let config = fs::read_to_string(config).unwrap();
        let own = config.replace(
            "127.0.0.1:2375\n    acl",
            &format!("127.0.0.1:{port}\n    acl"),
        );
        assert_ne!(own, config);
        let path = folder.path().join("haproxy.cfg");
        fs::write(&path, own).unwrap();
        let haproxy = Command::new("haproxy")
            .env(
                "PATH",
                std::env::var("PATH").unwrap_or_default() + ":/usr/sbin",
            )
            .arg("-f")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start haproxy (Debian package haproxy)");
        let _folder = folder;
        let proxy = Self {
            haproxy,
            port,
            _folder,
        };
        wait::until("haproxy", DEADLINE, || net::listens(port).then_some(()));
        proxy
    }

    /// The HTTP status of the answer to a request.
    fn status(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

#[test]
#[parallel]
fn the_agent_works_behind_a_read_only_proxy() {
    let proxy = Proxy::start();
    let script = "echo up; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done";
    let container = Container::run("door", &["--memory", "64m"], script);
    container.wait_for_line("line 1");
    // The agent reads only through the engine's API, as it does for an engine on another host.
    let variables = [
        ("DOCKER_HOST", format!("tcp://127.0.0.1:{}", proxy.port)),
        ("CONTAINER_STATS", "engine".to_owned()),
    ];
    let launch = variables
        .iter()
        .fold(launch(), |launch, (name, value)| launch.var(name, value));
    let agent = launch.start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let up = |s: &Value| {
        healthy(s) && shows(s, name) && lines(s, name).is_some_and(|lines| lines.len() > 2)
    };
    let snapshot = snapshots.until("the container", DEADLINE, up);
    assert!(metadata(&snapshot, name).is_some());
    assert_eq!(figure(&snapshot, name, "memory_limit"), f64::from(64 << 20));
    // Events pass the proxy, too.
    container.docker("restart", &["--time=0"]);
    let restarted = |s: &Value| {
        let events = s["events"].as_array().unwrap().iter();
        events
            .into_iter()
            .any(|event| event["action"] == "restart" && event["container"] == name)
    };
    snapshots.until("the restart", DEADLINE, restarted);

    let id = name;
    for (request, status) in [
        ("GET /_ping".to_owned(), "200"),
        ("GET /v1.41/version".to_owned(), "200"),
        (format!("GET /v1.41/containers/{id}/json"), "200"),
        (format!("POST /v1.41/containers/{id}/stop"), "403"),
        (format!("DELETE /v1.41/containers/{id}"), "403"),
        (
            format!("GET /v1.41/containers/{id}/archive?path=/etc/passwd"),
            "403",
        ),
        (
            format!("GET /v1.41/containers/{id}/json/../archive?path=/"),
            "403",
        ),
        ("GET /v1.41/secrets".to_owned(), "403"),
        ("GET /v1.41/images/json".to_owned(), "403"),
        ("POST /v1.41/containers/create".to_owned(), "403"),
    ] {
        assert_eq!(proxy.status(&request), status, "{request}");
    }
}
