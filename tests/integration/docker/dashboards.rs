//! A real Prometheus server answers every query of the dashboards and alerts, and the dashboards show problems that the test provokes.
//!
//! The test has three targets: an agent on this host with containers, an agent on a host whose hardware fails, and a target that is away.

mod optional;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use serial_test::serial;
use tempfile::TempDir;

use self::optional::OPTIONAL;
use super::container::Container;
use super::launch;
use super::load::disk;
use super::peer_alerts::{Background, Tmpfs};
use super::snapshots::{figure, shows};
use crate::support::dashboards::{
    Dashboard, alerts, all_queries, dashboards, expressions, filled, listing, metrics_in,
    unfiltered,
};
use crate::support::prometheus::{Job, Prometheus, metrics_of};
use crate::support::{Agent, Authority, DEADLINE, Namespace, net, wait};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus-rules.yml");

/// Files of the kernel for hardware that fails. Most test machines do not have such hardware.
const FAILING_HARDWARE: &str = r"
for folder in /sys/class /sys/devices/system /sys/fs; do mount -t tmpfs none $folder; done
files() { folder=$1; mkdir -p $folder; shift; for pair; do echo ${pair#*=} >$folder/${pair%%=*}; done; }
files /sys/class/hwmon/hwmon0 name=chip temp1_input=101000 temp1_crit=100000 temp1_crit_alarm=1 fan1_input=900 power1_average=45000000
files /sys/class/thermal/thermal_zone0 type=acpitz temp=40000
files /sys/devices/system/edac/mc/mc0 ce_count=3 ue_count=1
cpu=/sys/devices/system/cpu
files $cpu online=0-1 present=0-1
files $cpu/cpufreq/policy0 scaling_cur_freq=1200000
echo 0 1 >$cpu/cpufreq/policy0/affected_cpus
for core in 0 1; do
    files $cpu/cpu$core/topology physical_package_id=0 core_id=$core
    files $cpu/cpu$core/thermal_throttle core_throttle_count=5 package_throttle_count=7
    ln -s ../cpufreq/policy0 $cpu/cpu$core/cpufreq
done
files /sys/class/nvme/nvme0 state=dead model=x serial=x firmware_rev=x cntlid=1
files /sys/class/powercap/intel-rapl:0 name=package-0 energy_uj=1000000
mkdir -p /sys/class/net/bond0/bonding
echo one two >/sys/class/net/bond0/bonding/slaves
files /sys/class/net bonding_masters=bond0
files /sys/class/net/bond0/lower_one/bonding_slave mii_status=up
files /sys/class/net/bond0/lower_two/bonding_slave mii_status=down
btrfs=/sys/fs/btrfs/7e1fab8b-1d0f-4b3b-b6f1-b2d3d6a61e6c
files $btrfs label=data
files $btrfs/devinfo/1 missing=1
for kind in write read flush corruption generation; do echo ${kind}_errs 0; done >$btrfs/devinfo/1/error_stats
";

/// Two agents, a target that is away, and the Prometheus server that scrapes them.
struct Scene {
    agent: Agent,
    prometheus: Prometheus,
    containers: Vec<Container<'static>>,
    _fills: Background,
    full: Tmpfs,
    filling: Tmpfs,
    _troubled: Agent,
    _namespace: Namespace,
    _authority: Authority,
    _texts: [TempDir; 2],
}

impl Scene {
    fn start() -> Self {
        let texts = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fs::write(
            texts[0].path().join("a.prom"),
            "# TYPE backup gauge\nbackup 1\n",
        )
        .unwrap();
        fs::write(texts[1].path().join("b.prom"), "not a figure {\n").unwrap();
        let agent = launch()
            .vars(&[("METRICS_PORT", "0"), ("UNITS", "20")])
            .var("TEXTFILE_DIR", texts[0].path())
            .start();
        let authority = Authority::new();
        let namespace = Namespace::start(&["mount"], FAILING_HARDWARE);
        let troubled = authority
            .issue("server")
            .launch()
            .launched_by(namespace.enter())
            .vars(&[
                ("METRICS_PORT", "0"),
                ("SYSTEM_INTERVAL", "1s"),
                ("PUBLISH_INTERVAL", "1s"),
                ("DOCKER_ENABLED", "true"),
                ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
            ])
            .var("TEXTFILE_DIR", texts[1].path())
            .start();

        // Without limits of the device, some kernels do not count the I/O of a container.
        let limit = disk().map(|disk| format!("{disk}:500mb"));
        let mut options = vec![
            "--cpus",
            "0.1",
            "--memory",
            "64m",
            "--pids-limit",
            "50",
            "--volume",
            "/data",
            "--health-cmd",
            "true",
            "--health-interval",
            "1s",
        ];
        if let Some(limit) = &limit {
            options.extend(["--device-read-bps", limit, "--device-write-bps", limit]);
        }
        let busy = Container::run(
            "panel-busy",
            &options,
            "(while :; do
                 dd if=/dev/zero of=/data/file bs=64k count=1 oflag=direct
                 dd if=/data/file of=/dev/null bs=64k iflag=direct
                 sleep 1
             done) 2>/dev/null &
             while :; do :; done",
        );
        let memory = ["--memory", "16m", "--memory-swap", "16m"];
        let mut containers = vec![
            busy,
            Container::run(
                "panel-sick",
                &[
                    "--health-cmd",
                    "false",
                    "--health-interval",
                    "1s",
                    "--health-retries",
                    "1",
                ],
                "sleep 1000",
            ),
            Container::run("panel-loop", &["--restart", "always"], "exit 1"),
            Container::run("panel-down", &["--restart", "on-failure:1"], "exit 3"),
        ];
        let full = Tmpfs::mount("size=2m,nr_inodes=20");
        full.fill(2 << 20);
        for number in 0..19 {
            let _ = fs::write(full.path().join(number.to_string()), "");
        }
        let filling = Tmpfs::mount("size=64m");
        filling.fill(40 << 20);
        let fills = format!(
            "while :; do head -c 100000 /dev/zero >>{}/more; sleep 0.5; done",
            filling.path().display()
        );
        let fills = Background::start("sh", &["-c", &fills]);

        let secure = [
            "scheme: https".to_owned(),
            format!(
                "tls_config: {{ ca_file: {} }}",
                authority.certificate.display()
            ),
        ];
        let job = |name, target, how| Job { name, target, how };
        let away = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
        let jobs = [
            job("system-agent", metrics_of(&agent), &[][..]),
            job("troubled", metrics_of(&troubled), &secure[..]),
            job("away", away, &[][..]),
        ];
        let prometheus = Prometheus::with_rules(&jobs, &[Path::new(RULES)]);
        prometheus.scraped(4.0);
        // Only a growth after the first scrapes is an increase.
        let oom = Container::run("panel-oom", &memory, "sleep 4; tail /dev/zero; sleep 1000");
        let killed = format!(
            "increase(container_oom_events_total{{name=\"{}\"}}[1h]) > 0",
            oom.name()
        );
        prometheus.until(&killed, |series| !series.is_empty());
        containers.push(oom);
        Self {
            agent,
            prometheus,
            containers,
            _fills: fills,
            full,
            filling,
            _troubled: troubled,
            _namespace: namespace,
            _authority: authority,
            _texts: texts,
        }
    }

    /// A container of the test, by the topic in its name.
    fn named(&self, topic: &str) -> &str {
        let mut all = self.containers.iter();
        let found = all.find(|one| one.name().contains(topic));
        found.expect("no such container").name()
    }

    /// The query as Grafana sends it, for each choice of the variables: all hosts, each of two hosts, or each container.
    fn choices(&self, dashboard: &Dashboard, query: &str) -> Vec<String> {
        let with = |job: &str, instance: &str, container: &str| {
            let values = [
                ("__rate_interval", "4s"),
                ("job", job),
                ("instance", instance),
                ("container", container),
            ];
            filled(query, &values)
        };
        match dashboard.file {
            "fleet.json" => vec![with("system-agent|troubled|away", ".+", "")],
            "host.json" => ["system-agent", "troubled"]
                .map(|job| with(job, "here", ""))
                .into(),
            _ => ["busy", "oom", "sick", "down"]
                .map(|topic| with("system-agent", "here", self.named(topic)))
                .into(),
        }
    }

    /// The series of a query of a panel, for all choices of the variables.
    fn series(&self, dashboard: &Dashboard, query: &str) -> Vec<(Value, f64)> {
        let choices = self.choices(dashboard, query).into_iter();
        choices
            .flat_map(|query| self.prometheus.query(&query))
            .collect()
    }
}

/// The queries without an answer. Filters are taken out, because most filters select problems.
fn unanswered(scene: &Scene) -> BTreeSet<String> {
    let mut unanswered = BTreeSet::new();
    for dashboard in dashboards() {
        let panels = dashboard.panels().iter();
        let queries = panels.flat_map(|panel| expressions(panel).into_iter().map(str::to_owned));
        let variables = dashboard.variables().iter().filter_map(listing);
        for query in queries.chain(variables) {
            if scene.series(&dashboard, &unfiltered(&query)).is_empty() {
                unanswered.insert(query);
            }
        }
    }
    for alert in alerts() {
        if scene
            .prometheus
            .query(&unfiltered(&alert.expression))
            .is_empty()
        {
            unanswered.insert(alert.expression);
        }
    }
    unanswered
}

/// The metrics that this host does not have. Fails if Prometheus has one of them all the same.
fn absent(prometheus: &Prometheus) -> BTreeSet<&'static str> {
    let named: BTreeSet<String> = all_queries()
        .into_values()
        .flatten()
        .flat_map(|query| metrics_in(&query))
        .collect();
    let mut absent = BTreeSet::new();
    for optional in &OPTIONAL {
        for metric in optional.metrics {
            assert!(
                named.contains(*metric),
                "no query has {metric}: remove it from the list"
            );
            if !(optional.is_here)() {
                let series =
                    prometheus.query(&format!("{metric}{{name!=\"\"}} or {metric}{{id=\"\"}}"));
                let why = format!(
                    "{metric} needs {}, but is answered: {series:?}",
                    optional.needs
                );
                assert!(series.is_empty(), "{why}");
                absent.insert(*metric);
            }
        }
    }
    absent
}

/// Fails unless the table shows a row with these labels.
fn assert_shown(scene: &Scene, file: &str, title: &str, labels: &[(&str, &str)]) {
    let all = dashboards();
    let dashboard = all.iter().find(|one| one.file == file).unwrap();
    let mut rows = Vec::new();
    let is_shown = || {
        let queries = expressions(dashboard.panel(title)).into_iter();
        rows = queries
            .flat_map(|query| scene.series(dashboard, query))
            .collect();
        let fits = |(row, _): &(Value, f64)| labels.iter().all(|(name, value)| row[name] == *value);
        rows.iter().any(fits).then_some(())
    };
    let shown = wait::within(Duration::from_secs(20), is_shown);
    assert!(
        shown.is_some(),
        "{file}: {title}: no row with {labels:?} in {rows:#?}"
    );
}

fn assert_problems(scene: &Scene) {
    for file in ["fleet.json", "host.json"] {
        for (topic, problem) in [
            ("down", "stopped, and is meant to run"),
            ("loop", "is restarting"),
            ("sick", "the health check fails"),
            ("oom", "memory ran out in the last hour"),
            ("busy", "is throttled in over 25 % of the periods"),
        ] {
            let labels = [("name", scene.named(topic)), ("problem", problem)];
            assert_shown(scene, file, "Containers with problems", &labels);
        }
        for (job, problem) in [
            ("system-agent", "memory ran out in the last hour"),
            ("troubled", "the agent's source fails"),
            ("troubled", "a text file cannot be used"),
            ("troubled", "the temperature is critical"),
            ("troubled", "the sensor has an alarm"),
            ("troubled", "the memory has uncorrectable errors"),
            ("troubled", "the NVMe controller does not work"),
            ("troubled", "the bond lacks interfaces"),
        ] {
            let labels = [("job", job), ("problem", problem)];
            assert_shown(scene, file, "Hosts with problems", &labels);
        }
        for folder in [&scene.full, &scene.filling] {
            let labels = [("mountpoint", folder.path().to_str().unwrap())];
            assert_shown(scene, file, "File systems with problems", &labels);
        }
        let killed = [
            ("alertname", "ContainerKilledForMemory"),
            ("name", scene.named("oom")),
        ];
        assert_shown(scene, file, "Alerts", &killed);
        let errors = [("alertname", "MemoryErrors"), ("job", "troubled")];
        assert_shown(scene, file, "Alerts", &errors);
    }
    let oom = [("name", scene.named("oom"))];
    for title in ["Alerts", "Containers with problems"] {
        assert_shown(scene, "container.json", title, &oom);
    }
    assert_shown(scene, "fleet.json", "Hosts away", &[("job", "away")]);
    for job in ["system-agent", "troubled", "away"] {
        assert_shown(scene, "fleet.json", "Hosts", &[("job", job)]);
    }
}

/// The figures of some panels, beside those of a snapshot.
fn assert_values(scene: &Scene) {
    let all = dashboards();
    let name = scene.named("busy");
    let value = |file: &str, title: &str, query: usize, fits: &dyn Fn(&Value) -> bool| {
        let dashboard = all.iter().find(|one| one.file == file).unwrap();
        let query = expressions(dashboard.panel(title))[query];
        // The first choice is the agent with containers, or the busy container.
        let series = scene.prometheus.query(&scene.choices(dashboard, query)[0]);
        let found: Vec<f64> = series
            .iter()
            .filter(|(labels, _)| fits(labels))
            .map(|one| one.1)
            .collect();
        assert_eq!(found.len(), 1, "{file}: {title}: {series:?}");
        found[0]
    };
    let is = |field: &'static str, text: &str| {
        let text = text.to_owned();
        move |labels: &Value| labels[field] == *text
    };
    let any = |_: &Value| true;
    let number = |value: &Value| value.as_f64().unwrap();
    // The query of the CPU is a rate over four seconds, and a snapshot has that of one second.
    let mut client = scene.agent.login();
    let snapshots: Vec<Value> = (0..4)
        .map(|_| client.snapshot_where("the container", DEADLINE, |s| shows(s, name)))
        .collect();
    let shown_cpu = value("fleet.json", "Hosts", 3, &is("job", "system-agent"));
    let percents = snapshots
        .iter()
        .map(|one| number(&one["system"]["cpu_percent"][0]));
    let cpu = percents.sum::<f64>() / 4.0 / 100.0;
    let snapshot = &snapshots[3];
    let system = &snapshot["system"];
    let mib = 1024.0 * 1024.0;
    let near = |what: &str, shown: f64, figure: f64, tolerance: f64| {
        let off = (shown - figure).abs();
        assert!(
            off <= tolerance,
            "{what}: {shown}, but the snapshot has {figure}"
        );
    };
    let ours = is("job", "system-agent");
    let memory = number(&system["memory_used"]) / number(&system["memory_total"]);
    near(
        "memory",
        value("fleet.json", "Hosts", 4, &ours),
        memory,
        0.03,
    );
    let load = number(&system["load_avg"]["5m"]) / number(&snapshot["host"]["cpus"]);
    near("load", value("fleet.json", "Hosts", 8, &ours), load, 0.5);
    near("CPU", shown_cpu, cpu, 0.4);
    near("age", value("fleet.json", "Hosts", 11, &ours), 1.0, 2.5);
    let running = snapshot["containers"].as_array().unwrap().len();
    near(
        "containers",
        value("fleet.json", "Hosts", 9, &ours),
        running as f64,
        1.0,
    );
    near(
        "memory",
        value("host.json", "Memory", 0, &any),
        number(&system["memory_total"]) * mib,
        mib,
    );
    near(
        "load",
        value("host.json", "Load", 0, &any),
        number(&system["load_avg"]["1m"]),
        1.0,
    );
    let root = is("mountpoint", "/");
    near(
        "size",
        value("host.json", "File systems", 2, &root),
        number(&system["disk_total"]) * 1024.0 * mib,
        2.0 * mib,
    );
    let own = number(&snapshot["agent"]["memory_rss"]);
    near(
        "own memory",
        value("host.json", "Memory of the agent", 0, &any),
        own,
        own * 0.1,
    );
    let of_busy = is("name", name);
    // The quota's period of 100 ms makes the figure vary.
    near(
        "CPU",
        value("host.json", "Containers", 0, &of_busy),
        0.1,
        0.04,
    );
    near("CPU", value("container.json", "CPU", 0, &any), 0.1, 0.04);
    assert_eq!(
        value("container.json", "CPU", 3, &any),
        0.1,
        "the CPU limit"
    );
    let used = figure(snapshot, name, "memory_usage");
    near(
        "memory",
        value("container.json", "Working set", 0, &any),
        used,
        used * 0.2 + 2.0 * mib,
    );
    assert_eq!(
        value("container.json", "Working set", 2, &any),
        64.0 * mib,
        "the memory limit"
    );
    assert_eq!(
        value("container.json", "Processes and threads", 2, &any),
        50.0,
        "the limit on processes"
    );
    assert!(value("container.json", "Throttled periods", 0, &any) > 0.3);
}

#[test]
#[serial]
fn prometheus_answers_every_query_of_the_dashboards_and_alerts() {
    let scene = Scene::start();
    let absent = absent(&scene.prometheus);
    // The first rates need several scrapes, and the files of the agents are read one after the other.
    let mut missing = BTreeSet::new();
    let all_answered = || {
        missing = unanswered(&scene);
        missing.retain(|query| {
            !metrics_in(query)
                .iter()
                .any(|name| absent.contains(&**name))
        });
        missing.is_empty().then_some(())
    };
    let answered = wait::within(Duration::from_secs(30), all_answered);
    assert!(answered.is_some(), "without an answer: {missing:#?}");
    assert_problems(&scene);
    assert_values(&scene);
}
