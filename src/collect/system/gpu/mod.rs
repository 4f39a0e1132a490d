//! Reads GPUs: those of NVIDIA with the library of their driver, and those of AMD and Intel from files of the kernel.

mod drm;
mod nvidia;

use std::path::Path;

use crate::model::Gpu;

/// The GPUs of the host.
pub(super) struct Gpus {
    nvidia: nvidia::NvidiaGpus,
    drm: drm::DrmGpus,
}

impl Gpus {
    /// Creates the reader, and reads nothing yet. `devices` is the folder in which the kernel lists PCI devices, and `class` is
    /// `/sys/class/drm`.
    pub(super) fn new(devices: &Path, class: &Path) -> Self {
        Self {
            nvidia: nvidia::NvidiaGpus::new(devices),
            drm: drm::DrmGpus::new(class),
        }
    }

    /// Reads all GPUs: those of NVIDIA in the order of their numbers, then the others in the order of their numbers. Returns none if there
    /// is no driver, and while no driver answers.
    pub(super) async fn read(&mut self) -> Option<Vec<Gpu>> {
        let (nvidia, others) = tokio::join!(self.nvidia.read(), self.drm.read());
        match nvidia {
            Some(mut gpus) => {
                gpus.extend(others);
                Some(gpus)
            }
            None => (!others.is_empty()).then_some(others),
        }
    }
}
