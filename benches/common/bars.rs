//! The bars: what the agent may take at most.

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

    pub(crate) fn missed(&self) -> bool {
        self.0.iter().any(|(_, met)| !met)
    }

    pub(crate) fn print(&self) {
        if !self.0.is_empty() {
            println!("\n## Bars\n");
        }
        for (line, _) in &self.0 {
            println!("{line}");
        }
    }
}
