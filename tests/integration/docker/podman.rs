//! Podman instead of Docker, with its own service: rootful and rootless.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::engine::IMAGE;
use crate::support::{Agent, DEADLINE, Launch, wait};

/// Podman with its own storage, and the service that the agent reads. On drop the service stops, and all containers and files are
/// removed.
struct Podman {
    directory: TempDir,
    /// Whether Podman runs as root.
    rootful: bool,
    service: Option<Child>,
}

impl Podman {
    fn start(rootful: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for place in ["home", "run"] {
            fs::create_dir(path.join(place)).unwrap();
        }
        if !rootful {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            run(Command::new("chown")
                .args(["-R", "nobody:nogroup"])
                .arg(path));
        }
        let mut podman = Self {
            directory,
            rootful,
            service: None,
        };
        // The image holds only busybox, with links for the shell and `sleep`.
        let (image, root) = (path_of(&podman, "image.tar"), path_of(&podman, "image"));
        let make = "mkdir -p \"$1/bin\" \"$1/tmp\" \"$1/etc\"; cp \"$(command -v busybox)\" \"$1/bin/busybox\"; \
                    for name in sh sleep; do ln -s busybox \"$1/bin/$name\"; done; tar -c -C \"$1\" . > \"$2\"";
        run(Command::new("sh")
            .args(["-ec", make, "sh"])
            .arg(&root)
            .arg(&image));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
        podman.podman(&["import", image.to_str().unwrap(), IMAGE]);
        let socket = format!("unix://{}", podman.socket().display());
        let service = podman
            .command(&["system", "service", "--time=0", &socket])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start podman");
        podman.service = Some(service);
        let socket = podman.socket();
        wait::for_server("podman's service", &socket);
        podman
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/podman.sock")
    }

    /// A Podman command. The options work with any file system and any version of control groups.
    fn command(&self, arguments: &[&str]) -> Command {
        let path = |place: &str| self.directory.path().join(place);
        let mut command = match self.rootful {
            true => {
                let mut podman = Command::new("podman");
                podman.arg("--root").arg(path("root"));
                podman.arg("--runroot").arg(path("run/root"));
                podman
            }
            false => {
                let mut runuser = Command::new("runuser");
                runuser.args(["-u", "nobody", "--", "env"]);
                let of = |name: &str, place| format!("{name}={}", path(place).display());
                runuser
                    .arg(of("HOME", "home"))
                    .arg(of("XDG_RUNTIME_DIR", "run"));
                runuser.arg("podman");
                runuser
            }
        };
        command
            .args(["--storage-driver=vfs", "--events-backend=file"])
            .args(["--cgroup-manager=cgroupfs", "--runtime=runc"])
            .args(arguments)
            .current_dir("/");
        command
    }

    fn podman(&self, arguments: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(arguments)).stdout).unwrap()
    }

    /// Starts a container that writes numbered log lines.
    fn container(&self, name: &str) {
        let script = "i=0; while :; do i=$((i+1)); echo \"line $i\"; sleep 0.1; done";
        // Podman's default limits can be higher than the limits of the user who runs the tests.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let run = ["run", "--detach", "--network=none", "--name", name];
        let command = [IMAGE, "/bin/sh", "-c", script];
        self.podman(&[&run[..], &limits[..], &command[..]].concat());
    }

    fn agent(&self) -> Agent {
        Launch::new()
            .var("DOCKER_ENABLED", "true")
            .var("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .vars(&[("DOCKER_INTERVAL", "500ms"), ("LOG_INTERVAL", "500ms")])
            .var("PUBLISH_INTERVAL", "500ms")
            .start()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // This command fails only if the start of Podman has failed.
        let _ = self
            .command(&["rm", "--force", "--all", "--time=0"])
            .output();
        if let Some(service) = &mut self.service {
            let _ = Command::new("pkill")
                .args(["-P", &service.id().to_string()])
                .status();
            let _ = service.kill();
            let _ = service.wait();
        }
        // The owners of the files are users of Podman's user namespace, so only Podman can remove the files.
        if !self.rootful {
            let _ = self.command(&["unshare", "rm", "-rf", "home"]).output();
        }
    }
}

fn path_of(podman: &Podman, name: &str) -> PathBuf {
    podman.directory.path().join(name)
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn named<'s>(snapshot: &'s Value, section: &str, name: &str) -> Option<&'s Value> {
    let all = snapshot[section].as_array().unwrap();
    let is = |one: &&Value| one["name"] == name || one["names"][0] == name;
    all.iter().find(is)
}

/// Fails unless forty log lines arrive once and in order. The first of these log lines can have any number.
fn assert_log_is_followed(agent: &Agent, name: &str) {
    let mut client = agent.connect();
    client.send(format!("{} {{\"logs\":\"new\"}}\n", crate::support::KEY));
    let mut numbers: Vec<u64> = Vec::new();
    wait::until("forty log lines of the container", DEADLINE, || {
        let snapshot = client.snapshot();
        assert!(snapshot["logs_dropped"].get(name).is_none(), "{snapshot:#}");
        for line in snapshot["logs"][name].as_array().into_iter().flatten() {
            let (_, number) = line.as_str().unwrap().rsplit_once(' ').unwrap();
            numbers.push(number.parse().unwrap());
        }
        (numbers.len() >= 40).then_some(())
    });
    let first = numbers[0];
    assert!(
        numbers
            .iter()
            .copied()
            .eq(first..first + numbers.len() as u64),
        "{numbers:?}"
    );
}

#[test]
#[parallel]
fn rootful_podman_is_measured_like_docker() {
    let podman = Podman::start(true);
    podman.container("first");
    let agent = podman.agent();
    let mut client = agent.login();
    let snapshot = client.snapshot_where("the container", DEADLINE, |snapshot| {
        named(snapshot, "containers", "/first").is_some()
    });
    let container = named(&snapshot, "containers", "/first").unwrap();
    assert_eq!(
        snapshot["sources"]["docker"]["via"], "kernel",
        "{snapshot:#}"
    );
    // Compares with the control group of the same container.
    let pid = podman.podman(&["inspect", "--format", "{{.State.Pid}}", "first"]);
    let cgroup = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("cgroup")).unwrap();
    let id = container["id"].as_str().unwrap();
    assert!(cgroup.contains(&format!("libpod-{id}")), "{cgroup}");
    let memory = container["memory_usage"].as_u64().unwrap();
    assert!((100_000..50_000_000).contains(&memory), "{memory}");
    assert!(container["cpu_usage_ns"].as_u64().unwrap() > 1_000_000);
    assert!(container["pids"].as_u64().unwrap() >= 1);
    let meta = named(&snapshot, "docker_meta", "/first").unwrap();
    assert_eq!(meta["state"], "running");
    assert_log_is_followed(&agent, "first");

    // A paused container stays in the snapshot.
    podman.podman(&["pause", "first"]);
    client.snapshot_where("the paused container", DEADLINE, |snapshot| {
        named(snapshot, "containers", "/first").is_some_and(|one| one["status"] == "paused")
    });
    // A paused container is also in a newer container list.
    podman.container("beside");
    client.snapshot_where("both containers", DEADLINE, |snapshot| {
        named(snapshot, "containers", "/beside").is_some()
    });
    let both = client.snapshot();
    let first = named(&both, "containers", "/first").unwrap_or_else(|| panic!("{both:#}"));
    assert_eq!(first["status"], "paused");
    podman.podman(&["unpause", "first"]);
    podman.podman(&["rm", "--force", "--time=0", "beside"]);

    // Podman's events have the same names as Docker's.
    podman.container("second");
    let mut actions = Vec::new();
    podman.podman(&["kill", "second"]);
    podman.podman(&["rm", "second"]);
    let wanted = ["start", "die", "destroy"];
    wait::until("the events", DEADLINE, || {
        let snapshot = client.snapshot();
        for event in snapshot["events"].as_array().unwrap() {
            if event["container"] == "second" {
                actions.push(event["action"].as_str().unwrap().to_owned());
                if event["action"] == "die" {
                    assert_eq!(event["exit_code"], 137, "{event:#}");
                }
            }
        }
        wanted
            .iter()
            .all(|one| actions.iter().any(|actions| actions == one))
            .then_some(())
    });
    client.snapshot_where("one container", DEADLINE, |snapshot| {
        snapshot["containers"].as_array().unwrap().len() == 1
    });
}

/// With cgroup v1, the kernel does not count what a rootless container uses. The error of the source states this. With cgroup v2
/// the container has figures.
#[test]
#[parallel]
fn rootless_podman_is_measured_as_far_as_the_kernel_counts() {
    let podman = Podman::start(false);
    podman.container("first");
    let agent = podman.agent();
    let mut client = agent.login();
    let snapshot = client.snapshot_where("the container", DEADLINE, |snapshot| {
        named(snapshot, "docker_meta", "/first").is_some()
            || snapshot["sources"]["docker"]["status"] == "failing"
    });
    match named(&snapshot, "containers", "/first") {
        Some(container) => assert!(container["memory_usage"].as_u64().unwrap() < 50_000_000),
        None => {
            let error = snapshot["sources"]["docker"]["error"].as_str().unwrap();
            assert!(error.contains("rootless"), "{error}");
        }
    }
    assert_log_is_followed(&agent, "first");
}
