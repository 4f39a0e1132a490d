//! The limit of open files, and how many connections and clients it allows. Every stage keeps files open, so this is a part of the
//! daemon's start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::collect::{docker, logs, system};
use crate::publish::admission::{ConnectionLimits, MAX_PENDING};
use crate::publish::http::MOST_SCRAPERS;
use crate::settings::{ContainerStats, Settings};

/// Number of open files that are reserved for everything except connections and the files that collectors leave open. Examples
/// are hundreds of concurrent calls to the engine, and files in `/proc` that are open for a moment.
const OTHER_OPEN_FILES: u64 = 600;

/// With few clients, this many open files stay reserved for connections, because other connections can be pending.
const MIN_CONNECTIONS: u64 = 1024;

/// Raises the soft limit of open files to the hard limit, because each client needs an open file. Returns the limit in use. None
/// means that there is no limit.
pub(super) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "cannot raise the soft limit of open files");
            limit.current
        }
    }
}

/// What the limit of open files allows.
pub(super) struct Limits {
    pub(super) connections: ConnectionLimits,
    /// `MAX_CLIENTS`, or less if the limit of open files is too low.
    pub(super) max_clients: usize,
    /// Maximum number of files of containers that stay open.
    pub(super) container_files: u64,
}

/// Returns the limits for the limit of open files `files`. None means that there is no limit.
pub(super) fn limits_within(files: Option<u64>, settings: &Settings) -> Limits {
    let max_clients = settings.serve.max_clients;
    let collect = &settings.collect;
    let scrapers = settings.serve.metrics_port.map_or(0, |_| MOST_SCRAPERS);
    let by_files = collect.docker.is_some() && collect.container_stats != ContainerStats::Engine;
    let keeps_open = docker::keeps_files_open(collect.docker_interval);
    let most_files = files.unwrap_or(u64::MAX);
    let mut kept = system::most_kept_files(most_files) + scrapers as u64;
    let mut container_files = 0;
    if by_files {
        kept += logs::most_kept_files(most_files);
        let left = left_beside_clients(most_files, kept, max_clients as u64);
        if keeps_open {
            container_files = docker::most_kept_files(most_files, left);
        }
    }
    let (connections, clients_by_files) = match files {
        Some(files) => connections_within(files, kept + container_files),
        None => (usize::MAX, usize::MAX),
    };
    if clients_by_files < max_clients {
        warn!(
            max_clients,
            max_open_files = files,
            room = clients_by_files,
            "the limit of open files is too low for MAX_CLIENTS: raise it, or fewer clients can connect"
        );
    } else {
        info!(
            max_clients,
            max_open_files = files,
            room = clients_by_files,
            "the limit of open files is high enough for MAX_CLIENTS"
        );
    }
    Limits {
        connections: ConnectionLimits {
            pending: MAX_PENDING,
            total: connections,
        },
        max_clients: clients_by_files.min(max_clients),
        container_files,
    }
}

/// Returns how many open files are left if the collectors keep `kept` files open and `max_clients` clients are connected.
fn left_beside_clients(files: u64, kept: u64, max_clients: u64) -> u64 {
    // The inverse of what `connections_within` reserves for pending connections.
    let connections = max_clients + max_clients.div_ceil(15) + 1;
    files.saturating_sub(kept + OTHER_OPEN_FILES + connections.max(MIN_CONNECTIONS))
}

/// Returns the limit of connections and the limit of clients. `files` is the limit of open files.
///
/// `kept` open files are reserved for collectors and for Prometheus. Connections get at least half of the remaining files. A
/// sixteenth of the connections is reserved for pending connections.
fn connections_within(files: u64, kept: u64) -> (usize, usize) {
    let left = files.saturating_sub(kept);
    let connections = usize::try_from(left - OTHER_OPEN_FILES.min(left / 2)).unwrap_or(usize::MAX);
    (connections, connections - connections.div_ceil(16))
}

#[cfg(test)]
mod tests {
    use super::{OTHER_OPEN_FILES, connections_within, docker, left_beside_clients, system};

    #[test]
    fn even_a_low_limit_of_open_files_leaves_a_quarter_for_clients() {
        for files in [64, 256, 1024, 1200, 4096, 20_000, 1 << 20] {
            let kept = docker::most_kept_files(files, 0) + system::most_kept_files(files);
            let (connections, clients) = connections_within(files, kept);
            assert!(clients as u64 >= files / 4, "{clients} of {files}");
            assert!(
                connections > clients && connections as u64 + kept < files,
                "{connections} and {kept} of {files}"
            );
        }
        assert!(connections_within(65_536, 8192).1 > 50_000);
    }

    #[test]
    fn containers_may_use_the_open_files_that_clients_do_not_need() {
        for (files, max_clients, expected) in [
            (20_000, 100, 12_288),
            // The clients need the rest.
            (20_000, 10_000, 20_000 - 3_072 - 600 - 10_668),
            (8_192, 100, 8_192 - 1_536 - 600 - 1_024),
            (8_192, 1, 8_192 - 1_536 - 600 - 1_024),
            // At least one quarter.
            (1_024, 10_000, 256),
        ] {
            let kept = system::most_kept_files(files);
            let left = left_beside_clients(files, kept, max_clients);
            let of_containers = docker::most_kept_files(files, left);
            assert_eq!(of_containers, expected, "{files} and {max_clients}");
            let (connections, clients) = connections_within(files, kept + of_containers);
            assert!(clients as u64 >= max_clients.min(files / 4), "{clients}");
            let reserved = OTHER_OPEN_FILES.min(files / 4);
            assert!(connections as u64 + kept + of_containers + reserved <= files);
        }
    }
}
