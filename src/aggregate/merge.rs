//! The newest sample of each source → one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::source::SourceState;
use crate::messages::{DockerSample, LogSample, Reports, SystemSample};
use crate::model::{AgentInfo, Snapshot, Sources, SystemMetrics, Timestamp};
use crate::settings::CollectSettings;

/// What is known of every source.
#[derive(Debug, Clone)]
pub struct NewestSamples {
    /// The host.
    pub system: SourceState<SystemSample>,
    /// The engine's containers.
    pub docker: SourceState<DockerSample>,
    /// The containers' logs.
    pub logs: SourceState<LogSample>,
    /// The agent's own sockets and certificate.
    pub reports: Arc<Reports>,
}

impl NewestSamples {
    /// Nothing known yet, of the sources that the settings switch on.
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
            reports: Arc::default(),
        }
    }

    /// Whether every source has answered at least once, well or not.
    pub(super) fn is_complete(&self) -> bool {
        self.system.has_answered() && self.docker.has_answered() && self.logs.has_answered()
    }

    pub(super) fn note_silence(&mut self, now: Instant) {
        self.system.note_silence(now);
        self.docker.note_silence(now);
        self.logs.note_silence(now);
    }
}

/// The snapshot of what is known now. `skipped` is 0: each session adds its own.
#[must_use]
pub fn compose(newest: &NewestSamples, seq: u64, clients: usize) -> Snapshot {
    let mut sources = Sources {
        system: newest.system.health(),
        docker: newest.docker.health(),
        logs: newest.logs.health(),
    };
    if let Some(sample) = newest.docker.sample() {
        sources.docker.via = Some(sample.via.clone());
        sources.docker.via_reason.clone_from(&sample.via_reason);
    }
    if let Some(sample) = newest.logs.sample() {
        sources.logs.via = Some(sample.via.clone());
        sources.logs.via_reason.clone_from(&sample.via_reason);
    }
    let system = newest.system.sample().cloned().unwrap_or_default();
    let docker = newest.docker.sample().cloned().unwrap_or_default();
    let logs = newest.logs.sample().map(|sample| Arc::clone(&sample.logs));
    Snapshot {
        timestamp: Timestamp::now(),
        status: sources.status(),
        system: with_peers(system.metrics, &docker.namespaces),
        containers: docker.containers,
        docker_meta: docker.meta,
        logs: logs.unwrap_or_default(),
        logs_dropped: None,
        // Each client has its own.
        events: Vec::new(),
        events_dropped: None,
        sources,
        host: system.host,
        agent: AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
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

/// With the container at each veth's other end. It is known only here, whichever of the two was read first: the veth from
/// the host, the container from the engine.
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
    fn a_veth_is_its_containers_by_the_namespace_of_its_other_end() {
        let interface = |peer| NetworkInterface {
            peer,
            ..NetworkInterface::default()
        };
        // Two of one container, one of another, one of none, and one that is no veth.
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
