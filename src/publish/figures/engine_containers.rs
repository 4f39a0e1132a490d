//! The metrics of containers that cAdvisor does not have.
//!
//! The label `short_id` is the container's short id. A metric that also has containers that do not run has no label `id`, because such a
//! container has no control group.

use super::containers::{chosen_labels, labels};
use super::{FigureFamily, FigureSource, NONE, Samples, counter, gauge, if_any, is, unix};
use crate::model::{Container, StoppedContainer};

const WITH_SHORT_ID: &[&str] = &["id", "short_id", "image", "name"];
const SHORT_ID: &[&str] = &["short_id", "image", "name"];

// The columns are: name, unit, labels, fields, help text, and the function that reads the samples.

#[rustfmt::skip]
pub(super) static ENGINE_CONTAINERS: &[FigureFamily] = &[
    counter("system_agent_container_restarts", "{restart}", WITH_SHORT_ID, &["containers[].restart_count"],
        "Number of restarts by the container's restart policy",
        |source, out| {
            for one in source.snapshot.containers.iter() {
                if let Some(count) = one.restart_count {
                    out(&with_short_id(one), count as f64);
                }
            }
        }),
    gauge("system_agent_container_health", "1", &["id", "short_id", "image", "name", "status"], &["containers[].health"],
        "Result of the container's health check: 1 for the current status, 0 for the other statuses", container_health),
    gauge("system_agent_container_info", "1",
        &["id", "short_id", "image", "name", "image_digest", "compose_project", "compose_service", "network_of"],
        &["containers[].id", "containers[].name", "containers[].image", "containers[].image_digest", "containers[].compose.project",
            "containers[].compose.service", "containers[].network_of", "containers[].labels"],
        "Properties of the container: image digest, names in docker compose, and the labels that CONTAINER_LABELS selects",
        container_info),
    gauge("system_agent_container_state", "1", &["short_id", "image", "name", "state"], &["docker_meta[].state"],
        "State of the container, as the engine reports it: 1 for the current state, 0 for the other states", container_states),
    gauge("system_agent_container_log_bytes", "By", SHORT_ID, &["docker_meta[].log_bytes"],
        "Size of the files of the container's log, including rotated files", container_logs),

    gauge("system_agent_stopped_containers", "{container}", NONE, &["stopped_dropped"],
        "Number of containers that do not run",
        |source, out| {
            let dropped = source.snapshot.stopped_dropped.unwrap_or_default();
            let all = source.snapshot.stopped.len() as f64 + dropped as f64;
            if_any(out, source.snapshot.sources.docker.collected_at.map(|_| all));
        }),
    gauge("system_agent_stopped_container_down", "1", SHORT_ID, NONE,
        "Whether the stopped container is meant to run, by its restart policy or docker compose project, its exit code and the engine's error",
        |source, out| stopped(source, out, |one| Some(is(one.is_down())))),
    gauge("system_agent_stopped_container_exit_code", "1", SHORT_ID, &["stopped[].exit_code"],
        "Exit code of the stopped container",
        |source, out| stopped(source, out, |one| Some(one.exit_code? as f64))),
    gauge("system_agent_stopped_container_oom_killed", "1", SHORT_ID, &["stopped[].oom_killed"],
        "Whether a process of the stopped container was killed because of too little memory",
        |source, out| stopped(source, out, |one| Some(is(one.oom_killed?)))),
    gauge("system_agent_stopped_container_start_time_seconds", "s", SHORT_ID, &["stopped[].started_at"],
        "Time at which the stopped container was last started, in Unix seconds",
        |source, out| stopped(source, out, |one| one.started_at.map(unix))),
    gauge("system_agent_stopped_container_finish_time_seconds", "s", SHORT_ID, &["stopped[].finished_at"],
        "Time at which the container stopped, in Unix seconds",
        |source, out| stopped(source, out, |one| one.finished_at.map(unix))),
    gauge("system_agent_stopped_container_info", "1",
        &["short_id", "image", "name", "state", "restart_policy", "compose_project", "compose_service", "health"],
        &["stopped[].id", "stopped[].name", "stopped[].image", "stopped[].state", "stopped[].restart_policy",
            "stopped[].compose.project", "stopped[].compose.service", "stopped[].health"],
        "Properties of the stopped container: state, restart policy, names in docker compose, and the last result of its health check",
        stopped_info),
];

fn with_short_id(container: &Container) -> [(&str, &str); 4] {
    let [id, image, name] = labels(container);
    [id, ("short_id", &container.id), image, name]
}

/// Passes the states of all containers in `docker_meta` to `out`. `docker_meta` includes restarting containers, which have no
/// figures.
fn container_states(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for state in ["paused", "restarting", "running"] {
        for meta in source.snapshot.docker_meta.iter() {
            let name = meta.own_name().unwrap_or_default();
            let labels = [
                ("short_id", &*meta.id),
                ("image", &meta.image),
                ("name", name),
                ("state", state),
            ];
            out(&labels, is(*meta.state == *state));
        }
    }
}

fn container_logs(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for meta in source.snapshot.docker_meta.iter() {
        if let Some(bytes) = meta.log_bytes {
            let name = meta.own_name().unwrap_or_default();
            let labels = [
                ("short_id", &*meta.id),
                ("image", &meta.image),
                ("name", name),
            ];
            out(&labels, bytes as f64);
        }
    }
}

fn stopped(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&StoppedContainer) -> Option<f64>,
) {
    for one in source.snapshot.stopped.iter() {
        if let Some(value) = value(one) {
            out(&stopped_labels(one), value);
        }
    }
}

fn stopped_labels(container: &StoppedContainer) -> [(&str, &str); 3] {
    [
        ("short_id", &container.id),
        ("image", &container.image),
        ("name", container.bare_name()),
    ]
}

fn stopped_info(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in source.snapshot.stopped.iter() {
        let compose = one.compose.as_ref();
        let [short_id, image, name] = stopped_labels(one);
        let labels = [
            short_id,
            image,
            name,
            ("state", &*one.state),
            (
                "restart_policy",
                one.restart_policy.as_deref().unwrap_or_default(),
            ),
            (
                "compose_project",
                compose.map(|compose| &*compose.project).unwrap_or_default(),
            ),
            (
                "compose_service",
                compose
                    .and_then(|compose| compose.service.as_deref())
                    .unwrap_or_default(),
            ),
            ("health", one.health.as_deref().unwrap_or_default()),
        ];
        out(&labels, 1.0);
    }
}

fn container_health(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for status in ["healthy", "starting", "unhealthy"] {
        for one in source.snapshot.containers.iter() {
            let Some(health) = &one.health else {
                continue;
            };
            let [id, short_id, image, name] = with_short_id(one);
            let labels = [id, short_id, image, name, ("status", status)];
            out(&labels, is(status == health));
        }
    }
}

/// Passes the properties of each container to `out`, as labels of one metric. The other metrics of a container do not have these
/// labels.
fn container_info(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in source.snapshot.containers.iter() {
        let compose = one.compose.as_ref();
        let project = compose.map(|compose| &*compose.project);
        let service = compose.and_then(|compose| compose.service.as_deref());
        let known = [
            ("image_digest", one.image_digest.as_deref()),
            ("compose_project", project),
            ("compose_service", service),
            ("network_of", one.network_of.as_deref()),
        ]
        .map(|(name, value)| (name, value.unwrap_or_default()));
        let chosen = chosen_labels(one);
        let chosen = chosen.iter().map(|(name, value)| (&**name, *value));
        let own = with_short_id(one).into_iter();
        let labels: Vec<_> = own.chain(known).chain(chosen).collect();
        out(&labels, 1.0);
    }
}
