//! Measures the host's part of a round: its CPU time with 300 and with ten thousand processes, and the time of each metric
//! family.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use system_agent::collect::collect_once;
use system_agent::collect::system::{HostOptions, HostSource};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::common::bars::Bars;
use crate::load::median;

const ROUNDS: usize = 20;
/// The pause between rounds. It is longer than 300 ms, because the agent does not read the processes more often than that.
const PAUSE: Duration = Duration::from_millis(500);
/// The default of `TOP_PROCESSES`.
const TOP_PROCESSES: usize = 10;
/// The two bars are for these numbers of processes.
const FEW: usize = 300;
const MANY: usize = 10_000;

/// Runs the measurement in a process of its own, with [`FEW`] and with [`MANY`] processes on the host. If the host already has
/// more processes, the measurement includes all of them.
pub(crate) fn print(bars: &mut Bars) {
    println!("\n## The host's part of a round\n");
    println!("| processes | CPU per round, ms | µs by metric family |\n|---:|---:|---|");
    let few = measure(FEW);
    bars.at_most(
        &format!("CPU of the host's part, {} processes", few.processes),
        few.cpu_ms,
        5.0,
        "ms",
    );
    let many = measure(MANY);
    let what = format!(
        "CPU of the host's part per process, {} processes",
        many.processes
    );
    bars.at_most(
        &what,
        many.cpu_ms * 1000.0 / many.processes as f64,
        25.0,
        "µs",
    );
}

struct Cost {
    processes: u64,
    cpu_ms: f64,
}

fn measure(processes: usize) -> Cost {
    eprintln!("measuring: the host's part with {processes} processes");
    let _idle = Idle::to(processes);
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("host")
        .output()
        .expect("cannot start this program");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (figures, families) = stdout.trim().split_once('\t').unwrap();
    let (processes, cpu_ms) = figures.split_once(' ').unwrap();
    println!("| {processes} | {cpu_ms} | {families} |");
    Cost {
        processes: processes.parse().unwrap(),
        cpu_ms: cpu_ms.parse().unwrap(),
    }
}

/// Idle processes. A shell starts them and ends them when it gets SIGTERM.
pub(crate) struct Idle(Option<Child>);

impl Idle {
    /// Starts idle processes until the host has `processes` processes.
    pub(crate) fn to(processes: usize) -> Self {
        let here = std::fs::read_dir("/proc").unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().parse::<u32>().is_ok()
        });
        Self::start(processes.saturating_sub(here.count()))
    }

    fn start(count: usize) -> Self {
        if count == 0 {
            return Self(None);
        }
        let script = format!(
            "trap 'kill $(jobs -p); exit' TERM; i=0; while [ $i -lt {count} ]; do sleep 600 & i=$((i+1)); done; \
             echo started; wait"
        );
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("cannot start bash");
        let mut started = [0; 1];
        std::io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut started).unwrap();
        Self(Some(shell))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(shell) = &mut self.0 {
            crate::process::send(shell.id(), rustix::process::Signal::TERM);
            let _ = shell.wait();
        }
    }
}

/// Runs in the process that measures. Prints the number of processes, ms per round, and µs by metric family.
pub(crate) fn run() {
    let families = Families::default();
    let subscriber = tracing_subscriber::registry().with(families.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let (mut cpu, mut processes) = (Vec::new(), 0);
    actix::System::new().block_on(async {
        let mut source = HostSource::new(
            HostOptions {
                top_processes: TOP_PROCESSES,
                ..HostOptions::default()
            },
            Duration::from_secs(5),
            None,
        );
        // The first rounds open files, which then stay open. These rounds are not measured.
        for _ in 0..2 {
            let round = collect_once(&mut source).await;
            assert_eq!(round.error, None);
        }
        families.0.lock().unwrap().clear();
        for _ in 0..ROUNDS {
            tokio::time::sleep(PAUSE).await;
            let before = own_cpu();
            let sample = collect_once(&mut source)
                .await
                .sample
                .expect("the round has no sample");
            cpu.push((own_cpu() - before).as_secs_f64() * 1000.0);
            processes = sample.metrics.processes.unwrap().total;
        }
    });
    let families = families.0.lock().unwrap();
    let families: Vec<String> = families
        .iter()
        .map(|(family, took)| format!("{family} {:.0}", median(took)))
        .collect();
    println!("{processes} {:.2}\t{}", median(&cpu), families.join(", "));
}

/// CPU time of all threads of this process.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// The times of each metric family in µs, from the collector's log.
#[derive(Clone, Default)]
struct Families(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

impl<S: Subscriber> Layer<S> for Families {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let (Some(family), Some(took)) = (fields.family, fields.duration_us) {
            self.0.lock().unwrap().entry(family).or_default().push(took);
        }
    }
}

#[derive(Default)]
struct Fields {
    family: Option<String>,
    duration_us: Option<f64>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "family" {
            self.family = Some(value.to_owned());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "duration_us" {
            self.duration_us = Some(value as f64);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
