//! The harness of all tests: the agent as a child process, its clients, and waiting with deadlines.

mod agent;
mod busy;
mod certificates;
mod client;
pub(crate) mod dashboards;
mod delay;
pub(crate) mod fuse;
mod hello;
mod hub;
pub(crate) mod kernel;
mod lines;
mod namespace;
pub(crate) mod nats;
pub(crate) mod net;
pub(crate) mod node_exporter;
mod openssl;
pub(crate) mod prometheus;
pub(crate) mod schema;
mod terminal;
pub(crate) mod wait;
mod watch;
mod zstd;

pub(crate) use agent::{Agent, Event, Finished, KEY, Launch};
pub(crate) use busy::{Busy, Idle};
pub(crate) use certificates::{Authority, Identity, MadeByOpenssl};
pub(crate) use client::{Client, Ending};
pub(crate) use delay::Delay;
pub(crate) use hello::client_hello;
pub(crate) use hub::Hub;
pub(crate) use lines::Lines;
pub(crate) use namespace::{CONTAINER, Namespace};
pub(crate) use openssl::OpenSsl;
pub(crate) use terminal::Terminal;
pub(crate) use wait::DEADLINE;
pub(crate) use watch::Watch;
pub(crate) use zstd::unpack;
