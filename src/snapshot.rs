//! `system-agent snapshot`: takes one complete snapshot, without a running agent.

use crate::aggregate::{NewestSamples, compose};
use crate::collect::collect_once;
use crate::collect::docker::{ContainerSource, Containers};
use crate::collect::logs::LogSource;
use crate::collect::system::HostSource;
use crate::collect::textfile;
use crate::model::Snapshot;
use crate::publish::is_published;
use crate::settings::CollectSettings;

/// Reads all sources once, at the same time, and composes a snapshot.
pub async fn take(settings: &CollectSettings) -> Snapshot {
    let mut newest = NewestSamples::for_settings(settings);
    let containers = settings
        .docker
        .clone()
        .map(|host| Containers::of(host, settings));
    let system = async {
        let mut source = HostSource::new(
            settings.into(),
            settings.system_interval,
            containers.clone(),
        );
        collect_once(&mut source).await
    };
    let docker = async {
        let mut source = ContainerSource::new(containers.clone()?, settings);
        Some(collect_once(&mut source).await)
    };
    let logs = async {
        let containers = containers.clone().filter(|_| settings.log_lines > 0)?;
        let mut source = LogSource::new(containers, settings);
        Some(collect_once(&mut source).await)
    };
    let textfile = async {
        let folder = settings.textfile_dir.clone()?;
        Some(textfile::read_once(folder, is_published).await)
    };
    let (system, docker, logs, textfile) = tokio::join!(system, docker, logs, textfile);
    newest.system.update(system);
    if let Some(docker) = docker {
        newest.docker.update(docker);
    }
    if let Some(logs) = logs {
        newest.logs.update(logs);
    }
    if let (Some(state), Some(textfile)) = (&mut newest.textfile, textfile) {
        state.update(textfile);
    }
    // The snapshot has the sections of a client that names no sections.
    Snapshot {
        textfile: None,
        ..compose(&newest, 1, 0)
    }
}
