//! A real node_exporter.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::{DEADLINE, net, wait};

/// A node_exporter with its default collectors and some that are off by default. Ended on drop.
pub(crate) struct NodeExporter {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl NodeExporter {
    pub(crate) fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
        let process = Command::new("prometheus-node-exporter")
            .arg(format!("--web.listen-address={address}"))
            // Debian leaves out the loopback interface. The original does not.
            .arg("--collector.netdev.device-exclude=^$")
            // Debian also leaves out mounts in /mnt and /media. The original does not.
            .arg("--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)")
            // The default of later versions, which leaves out compressed RAM disks.
            .arg(r"--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$")
            // These collectors are off by default.
            .args(["interrupts", "processes", "tcpstat"].map(|name| format!("--collector.{name}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "cannot start prometheus-node-exporter (Debian package prometheus-node-exporter)",
            );
        let exporter = Self { process, address };
        wait::until("node_exporter", DEADLINE, || {
            net::listens(address.port()).then_some(())
        });
        exporter
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
