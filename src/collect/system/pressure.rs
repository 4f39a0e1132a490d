//! Reads the host's pressure: how long work waited for CPU, memory and I/O.

use std::io;

use super::family::{MetricFamily, Round};
use crate::collect::kernel_file::KernelFile;
use crate::collect::pressure;
use crate::model::Pressures;

/// The metric family. Source: `/proc/pressure`.
pub(super) struct HostPressure {
    /// Each resource with its file.
    files: [(&'static str, KernelFile); 3],
}

impl Default for HostPressure {
    fn default() -> Self {
        Self {
            files: pressure::RESOURCES.map(|resource| {
                let path = format!("/proc/pressure/{resource}");
                (resource, KernelFile::new(path))
            }),
        }
    }
}

/// Why the host's pressure cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/pressure")]
pub(super) struct PressureError(#[source] io::Error);

impl MetricFamily for HostPressure {
    const NAME: &'static str = "pressure";

    /// None if the kernel does not have the figures, or if they are switched off.
    type Figures = Option<Pressures>;
    type Error = PressureError;

    fn read(&mut self, _round: &Round<'_>) -> Result<Option<Pressures>, PressureError> {
        let mut failed = None;
        let pressures = pressure::of_each(|resource| {
            let mut files = self.files.iter_mut();
            let (_, file) = files.find(|(of, _)| *of == resource)?;
            match file.read() {
                Ok(text) => pressure::parse(&String::from_utf8_lossy(text)),
                Err(error) => {
                    failed.get_or_insert(error);
                    None
                }
            }
        });
        match failed {
            Some(error) if !is_not_offered(&error) => Err(PressureError(error)),
            _ => Ok(pressures),
        }
    }

    fn publish(&mut self, pressures: Option<Pressures>, round: &mut Round<'_>) {
        round.metrics.pressure = pressures;
    }
}

/// Returns whether the error means that the kernel does not have the figures.
fn is_not_offered(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EOPNOTSUPP)
}
