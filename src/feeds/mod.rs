//! Feeds of hosts, for the programs that show hosts: `watch` and `web`.
//!
//! A feed receives the snapshots of a host and sends them on as updates. `feed` is the feed for a host with an agent, `local` for
//! this host without an agent, and `nats` for all hosts whose agents publish to a NATS server.
//!
//! `brief` has the short form of a snapshot, and `problems` the problems that a snapshot shows. `text` makes text of hosts and
//! containers safe.

#![cfg_attr(
    not(all(feature = "nats", feature = "watch", feature = "web")),
    allow(dead_code, reason = "each program uses a part of this module")
)]

pub(crate) mod brief;
pub(crate) mod feed;
pub(crate) mod local;
#[cfg(feature = "nats")]
pub(crate) mod nats;
pub(crate) mod problems;
pub(crate) mod share;
pub(crate) mod text;
