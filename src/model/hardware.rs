//! Figures of hardware that not every host has.

use serde::{Deserialize, Serialize};

/// A RAID array of the kernel's `md` driver. Source: `/proc/mdstat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RaidArray {
    /// The name of the array, e.g. `md0`.
    pub device: String,
    /// The RAID level, e.g. `raid1`. Absent if the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The state: `active`, `inactive`, `broken`, `recovering`, `resync`, `check` or `reshape`. A broken array has lost too many disks.
    pub state: String,
    /// The number of disks that the array needs. This is 0 for an inactive array.
    pub disks_required: u64,
    /// The number of working disks. This is 0 for an inactive array. If it is less than `disks_required`, the array is degraded.
    pub disks_active: u64,
    /// The number of failed disks.
    pub disks_failed: u64,
    /// The number of spare disks.
    pub disks_spare: u64,
    /// The size of the array, in blocks of 1 KiB.
    pub blocks: u64,
    /// The number of blocks that the running recovery, resync, check or reshape has finished. Absent if none is running. This is 0
    /// while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_synced: Option<u64>,
}

impl RaidArray {
    /// Whether a disk is missing.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.disks_active < self.disks_required
    }
}

/// The value of a sensor that does not measure temperature. Source: `/sys/class/hwmon`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorReading {
    /// The name of the device with the sensor, e.g. `nct6779`.
    pub device: String,
    /// The label of the sensor, e.g. `Vcore`. For a sensor without a label, this is the kernel's name of the sensor, e.g. `fan1`.
    pub sensor: String,
    /// The device's path in `/sys/devices` as a short name. Each device has a different name.
    pub chip: String,
    /// The kernel's name of the sensor, e.g. `fan1`. A sensor of power can have two readings, with different kinds.
    pub input: String,
    /// What the sensor measures.
    pub kind: SensorKind,
    /// The value. The unit is that of `kind`: revolutions per minute, V, A, W or percent.
    pub value: f64,
}

/// What a sensor measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorKind {
    /// The speed of a fan, in revolutions per minute.
    Fan,
    /// A voltage, in V.
    Voltage,
    /// A current, in A.
    Current,
    /// The power at this moment, in W.
    Power,
    /// The power as an average over a time that the device chooses, in W.
    AveragePower,
    /// The relative humidity, in percent.
    Humidity,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

/// A battery, a mains adapter or another power supply. Source: `/sys/class/power_supply/*/uevent`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PowerSupply {
    /// The kernel's name, e.g. `BAT0`.
    pub name: String,
    /// The type, e.g. `Battery`, `Mains`, `UPS` or `USB`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a mains adapter provides power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Whether a battery is in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// What the battery does: `Charging`, `Discharging`, `Not charging`, `Full` or `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The charge of the battery, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_percent: Option<f64>,
    /// The kernel's word for the charge, e.g. `Normal`, `Low` or `Critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_level: Option<String>,
    /// The number of charge cycles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_count: Option<u64>,
    /// The stored energy, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<f64>,
    /// The energy of the full battery now, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_full: Option<f64>,
    /// The energy of the full battery when it was new, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_full_design: Option<f64>,
    /// The stored charge, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<f64>,
    /// The charge of the full battery now, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_full: Option<f64>,
    /// The charge of the full battery when it was new, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_full_design: Option<f64>,
    /// The power that flows into or out of the battery, in W.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// The current, in A.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<f64>,
    /// The voltage, in V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voltage: Option<f64>,
    /// The lowest voltage for which the battery is built, in V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voltage_min_design: Option<f64>,
    /// The temperature, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f64>,
    /// The time until the battery is empty, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_empty: Option<u64>,
    /// The time until the battery is full, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_full: Option<u64>,
    /// The chemistry of the battery, e.g. `Li-ion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technology: Option<String>,
    /// The manufacturer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// The name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
}
