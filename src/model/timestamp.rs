//! Times in the format RFC 3339, in UTC, with milliseconds.

use std::fmt;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time. On the wire, it has the format RFC 3339 in UTC, with milliseconds and `Z`: `2024-01-01T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// Returns the current time, by the wall clock.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time before 1970 or after 9999 is written as 1970, so that a wrong clock does not make snapshots fail.
        let year_10000 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_800);
        let said = if (SystemTime::UNIX_EPOCH..year_10000).contains(&self.0) {
            self.0
        } else {
            SystemTime::UNIX_EPOCH
        };
        humantime::format_rfc3339_millis(said).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("not RFC 3339 in UTC: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::Timestamp;

    #[test]
    fn a_written_time_is_read_back_unchanged() {
        let moment = Timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(1_704_110_400_250));
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(text, "\"2024-01-01T12:00:00.250Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), moment);
    }

    #[test]
    fn a_time_out_of_range_is_written_as_1970() {
        let before = Timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        let after = Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40));
        for absurd in [before, after] {
            assert_eq!(
                serde_json::to_string(&absurd).unwrap(),
                "\"1970-01-01T00:00:00.000Z\""
            );
        }
    }
}
