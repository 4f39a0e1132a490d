//! The bars: what the agent may cost at most.

use crate::row::Row;

/// Every bar that was measured against, for the summary at the end.
#[derive(Default)]
pub(crate) struct Bars(Vec<(String, bool)>);

impl Bars {
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        // Not a number is no pass.
        let met = measured <= limit;
        let verdict = if met { "MET" } else { "MISSED" };
        let line = format!("bar: {what}: ≤ {limit:.2} {unit}, measured {measured:.2}: {verdict}");
        self.0.push((line, met));
    }

    /// The bars of the agent at its default intervals.
    pub(crate) fn check_agent(&mut self, count: usize, row: &Row) {
        let own = 0.10 + 0.002 * count as f64;
        self.at_most(
            &format!("own CPU, {count} containers"),
            row.own,
            own,
            "s/min",
        );
        self.at_most(
            &format!("CPU induced in the engine, {count} containers"),
            row.engine,
            0.2,
            "s/min",
        );
        if count <= 100 {
            self.at_most(
                &format!("RSS, {count} containers"),
                row.rss_mib,
                12.0,
                "MiB",
            );
        }
    }

    pub(crate) fn missed(&self) -> bool {
        self.0.iter().any(|(_, met)| !met)
    }

    pub(crate) fn print(&self) {
        println!("\n## Bars\n");
        for (line, _) in &self.0 {
            println!("{line}");
        }
    }
}
