//! NVIDIA's GPUs, by way of the driver's own library (NVML), which is looked for when the agent runs.

use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::device::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use tracing::debug;

use crate::collect::blocking::Blocking;
use crate::model::{Gpu, figure};

const MIB: f64 = 1_048_576.0;
/// How long the driver may take: longer than it does to wake a GPU.
const DEADLINE: Duration = Duration::from_secs(1);

/// The GPUs of a host that has the driver.
pub(super) struct Gpus {
    /// None once the library has been looked for in vain: a driver comes with a restart.
    driver: Option<Blocking<Option<Nvml>, Answer>>,
}

/// An error where there is no library that works.
type Answer = Result<Option<Vec<Gpu>>, NvmlError>;

impl Gpus {
    /// Nothing is looked for yet.
    pub(super) fn new() -> Self {
        Self {
            driver: Some(Blocking::new("GPUs", None).within(DEADLINE)),
        }
    }

    /// All GPUs, by their numbers; none where there is no driver, and while it does not answer.
    pub(super) async fn read(&mut self) -> Option<Vec<Gpu>> {
        let read = self.driver.as_mut()?.read(|nvml| {
            if nvml.is_none() {
                *nvml = Some(Nvml::init()?);
            }
            Ok(nvml.as_ref().and_then(gpus))
        });
        match read.await {
            Ok(Ok(gpus)) => gpus,
            Ok(Err(error)) => {
                debug!(%error, "no GPU figures: no driver");
                self.driver = None;
                None
            }
            Err(late) => {
                debug!(late, "no GPU figures");
                None
            }
        }
    }
}

fn gpus(nvml: &Nvml) -> Option<Vec<Gpu>> {
    let count = nvml.device_count().ok()?;
    let devices = (0..count).filter_map(|index| Some((index, nvml.device_by_index(index).ok()?)));
    Some(devices.map(|(index, device)| gpu(index, &device)).collect())
}

/// What a GPU says; some do not know all of it.
fn gpu(index: u32, device: &Device<'_>) -> Gpu {
    let utilization = device.utilization_rates().ok();
    let memory = device.memory_info().ok();
    let mib = |bytes: u64| figure(bytes as f64 / MIB, 2);
    let power = device.power_usage().ok();
    Gpu {
        index,
        name: device.name().unwrap_or_default(),
        busy_percent: utilization.map(|share| f64::from(share.gpu)),
        memory_used: memory.as_ref().map(|memory| mib(memory.used)),
        memory_total: memory.as_ref().map(|memory| mib(memory.total)),
        celsius: device
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .map(f64::from),
        watts: power.map(|milliwatts| figure(f64::from(milliwatts) / 1000.0, 2)),
    }
}
