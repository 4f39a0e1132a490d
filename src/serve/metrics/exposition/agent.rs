//! The agent itself, and how its sources are.

use std::fmt;
use std::time::Duration;

use super::{Families, alone, if_any, is, ratio, unix};
use crate::model::{AgentInfo, Snapshot, SourceHealth, SourceStatus, Status};

pub(super) fn write(
    families: &mut Families<'_>,
    snapshot: &Snapshot,
    interval: Duration,
) -> fmt::Result {
    sources(families, snapshot, interval)?;
    agent(families, &snapshot.agent)
}

fn sources(families: &mut Families<'_>, snapshot: &Snapshot, interval: Duration) -> fmt::Result {
    let enabled = || {
        let all = snapshot.sources.named();
        all.filter(|(_, source)| source.status != SourceStatus::Disabled)
    };
    let each = |value: fn(&SourceHealth) -> Option<f64>| {
        enabled().filter_map(move |(name, source)| Some(([("source", name)], value(source)?)))
    };
    families.gauge(
        "system_agent_source_up",
        "Whether the source is well: the host's figures, the engine's containers, their logs",
        each(|source| Some(is(source.status == SourceStatus::Ok))),
    )?;
    families.gauge(
        "system_agent_source_duration_seconds",
        "How long the source's last round took",
        each(|source| Some(source.duration_ms? as f64 / 1000.0)),
    )?;
    families.gauge(
        "system_agent_source_interval_seconds",
        "The time between the source's rounds",
        each(|source| Some(source.interval_ms? as f64 / 1000.0)),
    )?;
    families.gauge(
        "system_agent_source_collected_timestamp_seconds",
        "When the source's figures were read, in Unix seconds",
        each(|source| source.collected_at.map(unix)),
    )?;
    families.gauge(
        "system_agent_up",
        "Whether every source that is switched on is well",
        alone(is(snapshot.status == Status::Ok)),
    )?;
    families.gauge(
        "system_agent_snapshot_timestamp_seconds",
        "When the snapshot that these figures are of was composed, in Unix seconds",
        alone(unix(snapshot.timestamp)),
    )?;
    families.gauge(
        "system_agent_snapshot_interval_seconds",
        "The time between two snapshots",
        alone(interval.as_secs_f64()),
    )
}

fn agent(families: &mut Families<'_>, agent: &AgentInfo) -> fmt::Result {
    let version = [("version", agent.version.as_str())];
    families.gauge(
        "system_agent_build_info",
        "The agent's version",
        [(version, 1.0)],
    )?;
    families.counter(
        "system_agent_snapshots",
        "Snapshots since the agent began",
        alone(agent.seq as f64),
    )?;
    families.gauge(
        "system_agent_clients",
        "Clients that are sent snapshots",
        alone(agent.clients as f64),
    )?;
    families.gauge(
        "system_agent_cpu_ratio",
        "CPU that the agent uses, in cores, over the last interval",
        alone(ratio(agent.cpu_percent)),
    )?;
    families.gauge(
        "system_agent_engine_cpu_ratio",
        "CPU that the engine's processes use, in cores, over the last interval",
        if_any(agent.engine_cpu_percent.map(ratio)),
    )?;
    families.counter(
        "system_agent_connections_closed_early",
        "Connections whose peer closed them before it had sent anything, as health checks do",
        if_any(agent.connections_closed_early.map(|count| count as f64)),
    )?;
    families.gauge(
        "system_agent_certificate_not_after_seconds",
        "When the certificate that is served expires, in Unix seconds",
        if_any(agent.certificate_expires_at.map(unix)),
    )?;
    families.gauge(
        "process_resident_memory_bytes",
        "The agent's resident memory",
        alone(agent.memory_rss as f64),
    )?;
    families.gauge(
        "system_agent_memory_anon_bytes",
        "The part of the agent's resident memory that no file is behind",
        if_any(agent.memory_anon.map(|bytes| bytes as f64)),
    )
}
