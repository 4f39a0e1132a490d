//! Tests with a real receiver of OpenTelemetry: VictoriaMetrics, also with the names of Prometheus. Debian builds its Prometheus without
//! OTLP. Queries give the figures of the snapshot.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::INTERVAL;
use super::container::Container;
use super::launch;
use super::snapshots::{Snapshots, figures};
use crate::support::prometheus::{get, unchunked};
use crate::support::{Agent, DEADLINE, net, wait};

/// A receiver that answers PromQL. Ended on drop.
struct Store {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// Returns the path of a receiver. tests/setup/receivers.sh unpacks the receiver of a newer Debian.
fn program(name: &str) -> PathBuf {
    static UNPACKED: OnceLock<bool> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unpack = || Command::new(root.join("tests/setup/receivers.sh")).status();
    let unpacked = UNPACKED.get_or_init(|| unpack().is_ok_and(|status| status.success()));
    assert!(unpacked, "tests/setup/receivers.sh failed");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("receivers").join(name)
}

impl Store {
    /// Starts VictoriaMetrics with these further arguments.
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
        let process = Command::new(program("victoria-metrics"))
            .arg(format!(
                "-storageDataPath={}",
                folder.path().join("data").display()
            ))
            .arg(format!("-httpListenAddr={address}"))
            .arg("-search.latencyOffset=0s")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("cannot start victoria-metrics");
        let store = Self {
            process,
            address,
            _folder: folder,
        };
        wait::until("victoria-metrics", DEADLINE, || {
            let listens = net::listens(address.port());
            (listens && get(address, "/health", &[]).status == 200).then_some(())
        });
        store
    }

    /// Runs an instant query. Returns the labels and the value of each series.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(self.address, &format!("/api/v1/query?query={encoded}"), &[]);
        let answer: Value = serde_json::from_str(&unchunked(&answer)).expect("not JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().expect("not a vector");
        let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
        series
            .iter()
            .map(|one| (one["metric"].clone(), value(one)))
            .collect()
    }

    /// Returns the value of the only series of a query. None if there is no series yet.
    fn value(&self, query: &str) -> Option<f64> {
        let all = self.query(query);
        assert!(all.len() < 2, "{query}: {all:?}");
        all.first().map(|(_, value)| *value)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An agent that sends metrics to the store, and its snapshots.
fn sending(store: &Store) -> (Agent, Snapshots) {
    let url = format!("http://{}/opentelemetry", store.address);
    let agent = launch()
        .vars(&[("OTLP_ENDPOINT", &*url), ("OTLP_SIGNALS", "metrics")])
        .start();
    let snapshots = Snapshots::of(&agent, INTERVAL);
    (agent, snapshots)
}

fn containers() -> [Container<'static>; 2] {
    ["otlp-one", "otlp-two"].map(|topic| {
        let container = Container::run(topic, &["--memory", "64m"], "echo ready; sleep 1000");
        container.wait_for_line("ready");
        container
    })
}

/// Waits for a snapshot whose figures the store has. `expected` returns queries with one series each, and their values in a snapshot. None
/// if the snapshot does not have the figures yet.
fn assert_figures(
    store: &Store,
    snapshots: &mut Snapshots,
    expected: impl Fn(&Value) -> Option<Vec<(String, f64)>>,
) {
    let end = Instant::now() + DEADLINE * 2;
    loop {
        let snapshot = snapshots.next();
        let expected = expected(&snapshot).unwrap_or_default();
        let is_close = |(query, figure): &(String, f64)| {
            let found = store.value(query);
            found.is_some_and(|found| (found - figure).abs() <= figure.abs() * 0.05 + 2.0)
        };
        let different = expected.iter().find(|one| !is_close(one));
        match different {
            None if !expected.is_empty() => return,
            _ => {}
        }
        let found = different.map(|(query, _)| store.value(query));
        assert!(Instant::now() < end, "{different:?}: {found:?}");
    }
}

fn assert_accepted(agent: &Agent) {
    for problem in [
        "OTLP: request not accepted, it is repeated",
        "OTLP: the receiver refuses the contents of a request, which are dropped",
        "OTLP: the receiver refuses a part of a request, which is dropped",
    ] {
        let events = agent.events(problem);
        assert!(events.is_empty(), "{events:?}");
    }
}

/// Bytes of a figure in MiB.
fn bytes(figure: &Value) -> Option<f64> {
    Some(figure.as_f64()? * 1_048_576.0)
}

/// With these arguments, VictoriaMetrics makes the names that Prometheus makes, and keeps no attributes of resources, as Prometheus.
#[test]
#[parallel]
fn a_store_with_the_names_of_prometheus_gets_the_figures_and_tells_containers_apart() {
    let containers = containers();
    let store = Store::start(&[
        "-opentelemetry.usePrometheusNaming",
        "-opentelemetry.promoteAllResourceAttributes=false",
    ]);
    let (agent, mut snapshots) = sending(&store);
    assert_figures(&store, &mut snapshots, |snapshot| {
        let host = &snapshot["system"];
        let disks = host["disks"].as_array()?;
        let root = disks.iter().find(|disk| disk["mount"] == "/");
        let cores = "count(count by (cpu_logical_number) (system_cpu_time_seconds_total))";
        let swap = "sum(system_paging_usage_bytes)";
        let used = "sum(system_filesystem_usage_bytes{system_filesystem_state=\"used\",system_filesystem_mountpoint=\"/\"})";
        let mut figures_of_all = vec![
            (
                "system_memory_limit_bytes".to_owned(),
                bytes(&host["memory_total"])?,
            ),
            (
                "sum(system_memory_usage_bytes)".to_owned(),
                bytes(&host["memory_total"])?,
            ),
            (
                "system_memory_linux_available_bytes".to_owned(),
                bytes(&host["memory_available"])?,
            ),
            (
                "system_cpu_logical_count".to_owned(),
                snapshot["host"]["cpus"].as_f64()?,
            ),
            (cores.to_owned(), host["cpu_cores"].as_array()?.len() as f64),
            ("system_uptime_seconds".to_owned(), host["uptime"].as_f64()?),
            (
                swap.to_owned(),
                host["swap_total"]
                    .as_f64()
                    .map_or(0.0, |mib| mib * 1_048_576.0),
            ),
            ("system_agent_up".to_owned(), 1.0),
        ];
        if let Some(root) = root {
            figures_of_all.push((used.to_owned(), bytes(&root["used"])? * 1024.0));
        }
        for container in &containers {
            let name = container.name();
            let one = figures(snapshot, name)?;
            let with = |metric: &str| format!("{metric}{{container_name=\"{name}\"}}");
            figures_of_all.extend([
                (
                    with("container_memory_working_set_bytes"),
                    one["memory_usage"].as_f64()?,
                ),
                (
                    with("system_agent_container_memory_limit_bytes"),
                    64.0 * 1_048_576.0,
                ),
                (
                    with("system_agent_container_threads"),
                    one["pids"].as_f64()?,
                ),
                (with("container_uptime_seconds"), one["uptime"].as_f64()?),
                (
                    with("container_cpu_time_seconds_total"),
                    one["cpu_usage_ns"].as_f64()? / 1e9,
                ),
            ]);
        }
        Some(figures_of_all)
    });
    assert_accepted(&agent);
}

#[test]
#[parallel]
fn victoria_metrics_gets_the_attributes_of_resources_as_labels() {
    let containers = containers();
    let store = Store::start(&[]);
    let (agent, mut snapshots) = sending(&store);
    assert_figures(&store, &mut snapshots, |snapshot| {
        let total = bytes(&snapshot["system"]["memory_total"])?;
        let host = snapshot["host"]["hostname"].as_str()?;
        let limit = format!("{{__name__=\"system.memory.limit\",host\\.name=\"{host}\"}}");
        let mut figures_of_all = vec![(limit, total)];
        for container in &containers {
            let one = figures(snapshot, container.name())?;
            let query = format!(
                "{{__name__=\"container.memory.working_set\",container\\.id=~\"{}.*\",service\\.name=\"system-agent\"}}",
                container.short_id()
            );
            figures_of_all.push((query, one["memory_usage"].as_f64()?));
        }
        Some(figures_of_all)
    });
    assert_accepted(&agent);
}
