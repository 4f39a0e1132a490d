//! `system-agent snapshot`: takes one complete snapshot, without a running agent.

use crate::aggregate::{NewestSamples, compose};
use crate::collect::collect_once;
use crate::collect::docker::{ContainerSource, Containers};
use crate::collect::logs::LogSource;
use crate::collect::system::HostSource;
use crate::model::Snapshot;
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
    let (system, docker, logs) = tokio::join!(system, docker, logs);
    newest.system.update(system);
    if let Some(docker) = docker {
        newest.docker.update(docker);
    }
    if let Some(logs) = logs {
        newest.logs.update(logs);
    }
    compose(&newest, 1, 0)
}
