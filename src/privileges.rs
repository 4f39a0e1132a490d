//! Gives up the privilege to read files of other users (`CAP_DAC_READ_SEARCH`), if the agent does not need this privilege. The
//! systemd unit grants no other privilege.
//!
//! The agent needs the privilege to read the log files of containers, which belong to root. Without the privilege, the agent
//! must read log lines through the engine, which costs the engine CPU time.
//!
//! If the settings say that the agent reads no log files, the agent gives up the privilege before it starts a thread. An agent
//! that reaches the engine through a proxy also gives up the privilege, because the purpose of the proxy is to limit what the
//! agent can read.

use std::io;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::settings::{CollectSettings, ContainerStats, DockerHost};

/// Gives up the privilege to read files of other users, unless the agent reads log files. Child processes never get the
/// privilege. Does nothing for root, or if the unit has not granted the privilege.
///
/// Call this function before the process has a second thread, because each thread has its own capabilities.
///
/// # Errors
/// Fails if the kernel or the filter of system calls refuses the change. The process then still has the privilege.
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
    // A capability that is not inheritable is not ambient either, so no child process gets it.
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
    fn only_an_agent_that_reads_log_files_of_the_hosts_engine_keeps_the_privilege() {
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
