//! Measures the bytes on the wire for a snapshot of many containers, with each combination of options.

use std::time::Duration;

use crate::crowd::Spec;
use crate::loaded::Loaded;
use crate::plan::Plan;
use crate::server::{Server, login};
use crate::snapshots::Kind;
use crate::way::Way;

const OPTIONS: [&str; 4] = [
    "{}",
    r#"{"encoding":"zstd"}"#,
    r#"{"sections":["system"]}"#,
    r#"{"sections":["system"],"encoding":"zstd"}"#,
];
const SNAPSHOTS: u32 = 3;

pub(crate) fn measure(plan: &Plan, kind: &Kind) {
    println!(
        "\n## Bytes on the wire for a snapshot of {} containers\n",
        plan.containers
    );
    println!("| options | bytes | of all |\n|---|---:|---:|");
    let mut all = None;
    for options in OPTIONS {
        match bytes(plan, kind, options) {
            Ok(bytes) => {
                let all = *all.get_or_insert(bytes);
                println!(
                    "| `{options}` | {bytes:.0} | {:.1} % |",
                    100.0 * bytes / all
                );
            }
            Err(why) => println!("| `{options}` | NOT MEASURED: {why} | |"),
        }
    }
}

fn bytes(plan: &Plan, kind: &Kind, options: &str) -> Result<f64, String> {
    let interval = Duration::from_secs(1);
    let server = Server::agent(plan, kind, Way::Plain, interval, &[]);
    let crowd = Spec {
        login: login(options),
        zstd: options.contains("zstd"),
        ..server.clients(1)
    };
    let window = Loaded::gather(server, crowd, interval)?.window(SNAPSHOTS);
    Ok(window.report.bytes as f64 / window.report.deliveries() as f64)
}
