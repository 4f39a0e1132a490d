//! `system-agent check`: tries every component that an agent on this host would use. It connects to no running agent.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Outcome, Report};
use crate::collect::collect_once;
use crate::collect::docker::{ContainerSource, Containers, server};
use crate::collect::logs::LogSource;
use crate::collect::system::HostSource;
use crate::collect::textfile;
use crate::messages::{Collected, DockerSample, LogSample, SystemSample};
use crate::model::Textfiles;
use crate::publish::is_published;
use crate::settings::{CollectSettings, DockerHost, Problem, Problems, Settings, Tls, Untimely};

/// Tries the configuration, the host, the engine, container statistics, container logs and TLS files. Prints one line for each
/// component. Returns true if no component failed.
pub async fn components(
    vars: impl Iterator<Item = (OsString, OsString)>,
    print: impl Fn(&str),
) -> bool {
    let vars: Vec<_> = vars.collect();
    let mut report = Report::new(print);
    let started = Instant::now();
    let settings = Settings::from_env(vars.iter().cloned());
    let (tls, others) = match &settings {
        Ok(settings) => (tls_outcome(settings), Vec::new()),
        Err(problems) => split_problems(problems),
    };
    let loading = started.elapsed();
    report.line("configuration", started, &configuration(&others));

    match CollectSettings::from_env(vars.into_iter()) {
        Ok(settings) => sources(&mut report, &settings).await,
        Err(_) => {
            for component in [
                "system metrics",
                "Docker",
                "container stats",
                "container logs",
            ] {
                let why = Outcome::Skip("the configuration has errors".to_owned());
                report.line(component, Instant::now(), &why);
            }
        }
    }
    // The TLS files were read together with the configuration, so the report shows the same duration for both.
    report.timed_line("TLS files", loading, &tls);
    report.passed()
}

fn configuration(problems: &[&Problem]) -> Outcome {
    if problems.is_empty() {
        return Outcome::Pass("every variable is valid".to_owned());
    }
    let all: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.variable, problem.text))
        .collect();
    Outcome::Fail(all.join("; "))
}

fn tls_outcome(settings: &Settings) -> Outcome {
    let Some(files) = &settings.credential_sources.tls else {
        return Outcome::Skip("TLS_ENABLED is false".to_owned());
    };
    let mut seen = format!("{} and {} match", files.cert.display(), files.key.display());
    let validity = settings.credentials.tls.as_ref().and_then(Tls::validity);
    if let Some(validity) = validity {
        seen += &format!(", valid until {}", validity.end());
        match validity.untimely(SystemTime::now()) {
            Some(soon @ Untimely::Soon(_)) => seen += &format!("; {soon}"),
            Some(untimely) => return Outcome::Fail(format!("{untimely} ({})", validity.end())),
            None => {}
        }
    }
    Outcome::Pass(seen)
}

const TLS_FILES: [&str; 3] = ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"];

/// Separates the problems of the TLS files from all other problems. The TLS files have their own line in the report.
fn split_problems(problems: &Problems) -> (Outcome, Vec<&Problem>) {
    let (tls, others): (Vec<_>, Vec<_>) = problems
        .0
        .iter()
        .partition(|problem| TLS_FILES.contains(&problem.variable));
    let outcome = if tls.is_empty() {
        Outcome::Skip("the configuration has errors in other variables".to_owned())
    } else {
        configuration(&tls)
    };
    (outcome, others)
}

async fn sources<P: Fn(&str)>(report: &mut Report<P>, settings: &CollectSettings) {
    let started = Instant::now();
    let system = collect_once(&mut HostSource::new(
        settings.into(),
        settings.system_interval,
        None,
    ))
    .await;
    report.line("system metrics", started, &system_outcome(system));

    if let Some(folder) = &settings.textfile_dir {
        let started = Instant::now();
        let read = textfile::read_once(folder.clone(), is_published).await;
        report.line("text files", started, &textfile_outcome(read));
    }

    let Some(host) = &settings.docker else {
        for component in ["Docker", "container stats", "container logs"] {
            let why = Outcome::Skip("DOCKER_ENABLED is false".to_owned());
            report.line(component, Instant::now(), &why);
        }
        return;
    };
    let started = Instant::now();
    let reached = server(host).await;
    let reachable = reached.is_ok();
    let outcome = match reached {
        Ok(seen) => Outcome::Pass(seen),
        Err(error) => Outcome::Fail(format!("{host}: {error}")),
    };
    report.line("Docker", started, &outcome);
    if reachable {
        containers(report, host, settings).await;
    } else {
        for component in ["container stats", "container logs"] {
            let why = Outcome::Skip("Docker is not reachable".to_owned());
            report.line(component, Instant::now(), &why);
        }
    }
}

async fn containers<P: Fn(&str)>(
    report: &mut Report<P>,
    host: &DockerHost,
    settings: &CollectSettings,
) {
    let log_lines = settings.log_lines;
    let containers = Containers::of(host.clone(), settings);
    let started = Instant::now();
    let stats = collect_once(&mut ContainerSource::new(containers.clone(), settings)).await;
    report.line("container stats", started, &stats_outcome(stats));

    let started = Instant::now();
    let outcome = if log_lines == 0 {
        Outcome::Skip("LOG_LINES is 0".to_owned())
    } else {
        logs_outcome(collect_once(&mut LogSource::new(containers, settings)).await)
    };
    report.line("container logs", started, &outcome);
}

/// Returns the result of a round. A round that failed partly counts as failed, because the purpose of a check is to find errors.
fn outcome<T>(collected: Collected<T>, seen: impl FnOnce(&T) -> String) -> Outcome {
    match (collected.error, collected.sample) {
        (Some(error), _) => Outcome::Fail(error),
        (None, Some(sample)) => Outcome::Pass(seen(&sample)),
        (None, None) => Outcome::Fail("nothing was read".to_owned()),
    }
}

fn system_outcome(collected: Collected<SystemSample>) -> Outcome {
    outcome(collected, |SystemSample { metrics, .. }| {
        format!(
            "CPU {:.1} %, memory {:.0} of {:.0} MiB, disk {:.1} of {:.1} GiB, {} network \
             interfaces",
            metrics.cpu_percent[0],
            metrics.memory_used,
            metrics.memory_total,
            metrics.disk_used,
            metrics.disk_total,
            metrics.network.len()
        )
    })
}

fn textfile_outcome(collected: Collected<Arc<Textfiles>>) -> Outcome {
    outcome(collected, |read| {
        let (files, metrics) = (read.files.len(), read.families.len());
        format!("{metrics} metrics in {files} files")
    })
}

fn stats_outcome(collected: Collected<DockerSample>) -> Outcome {
    outcome(collected, |sample| {
        let cpu = sample
            .containers
            .iter()
            .fold(0.0, |sum, one| sum + one.cpu_percent);
        let memory: u64 = sample
            .containers
            .iter()
            .filter_map(|one| one.memory_usage)
            .sum();
        format!(
            "{} running containers; sum of CPU {cpu:.1} %, sum of memory {} MiB",
            sample.containers.len(),
            memory >> 20
        )
    })
}

fn logs_outcome(collected: Collected<LogSample>) -> Outcome {
    outcome(collected, |sample| {
        let lines: usize = sample.logs.values().map(|lines| lines.count()).sum();
        format!("{lines} log lines of {} containers", sample.logs.len())
    })
}
