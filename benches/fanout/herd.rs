//! Measures clients that all connect at the same time, as they do after a network outage.

use std::time::Duration;

use crate::common::bars::Bars;
use crate::crowd::Crowd;
use crate::load::median;
use crate::plan::Plan;
use crate::server::Server;
use crate::snapshots::Kind;
use crate::way::Way;

/// The number of rounds. The result is their median.
const ROUNDS: usize = 3;
/// Limit of the agent's time, as a multiple of the floor's time.
const MAX_OVER_FLOOR: f64 = 3.0;

pub(crate) fn measure(plan: &Plan, kind: &Kind, bars: &mut Bars) {
    let clients = plan.most();
    println!("\n## {clients} clients connect at the same time\n");
    let agents = |_| {
        time(
            &Server::agent(plan, kind, Way::Plain, plan.interval, &[]),
            clients,
        )
    };
    let floors = |_| {
        let tick = std::time::SystemTime::now() + plan.interval;
        time(
            &Server::floor(plan, kind, Way::Plain, plan.interval, tick),
            clients,
        )
    };
    // The agent and the floor take turns.
    let rounds: Result<Vec<(f64, f64)>, String> = (0..ROUNDS)
        .map(|round| Ok((agents(round)?, floors(round)?)))
        .collect();
    let (agent, floor) = match rounds {
        Ok(rounds) => {
            let (agents, floors): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
            println!("until all have a snapshot, s: agent {agents:.2?}, floor {floors:.2?}");
            (median(&agents), median(&floors))
        }
        Err(why) => {
            println!("NOT MEASURED: {why}");
            (f64::NAN, f64::NAN)
        }
    };
    let what =
        format!("{clients} connect at the same time, until all have a snapshot, over the floor");
    bars.at_most(&what, agent / floor, MAX_OVER_FLOOR, "×");
}

fn time(server: &Server, clients: usize) -> Result<f64, String> {
    // This measurement connects one client, so the server is ready afterwards.
    server.rss_kib_of_empty()?;
    let took: Duration = Crowd::gather(server.clients(clients))?.took;
    Ok(took.as_secs_f64())
}
