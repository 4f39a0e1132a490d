//! Tests of `system-agent web`: the real binary, real agents, and a minimal browser.

mod access;
mod api;
pub(crate) mod browser;
mod fleet;
mod history;
mod tls;
