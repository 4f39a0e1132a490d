//! The code that all benchmarks share.

pub(crate) mod agent;
pub(crate) mod bars;
pub(crate) mod engine;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod recording;
pub(crate) mod variables;
