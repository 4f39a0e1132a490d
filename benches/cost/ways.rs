//! Measures other ways to read containers: calls to the engine. A separate process makes these calls, with the library bollard.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, StatsOptionsBuilder,
};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;

use crate::common::engine::label;
use crate::containers::{Containers, unix_seconds};
use crate::load::median;
use crate::plan::Plan;
use crate::process::Process;
use crate::row::Row;

/// The agent's default interval.
const INTERVAL: Duration = Duration::from_secs(5);
/// The time that a way runs before the first window: one whole round.
const WARM_UP: Duration = INTERVAL;

pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
}

pub(crate) const ALL: [Way; 8] = [
    Way {
        name: "streams",
        what: "a stats stream per container",
    },
    Way {
        name: "one-shot",
        what: "one-shot stats, every 5 s, for all at the same time",
    },
    Way {
        name: "two-sample",
        what: "two-sample stats, every 5 s, for all at the same time",
    },
    Way {
        name: "list",
        what: "list, every 5 s",
    },
    Way {
        name: "inspect",
        what: "inspect, every 5 s, for all at the same time",
    },
    Way {
        name: "logs-tail",
        what: "logs tail=50, every 5 s, for all at the same time",
    },
    Way {
        name: "logs-since",
        what: "logs since the previous round, every 5 s, for all at the same time",
    },
    Way {
        name: "logs-follow",
        what: "logs followed",
    },
];

/// A row for each wanted way. The containers must be running.
pub(crate) fn measure(plan: &Plan, _running: &Containers) -> Vec<Row> {
    let wanted = ALL.iter().filter(|way| plan.has(way.name));
    wanted.map(|way| measure_one(plan, way)).collect()
}

fn measure_one(plan: &Plan, way: &Way) -> Row {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["way", way.name, &label()])
        .stdout(Stdio::piped());
    let mut process = Process::start(&mut command).expect("cannot start this program");
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let rounds = Arc::<Mutex<Vec<f64>>>::default();
    let notes = Arc::clone(&rounds);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            notes
                .lock()
                .unwrap()
                .push(line.parse().expect("expected a number of milliseconds"));
        }
    });
    thread::sleep(WARM_UP);
    // The first round includes the connection, so it does not count.
    rounds.lock().unwrap().clear();
    let row = Row::measure(way.what, plan, || vec![process.pid()]);
    assert!(!process.has_ended(), "{} exited by itself", way.name);
    let rounds = rounds.lock().unwrap();
    let latency_ms = (!rounds.is_empty()).then(|| median(&rounds));
    Row { latency_ms, ..row }
}

/// Runs in the process that reads containers in one way. Reads all containers with this label until the process is killed. Prints
/// the time of each round in ms.
pub(crate) fn run(name: &str, label: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let docker = Docker::connect_with_unix_defaults().unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let ids = ids(&docker, label).await;
        match name {
            "streams" => {
                let options = StatsOptionsBuilder::default().stream(true).build();
                let stream = |id: &String| drain(docker.stats(id, Some(options.clone())));
                join_all(ids.iter().map(stream)).await;
            }
            "logs-follow" => {
                let options = logs().follow(true).tail("50").build();
                let stream = |id: &String| drain(docker.logs(id, Some(options.clone())));
                join_all(ids.iter().map(stream)).await;
            }
            polling => poll(&docker, polling, &ids).await,
        }
        assert!(ids.is_empty(), "the containers have stopped");
        std::future::pending::<()>().await;
    });
}

async fn poll(docker: &Docker, way: &str, ids: &[String]) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut since = unix_seconds();
    loop {
        ticks.tick().await;
        let (started, now) = (Instant::now(), unix_seconds());
        match way {
            "one-shot" | "two-sample" => {
                let options = StatsOptionsBuilder::default()
                    .stream(false)
                    .one_shot(way == "one-shot")
                    .build();
                join_all(
                    ids.iter()
                        .map(|id| drain(docker.stats(id, Some(options.clone())))),
                )
                .await;
            }
            "list" => {
                docker
                    .list_containers(None::<ListContainersOptions>)
                    .await
                    .unwrap();
            }
            "inspect" => {
                let inspect = |id| docker.inspect_container(id, None::<InspectContainerOptions>);
                let answers = join_all(ids.iter().map(|id| inspect(id))).await;
                assert!(
                    answers.iter().all(Result::is_ok),
                    "every container can be inspected"
                );
            }
            "logs-tail" => {
                let options = logs().tail("50").build();
                join_all(
                    ids.iter()
                        .map(|id| drain(docker.logs(id, Some(options.clone())))),
                )
                .await;
            }
            "logs-since" => {
                let options = logs().since(i32::try_from(since).unwrap()).build();
                join_all(
                    ids.iter()
                        .map(|id| drain(docker.logs(id, Some(options.clone())))),
                )
                .await;
            }
            unknown => panic!("unknown way {unknown}"),
        }
        since = now;
        println!("{}", started.elapsed().as_secs_f64() * 1000.0);
    }
}

fn logs() -> LogsOptionsBuilder {
    LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
}

/// Reads an answer to its end.
async fn drain<T, E: std::fmt::Debug>(answer: impl Stream<Item = Result<T, E>>) {
    answer
        .for_each(|part| async {
            drop(part.expect("the engine sent an error instead of an answer"));
        })
        .await;
}

async fn ids(docker: &Docker, label: &str) -> Vec<String> {
    let only = [("label".to_owned(), vec![label.to_owned()])].into();
    let options = ListContainersOptionsBuilder::default()
        .filters(&only)
        .build();
    let listed = docker.list_containers(Some(options)).await.unwrap();
    listed.into_iter().filter_map(|one| one.id).collect()
}
