//! The bars: limits that the measured values must meet.

/// All bars of the run, for the summary at the end.
#[derive(Default)]
pub(crate) struct Bars(Vec<(String, bool)>);

impl Bars {
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        // If nothing could be measured, the value is NaN. A comparison with NaN is false, so the bar is missed.
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
