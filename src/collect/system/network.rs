//! The host's network interfaces.

use std::fs;
use std::io;

use crate::collect::net_dev;
use crate::model::NetworkInterface;

/// Every interface of the agent's network namespace. Source: `/proc/net/dev`: one file, where
/// `/sys/class/net` takes ten an interface.
pub(super) fn interfaces() -> io::Result<Vec<NetworkInterface>> {
    fs::read("/proc/net/dev")
        .map(|table| net_dev::parse(&String::from_utf8_lossy(&table)).collect())
}
