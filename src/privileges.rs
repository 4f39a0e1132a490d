//! The one privilege that the systemd unit grants: to read files that belong to others (`CAP_DAC_READ_SEARCH`).
//!
//! With it the agent reads the files of container logs, which are root's. Without it the engine must be asked for each line,
//! which costs the engine CPU time. An agent that reads no such files gives the privilege up once it has read its settings,
//! before it starts a thread: above all one that reaches the engine through a proxy, since that was not given more on purpose.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::settings::{CollectSettings, ContainerStats, DockerHost};

/// Gives up the privilege to read the files of others, unless the settings say that log files are to be read. Programs that
/// the process might start never get it. Does nothing for root, and where the unit has not granted it.
///
/// To be called before there is a second thread: each thread has capabilities of its own.
///
/// # Errors
/// The kernel, or the filter of system calls, refuses; the process keeps the privilege.
pub fn keep_only_what_is_used(settings: &CollectSettings) -> io::Result<()> {
    let granted = capabilities(None)?;
    let readable = CapabilitySet::DAC_READ_SEARCH;
    if geteuid().is_root() || !granted.permitted.contains(readable) {
        return Ok(());
    }
    let unused = if reads_log_files(settings) {
        CapabilitySet::empty()
    } else {
        readable
    };
    // Whatever is not inheritable is not ambient either, so no program gets it.
    let kept = CapabilitySets {
        effective: granted.effective - unused,
        permitted: granted.permitted - unused,
        inheritable: granted.inheritable - readable,
    };
    Ok(set_capabilities(None, kept)?)
}

fn reads_log_files(settings: &CollectSettings) -> bool {
    let engine = settings.docker.as_ref();
    engine.is_some_and(DockerHost::is_the_hosts_own)
        && settings.log_lines > 0
        && settings.container_stats != ContainerStats::Engine
}

#[cfg(test)]
mod tests {
    use super::reads_log_files;
    use crate::settings::CollectSettings;

    #[test]
    fn only_who_reads_log_files_of_the_hosts_engine_keeps_it() {
        let with = |variables: &[(&str, &str)]| {
            let variables = variables
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            reads_log_files(&CollectSettings::from_env(variables).unwrap())
        };
        assert!(with(&[]));
        assert!(with(&[("DOCKER_HOST", "unix:///run/docker.sock")]));
        assert!(with(&[("CONTAINER_STATS", "kernel")]));
        for other in [
            ("DOCKER_HOST", "tcp://127.0.0.1:2375"),
            ("DOCKER_HOST", "unix:///run/proxy/docker.sock"),
            ("DOCKER_ENABLED", "false"),
            ("LOG_LINES", "0"),
            ("CONTAINER_STATS", "engine"),
        ] {
            assert!(!with(&[other]), "{other:?}");
        }
    }
}
