//! Reads the engine's answer to the inspection of one container.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::health::Health;
use super::json::Json;
use super::listing::truncated;
use crate::model::{Compose, ContainerSpec};
use crate::settings::ContainerEnv;

/// Maximum number of volumes and bind mounts of a container. More are ignored.
const MAX_MOUNTS: usize = 64;
/// Maximum number of environment variables of a container. More are ignored.
const MAX_VARIABLES: usize = 64;
/// The default period of CPU limits of the kernel and of Docker, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The facts that an inspection reports about a container, in addition to the container's entry in the container list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inspected {
    /// The id of the container's first process. 0 if the container does not run.
    pub(crate) pid: u32,
    /// Whether the container does not use the host's network namespace. Such a container has its own namespace, or uses that of
    /// another container.
    pub(crate) own_network: bool,
    /// The id of the other container whose network namespace the container uses. None if it uses no other container's namespace.
    pub(crate) network_of: Option<String>,
    /// When the container was last started.
    pub(crate) started_at: Option<SystemTime>,
    /// The result of the container's health check.
    pub(crate) health: Health,
    /// How the container ended, and whether it starts again. It has no values of a running container's end.
    pub(crate) end: End,
    /// How often the container's restart policy has restarted the container.
    pub(crate) restart_count: Option<u64>,
    /// The digest of the configuration of the container's image.
    pub(crate) image_digest: Option<String>,
    /// The limit on the number of the container's processes and threads together. None if there is no limit.
    pub(crate) pids_limit: Option<u64>,
    /// The limit on the container's CPU use, in cores. None if there is no limit.
    pub(crate) cpu_limit: Option<f64>,
    /// The limits as the kernel gets them.
    pub(crate) spec: ContainerSpec,
    pub(crate) labels: HashMap<String, String>,
    /// The environment variables that `CONTAINER_ENV` names, with their redacted values. At most [`MAX_VARIABLES`].
    pub(crate) env: Arc<BTreeMap<String, String>>,
    /// The directory of the writable layer, or another directory on the same file system.
    pub(crate) layer: Option<Arc<Path>>,
    /// Whether the container's output goes to a terminal (`docker run -t`).
    pub(crate) tty: bool,
    /// The container's logging driver.
    pub(crate) log_driver: String,
    /// The newest file of the container's log. None if the logging driver is not Docker's `json-file`.
    pub(crate) log_file: Option<PathBuf>,
    /// The folder in which the engine stores the container's files. If the container uses the network of another container, it can be
    /// the folder of that container.
    pub(crate) folder: Option<PathBuf>,
    /// The volumes and bind mounts. Other kinds of mounts are left out.
    pub(crate) mounts: Vec<VolumeMount>,
}

/// A volume or bind mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeMount {
    /// None for a bind mount.
    pub(crate) name: Option<String>,
    /// The path on the host.
    pub(crate) source: PathBuf,
    /// The path in the container.
    pub(crate) destination: String,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct End {
    pub(crate) exit_code: Option<i64>,
    /// Whether the kernel has killed a process of the container because of too little memory.
    pub(crate) oom_killed: Option<bool>,
    /// None if the container was never started.
    pub(crate) finished_at: Option<SystemTime>,
    /// Why the engine could not start the container.
    pub(crate) error: Option<String>,
    pub(crate) restart_policy: Option<String>,
}

impl Inspected {
    /// Reads the engine's answer. A value that cannot be read counts as missing. `env` chooses the environment variables to keep.
    pub(crate) fn read(container: &Json, env: &ContainerEnv) -> Self {
        let state = container.get("State");
        let config = container.get("Config");
        let host = container.get("HostConfig");
        let driver = host.get("LogConfig").get("Type").text();
        let network = host.get("NetworkMode").text();
        // Podman uses the name `json-file` for another format. Only Docker's log files end with `-json.log`.
        let in_file =
            |path: &String| driver.as_deref() == Some("json-file") && path.ends_with("-json.log");
        let folder = container
            .get("HostnamePath")
            .text()
            .and_then(|path| Some(Path::new(&path).parent()?.to_owned()));
        Self {
            env: Arc::new(variables(config, env)),
            layer: layer(container, folder.as_deref()),
            pid: state.get("Pid").number().unwrap_or_default(),
            started_at: state.get("StartedAt").text().as_deref().and_then(moment),
            health: Health::read(state.get("Health"), env),
            end: End {
                exit_code: state.get("ExitCode").integer(),
                oom_killed: state.get("OOMKilled").boolean(),
                finished_at: state.get("FinishedAt").text().as_deref().and_then(moment),
                error: state.get("Error").non_empty_text().map(truncated),
                restart_policy: host
                    .get("RestartPolicy")
                    .get("Name")
                    .non_empty_text()
                    .map(truncated),
            },
            restart_count: container.get("RestartCount").count(),
            image_digest: container
                .get("Image")
                .text()
                .filter(|image| is_digest(image)),
            pids_limit: host.get("PidsLimit").count().filter(|limit| *limit > 0),
            cpu_limit: cpu_limit(host),
            spec: spec(host),
            labels: config
                .get("Labels")
                .members()
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.text()?)))
                .collect(),
            own_network: network.as_deref() != Some("host"),
            network_of: network
                .as_deref()
                .and_then(|mode| mode.strip_prefix("container:"))
                .filter(|other| !other.is_empty())
                .map(str::to_owned),
            tty: config.get("Tty").boolean().unwrap_or_default(),
            log_file: container
                .get("LogPath")
                .text()
                .filter(in_file)
                .map(PathBuf::from),
            log_driver: driver.unwrap_or_default(),
            folder,
            mounts: container
                .get("Mounts")
                .items()
                .iter()
                .filter_map(volume)
                .take(MAX_MOUNTS)
                .collect(),
        }
    }

    /// Returns the folder in which the engine stores all its data.
    pub(crate) fn data_root(&self) -> Option<&Path> {
        // The container's own folder is `<data root>/containers/<id>`.
        self.folder.as_deref()?.parent()?.parent()
    }

    /// Whether `docker compose run` created the container.
    pub(super) fn is_one_off(&self) -> bool {
        let label = self.labels.get("com.docker.compose.oneoff");
        label.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Returns the container's project and service in `docker compose`.
    pub(super) fn compose(&self) -> Option<Compose> {
        let label = |name: &str| self.labels.get(name).cloned();
        Some(Compose {
            project: label("com.docker.compose.project")?,
            service: label("com.docker.compose.service"),
        })
    }
}

/// Returns the environment variables that `env` chooses.
fn variables(config: &Json, env: &ContainerEnv) -> BTreeMap<String, String> {
    if env.count() == 0 {
        return BTreeMap::new();
    }
    let mut chosen = BTreeMap::new();
    for variable in config.get("Env").items() {
        if chosen.len() == MAX_VARIABLES {
            break;
        }
        if let Some(variable) = variable.text()
            && let Some((name, value)) = env.chosen(&variable)
        {
            chosen.insert(truncated(name.to_owned()), truncated(value));
        }
    }
    chosen
}

/// Returns the directory of the writable layer. If the storage driver has no such directory, returns Docker's data root, which is
/// usually on the same file system. None for an engine with another layout, such as Podman.
fn layer(container: &Json, folder: Option<&Path>) -> Option<Arc<Path>> {
    let upper = container.get("GraphDriver").get("Data").get("UpperDir");
    if let Some(upper) = upper.non_empty_text() {
        return Some(Path::new(&truncated(upper)).into());
    }
    let containers = folder?.parent()?;
    let is_dockers = containers.file_name()? == "containers";
    is_dockers.then(|| containers.into())
}

/// Reads a volume or bind mount. None for other kinds of mounts.
fn volume(mount: &Json) -> Option<VolumeMount> {
    let name = match mount.get("Type").text()?.as_str() {
        "volume" => Some(truncated(mount.get("Name").non_empty_text()?)),
        "bind" => None,
        _ => return None,
    };
    let source = truncated(mount.get("Source").non_empty_text()?);
    Some(VolumeMount {
        name,
        source: source.into(),
        destination: truncated(mount.get("Destination").non_empty_text()?),
    })
}

/// Parses a time from the engine. None for the year 1, which means "never".
fn moment(text: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (at.year() > 1).then(|| SystemTime::from(at))
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.len() == 64 && digits.bytes().all(is_digit)
}

/// Returns the limits as the kernel gets them.
fn spec(host: &Json) -> ContainerSpec {
    let positive = |key: &str| host.get(key).count().filter(|value| *value > 0);
    let bytes = |key: &str| positive(key).unwrap_or_default();
    let (cpu_period, cpu_quota) = match positive("NanoCpus") {
        // The limit in nanoseconds per second, as microseconds per period.
        Some(billionths) => (
            CPU_PERIOD,
            Some(billionths.div_ceil(1_000_000_000 / CPU_PERIOD)),
        ),
        None => (
            positive("CpuPeriod").unwrap_or(CPU_PERIOD),
            positive("CpuQuota"),
        ),
    };
    ContainerSpec {
        cpu_period,
        cpu_quota,
        cpu_shares: bytes("CpuShares"),
        memory: bytes("Memory"),
        memory_and_swap: bytes("MemorySwap"),
        memory_reservation: bytes("MemoryReservation"),
        storage: host
            .get("StorageOpt")
            .get("size")
            .text()
            .and_then(|size| storage(&size))
            .unwrap_or_default(),
    }
}

/// Reads a size such as `10G`, `1.5gb` or `1048576`. Docker's units are powers of 1024.
fn storage(size: &str) -> Option<u64> {
    let size = size.trim().to_ascii_lowercase();
    let unit = size
        .find(|one: char| one.is_ascii_alphabetic())
        .unwrap_or(size.len());
    let (number, unit) = size.split_at(unit);
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let bytes = number.trim().parse::<f64>().ok()? * (1_u64 << shift) as f64;
    // A number that is too large becomes the largest one.
    (bytes >= 1.0).then_some(bytes as u64)
}

/// Returns the CPU limit in cores. It comes from `docker run --cpus`, or from a quota of CPU time in each period.
fn cpu_limit(host: &Json) -> Option<f64> {
    /// The smallest limit that is published. Docker sets no smaller limit.
    const MIN_CORES: f64 = 0.001;
    let positive = |key: &str| host.get(key).count().filter(|value| *value > 0);
    let limit = match positive("NanoCpus") {
        Some(billionths) => billionths as f64 / 1e9,
        None => {
            let period = positive("CpuPeriod").unwrap_or(CPU_PERIOD);
            positive("CpuQuota")? as f64 / period as f64
        }
    };
    Some(limit.max(MIN_CORES))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Inspected, storage};
    use crate::collect::docker::json::Json;
    use crate::settings::{CollectSettings, ContainerEnv};

    fn inspected(bytes: &[u8]) -> Option<Inspected> {
        let env = ContainerEnv::default();
        Some(Inspected::read(&Json::parse(bytes).ok()?, &env))
    }

    /// Returns the inspection of a container in which the value at `place` is replaced.
    fn with(place: &str, value: &Value) -> Inspected {
        let digest = format!("sha256:{}", "0".repeat(64));
        let mut usual = json!({
            "Image": digest, "RestartCount": 1, "LogPath": "/x-json.log", "Config": {"Tty": true, "Labels": {"a": "b"}},
            "State": {"Pid": 7, "StartedAt": "2026-01-01T00:00:00Z", "Health": {"Status": "healthy"}},
            "HostConfig": {"NanoCpus": 5e8, "PidsLimit": 9, "LogConfig": {"Type": "json-file"}, "NetworkMode": "bridge"}
        });
        *usual.pointer_mut(place).unwrap() = value.clone();
        inspected(usual.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_invalid_value_does_not_affect_other_values() {
        let places = [
            "/Image",
            "/RestartCount",
            "/LogPath",
            "/Config",
            "/Config/Tty",
            "/Config/Labels",
            "/Config/Labels/a",
            "/State",
            "/State/Pid",
            "/State/StartedAt",
            "/State/Health",
            "/State/Health/Status",
            "/HostConfig",
            "/HostConfig/NanoCpus",
            "/HostConfig/PidsLimit",
            "/HostConfig/LogConfig",
            "/HostConfig/LogConfig/Type",
            "/HostConfig/NetworkMode",
        ];
        let odd = [
            json!(null),
            json!([1]),
            json!({"x": {}}),
            json!(-1),
            json!(1e300),
            json!("weird"),
            json!(""),
            json!(true),
            json!(1.5),
        ];
        for place in places {
            for value in &odd {
                let odd = with(place, value);
                assert!(
                    odd.pid == 7 || place.starts_with("/State"),
                    "{place} {value}"
                );
                assert!(
                    odd.restart_count == Some(1) || place == "/RestartCount",
                    "{place} {value}"
                );
                assert!(
                    odd.pids_limit == Some(9) || place.starts_with("/HostConfig"),
                    "{place} {value}"
                );
                assert!(odd.tty || place.starts_with("/Config"), "{place} {value}");
                assert!(
                    odd.image_digest.is_some() || place == "/Image",
                    "{place} {value}"
                );
            }
        }
        let weird = with("/State/Health/Status", &json!("weird"));
        assert_eq!(weird.health.status.as_deref(), Some("weird"));
        assert_eq!(with("/State/Health", &json!({})).health.status, None);
        assert_eq!(with("/State/Pid", &json!(-1)).pid, 0);
        assert_eq!(with("/Config/Labels/a", &json!(1)).labels["a"], "1");
        assert!(with("/Config/Labels/a", &json!(null)).labels.is_empty());
        assert_eq!(
            with("/HostConfig/NanoCpus", &json!(5)).cpu_limit,
            Some(0.001)
        );
    }

    #[test]
    fn limits_are_read_as_the_kernel_gets_them() {
        let spec = |host: Value| {
            let container = json!({ "HostConfig": host });
            inspected(container.to_string().as_bytes()).unwrap().spec
        };
        let cores = spec(json!({"NanoCpus": 1_500_000_000, "CpuShares": 512}));
        assert_eq!(
            (cores.cpu_period, cores.cpu_quota),
            (100_000, Some(150_000))
        );
        assert_eq!(cores.cpu_shares, 512);
        let quota = spec(json!({"CpuPeriod": 50_000, "CpuQuota": 20_000, "MemorySwap": -1}));
        assert_eq!((quota.cpu_period, quota.cpu_quota), (50_000, Some(20_000)));
        let memory = spec(json!({"Memory": 1024, "MemorySwap": 2048, "MemoryReservation": 512}));
        assert_eq!((memory.memory, memory.memory_and_swap), (1024, 2048));
        assert_eq!(memory.memory_reservation, 512);
        assert_eq!((memory.cpu_quota, quota.memory_and_swap), (None, 0));
    }

    #[test]
    fn only_the_chosen_environment_variables_are_kept() {
        let of = |variables: &[(&str, &str)], env: Value| {
            let variables = variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            let settings = CollectSettings::from_env(variables.collect::<Vec<_>>().into_iter());
            let container = json!({"Config": {"Env": env}}).to_string();
            let container = Json::parse(container.as_bytes()).unwrap();
            Inspected::read(&container, &settings.unwrap().container_env).env
        };
        let env = json!([
            "TIER=web",
            "PASSWORD=secret",
            "APP_TOKEN=secret",
            "odd",
            7,
            null
        ]);
        assert!(of(&[], env.clone()).is_empty());
        let variables = [
            ("CONTAINER_ENV", "TIER,APP_*"),
            ("LOG_REDACT", r"TOKEN=\S+"),
        ];
        let kept = of(&variables, env);
        let kept: Vec<_> = kept
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(kept, [("APP_TOKEN", "[redacted]"), ("TIER", "web")]);
        let many: Vec<_> = (0..200).map(|number| format!("A{number}=x")).collect();
        assert_eq!(
            of(&[("CONTAINER_ENV", "*")], json!(many)).len(),
            super::MAX_VARIABLES
        );
        let long = format!("A={}", "x".repeat(10_000));
        assert_eq!(
            of(&[("CONTAINER_ENV", "A")], json!([long]))["A"].len(),
            4096
        );
        assert!(of(&[("CONTAINER_ENV", "A")], json!({"A": "x"})).is_empty());
    }

    #[test]
    fn the_limit_of_the_writable_layer_is_read_as_docker_reads_it() {
        for (size, expected) in [
            ("10G", Some(10 << 30)),
            ("1.5gb", Some(3 << 29)),
            ("20 MiB", Some(20 << 20)),
            ("64k", Some(64 << 10)),
            ("1048576", Some(1 << 20)),
            ("0", None),
            ("-1G", None),
            ("nan", None),
            ("10X", None),
            ("", None),
        ] {
            assert_eq!(storage(size), expected, "{size}");
        }
        let container = json!({"HostConfig": {"StorageOpt": {"size": "10G"}}}).to_string();
        assert_eq!(
            inspected(container.as_bytes()).unwrap().spec.storage,
            10 << 30
        );
    }

    #[test]
    fn the_writable_layer_is_on_the_file_system_of_the_upper_directory_or_of_dockers_data_root() {
        let layer = |container: Value| inspected(container.to_string().as_bytes()).unwrap().layer;
        let docker = "/var/lib/docker/containers/01/hostname";
        for (container, expected) in [
            (
                json!({"HostnamePath": docker, "GraphDriver": {"Data": {"UpperDir": "/var/lib/docker/overlay2/02/diff"}}}),
                Some("/var/lib/docker/overlay2/02/diff"),
            ),
            (
                json!({"HostnamePath": docker, "GraphDriver": null}),
                Some("/var/lib/docker/containers"),
            ),
            (
                json!({"HostnamePath": "/run/containers/storage/overlay-containers/01/userdata/hostname"}),
                None,
            ),
            (json!({}), None),
        ] {
            assert_eq!(
                layer(container.clone()).as_deref(),
                expected.map(Path::new),
                "{container}"
            );
        }
    }

    #[test]
    fn volumes_and_bind_mounts_are_read() {
        let mounts = json!({"Mounts": [
            {"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/data"},
            {"Type": "bind", "Source": "/srv", "Destination": "/in"},
            {"Type": "tmpfs", "Source": "", "Destination": "/tmp"}, {"Type": "volume"}, 7, null
        ], "HostnamePath": "/var/lib/docker/containers/01/hostname"});
        let read = inspected(mounts.to_string().as_bytes()).unwrap();
        let found: Vec<_> = read
            .mounts
            .iter()
            .map(|one| {
                (
                    one.name.as_deref(),
                    one.source.to_str().unwrap(),
                    &*one.destination,
                )
            })
            .collect();
        let volume = (Some("data"), "/var/lib/docker/volumes/data/_data", "/data");
        assert_eq!(found, [volume, (None, "/srv", "/in")]);
        assert_eq!(read.data_root(), Some(Path::new("/var/lib/docker")));
    }

    #[test]
    fn fuzz_inspections() {
        let usual = r#"{"Id":"0123456789abcdef","Created":"2026-01-01T00:00:00Z","RestartCount":1,"LogPath":"/x-json.log",
            "Image":"sha256:0123","Config":{"Tty":true,"Labels":{"a":"b"}},
            "State":{"Status":"running","Pid":7,"StartedAt":"2026-01-01T00:00:00.5Z","Health":{"Status":"healthy"}},
            "Mounts":[{"Type":"volume","Name":"v","Source":"/v","Destination":"/d"},{"Type":"bind","Source":"/s","Destination":"/t"}],
            "HostConfig":{"NanoCpus":5,"PidsLimit":9,"LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge"}}"#;
        let odd = r#"{"State":{"Pid":0,"StartedAt":"0001-01-01T00:00:00Z","Health":{"Status":"none"}},"LogPath":"",
            "HostConfig":{"CpuQuota":-1,"CpuPeriod":0,"PidsLimit":-1,"LogConfig":{"Type":"local"},"NetworkMode":"container:01"}}"#;
        assert_eq!(inspected(usual.as_bytes()).map(|of| of.pid), Some(7));
        assert_eq!(inspected(odd.as_bytes()).map(|of| of.pid), Some(0));
        crate::fuzzing::run("inspections", &[usual, odd].map(str::as_bytes), |bytes| {
            let Some(inspected) = inspected(bytes) else {
                return;
            };
            let limit = inspected.cpu_limit;
            assert!(
                limit.is_none_or(|cores| cores > 0.0 && cores.is_finite()),
                "{limit:?}"
            );
            assert!(inspected.pids_limit != Some(0));
            assert!(inspected.mounts.len() <= super::MAX_MOUNTS);
        });
    }
}
