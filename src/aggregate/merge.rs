//! Composes one snapshot from the newest sample of each source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::docker_meta::with_disk_use;
use super::source::SourceState;
use super::top_io::with_top_io;
use crate::messages::{DockerSample, LogSample, Reports, SystemSample};
use crate::model::{
    AgentInfo, Kernel, PROTOCOL_VERSION, Snapshot, Sources, SystemMetrics, Textfiles, Timestamp,
};
use crate::settings::CollectSettings;

/// The newest sample and the health of every source.
#[derive(Debug, Clone)]
pub struct NewestSamples {
    /// The figures of the host.
    pub system: SourceState<SystemSample>,
    /// The containers of the engine.
    pub docker: SourceState<DockerSample>,
    /// The logs of the containers.
    pub logs: SourceState<LogSample>,
    /// The kernel's own figures. None while no client or output gets them.
    pub kernel: Option<Arc<Kernel>>,
    /// The figures of other programs. None without `TEXTFILE_DIR`.
    pub textfile: Option<SourceState<Arc<Textfiles>>>,
    /// The figures of the agent's own sockets and certificate.
    pub reports: Arc<Reports>,
    /// Identifies the run of the agent: 16 hexadecimal digits.
    pub run: String,
}

impl NewestSamples {
    /// Creates the state of every source, without samples. Sources that the settings switch off are disabled.
    #[must_use]
    pub fn for_settings(settings: &CollectSettings) -> Self {
        let docker = settings.docker.is_some();
        Self {
            system: SourceState::enabled("system", settings.system_interval),
            docker: if docker {
                SourceState::enabled("docker", settings.docker_interval)
            } else {
                SourceState::disabled("docker")
            },
            logs: if docker && settings.log_lines > 0 {
                SourceState::enabled("logs", settings.log_interval)
            } else {
                SourceState::disabled("logs")
            },
            kernel: None,
            textfile: settings
                .textfile_dir
                .is_some()
                .then(|| SourceState::enabled("textfile", settings.system_interval)),
            reports: Arc::default(),
            run: format!("{:016x}", fastrand::u64(..)),
        }
    }

    /// Whether every enabled source has finished at least one round. A failed round counts.
    pub(super) fn is_complete(&self) -> bool {
        let textfile = self.textfile.as_ref();
        self.system.has_answered()
            && self.docker.has_answered()
            && self.logs.has_answered()
            && textfile.is_none_or(SourceState::has_answered)
    }

    pub(super) fn note_silence(&mut self, now: Instant) {
        self.system.note_silence(now);
        self.docker.note_silence(now);
        self.logs.note_silence(now);
        if let Some(textfile) = &mut self.textfile {
            textfile.note_silence(now);
        }
    }
}

/// Composes a snapshot from the newest samples. The field `skipped` is 0, because each session writes the count of its own
/// client.
#[must_use]
pub fn compose(newest: &NewestSamples, seq: u64, clients: usize) -> Snapshot {
    let mut sources = Sources {
        system: newest.system.health(),
        docker: newest.docker.health(),
        logs: newest.logs.health(),
        textfile: newest.textfile.as_ref().map(SourceState::health),
    };
    let excluded = |count: u64| Some(count).filter(|count| *count > 0);
    if let Some(sample) = newest.system.sample() {
        sources.system.excluded = excluded(sample.excluded);
    }
    if let Some(sample) = newest.docker.sample() {
        sources.docker.excluded = excluded(sample.excluded);
        sources.docker.via = Some(sample.via.clone());
        sources.docker.via_reason.clone_from(&sample.via_reason);
    }
    if let Some(sample) = newest.logs.sample() {
        sources.logs.via = Some(sample.via.clone());
        sources.logs.via_reason.clone_from(&sample.via_reason);
    }
    let system = newest.system.sample().cloned().unwrap_or_default();
    let docker = newest.docker.sample().cloned().unwrap_or_default();
    let logs = newest.logs.sample();
    let log_bytes = logs.map(|sample| Arc::clone(&sample.bytes));
    let logs = logs.map(|sample| Arc::clone(&sample.logs));
    Snapshot {
        timestamp: Timestamp::now(),
        status: sources.status(),
        system: with_top_io(
            with_peers(system.metrics, &docker.namespaces),
            &docker.containers,
        ),
        containers: docker.containers,
        docker_meta: with_disk_use(docker.meta, &log_bytes.unwrap_or_default(), &system.volumes),
        stopped: Arc::clone(&docker.stopped.containers),
        stopped_dropped: Some(docker.stopped.surplus).filter(|surplus| *surplus > 0),
        logs: logs.unwrap_or_default(),
        logs_dropped: None,
        // The events are added later, because each client gets the events that are new for this client.
        events: Vec::new(),
        events_dropped: None,
        kernel: newest.kernel.clone(),
        textfile: newest
            .textfile
            .as_ref()
            .and_then(|source| source.sample().cloned()),
        sources,
        outputs: newest.reports.outputs(),
        host: system.host,
        agent: AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: Some(PROTOCOL_VERSION),
            run: newest.run.clone(),
            cursor: None,
            resume: None,
            seq,
            clients: clients as u64,
            cpu_percent: system.agent.cpu_percent,
            engine_cpu_percent: system.agent.engine_cpu_percent,
            memory_rss: system.agent.memory_rss,
            memory_anon: system.agent.memory_anon,
            connections_closed_early: Some(newest.reports.connections_closed_early()),
            certificate_expires_at: newest.reports.certificate_expires().map(Timestamp),
            skipped: 0,
        },
    }
}

/// Adds the names of containers to veth interfaces. A veth interface connects a container to the host, and gets the name of this
/// container.
///
/// The source `system` reads veth interfaces, and the source `docker` reads containers. Therefore, only the aggregator can match
/// a veth interface with its container. `namespaces` has the names of the containers by the numbers of their network namespaces.
fn with_peers(
    mut system: Arc<SystemMetrics>,
    namespaces: &BTreeMap<i32, String>,
) -> Arc<SystemMetrics> {
    let is_known = |peer: Option<i32>| peer.is_some_and(|peer| namespaces.contains_key(&peer));
    if system.network.iter().any(|one| is_known(one.peer)) {
        for interface in &mut Arc::make_mut(&mut system).network {
            interface.container = interface
                .peer
                .and_then(|peer| namespaces.get(&peer).cloned());
        }
    }
    system
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::with_peers;
    use crate::model::{NetworkInterface, SystemMetrics};

    #[test]
    fn a_veth_interface_gets_the_name_of_its_container() {
        let interface = |peer| NetworkInterface {
            peer,
            ..NetworkInterface::default()
        };
        // The first container has two veth interfaces. A second container and an unknown container have one each. The fifth
        // interface is no veth interface.
        let system = Arc::new(SystemMetrics {
            network: [Some(0), Some(3), Some(0), Some(9), None]
                .map(interface)
                .into(),
            ..SystemMetrics::default()
        });
        let names = BTreeMap::from([(0, "a".to_owned()), (3, "b".to_owned())]);
        let with = with_peers(Arc::clone(&system), &names);
        let containers: Vec<_> = with
            .network
            .iter()
            .map(|one| one.container.as_deref())
            .collect();
        assert_eq!(containers, [Some("a"), Some("b"), Some("a"), None, None]);
        let without = with_peers(Arc::clone(&system), &BTreeMap::new());
        assert!(Arc::ptr_eq(&without, &system));
    }
}
