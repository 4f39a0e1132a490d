//! The tiers: samples as they came, and averages.

use super::WINDOW_MS;

/// The time between two samples of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// The samples as they came.
    Full,
    Minute,
    TenMinutes,
    Hour,
}

impl Tier {
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Minute, Self::TenMinutes, Self::Hour];

    /// The time between two samples, in milliseconds. 0 for [`Self::Full`].
    pub(super) const fn step_ms(self) -> i64 {
        match self {
            Self::Full => 0,
            Self::Minute => 60_000,
            Self::TenMinutes => 600_000,
            Self::Hour => 3_600_000,
        }
    }

    /// The time of a block, in milliseconds.
    pub(super) const fn block_ms(self) -> i64 {
        match self {
            Self::Full => WINDOW_MS,
            Self::Minute => 3_600_000,
            Self::TenMinutes => 86_400_000,
            Self::Hour => 7 * 86_400_000,
        }
    }

    /// The time at which the block with the time `at` begins.
    pub(super) const fn block_start(self, at: i64) -> i64 {
        at - at.rem_euclid(self.block_ms())
    }
}
