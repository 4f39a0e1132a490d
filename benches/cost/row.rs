//! A row of the table: the cost of one way to measure containers.

use std::fmt;
use std::time::Duration;

use crate::common::bars::Bars;
use crate::load::{Load, anonymous_mib, engine_processes, median, rss_mib, tree};
use crate::plan::Plan;

/// CPU time of the engine while no program measures containers, in seconds per minute. There is one value for each window.
pub(crate) struct Idle(Vec<f64>);

impl Idle {
    pub(crate) fn measure(plan: &Plan) -> Self {
        eprintln!("measuring: idle");
        let window = || Load::over(plan.window, engine_processes).per_minute(plan.window);
        Self((0..plan.idle_windows()).map(|_| window()).collect())
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|one| format!("{one:.2}")).collect();
        f.write_str(&all.join(", "))
    }
}

/// Medians of windows. CPU is in seconds per minute.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) own: f64,
    /// CPU time of the engine. [`Row::over`] subtracts the CPU time of the idle engine.
    pub(crate) engine: f64,
    pub(crate) rss_mib: f64,
    pub(crate) anonymous_mib: f64,
    /// The time of a round. `None` if the way has no rounds.
    pub(crate) latency_ms: Option<f64>,
    /// The reason why there are no figures.
    pub(crate) missing: Option<String>,
}

impl Row {
    /// Measures the processes `pids` in all windows of the plan.
    pub(crate) fn measure(name: &str, plan: &Plan, pids: impl Fn() -> Vec<u32>) -> Self {
        eprintln!("measuring: {name}");
        let windows: Vec<Self> = (0..plan.windows)
            .map(|_| Self::of_window(plan.window, &pids))
            .collect();
        let median_of =
            |figure: fn(&Self) -> f64| median(&windows.iter().map(figure).collect::<Vec<_>>());
        Self {
            name: name.to_owned(),
            own: median_of(|one| one.own),
            engine: median_of(|one| one.engine),
            rss_mib: median_of(|one| one.rss_mib),
            anonymous_mib: median_of(|one| one.anonymous_mib),
            latency_ms: None,
            missing: None,
        }
    }

    pub(crate) fn of_window(window: Duration, pids: impl Fn() -> Vec<u32>) -> Self {
        let before = Load::now(&pids());
        let engine = Load::over(window, engine_processes);
        let pids = pids();
        Self {
            name: String::new(),
            own: Load::now(&pids).since(&before).per_minute(window),
            engine: engine.per_minute(window),
            rss_mib: rss_mib(&pids),
            anonymous_mib: anonymous_mib(&pids),
            latency_ms: None,
            missing: None,
        }
    }

    /// A row that states why there are no figures.
    pub(crate) fn missing(name: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            own: f64::NAN,
            engine: f64::NAN,
            rss_mib: f64::NAN,
            anonymous_mib: f64::NAN,
            latency_ms: None,
            missing: Some(why),
        }
    }

    /// Checks the bars of the agent at its default intervals.
    pub(crate) fn check(&self, count: usize, bars: &mut Bars) {
        let own = 0.10 + 0.002 * count as f64;
        let what = format!("own CPU, {count} containers");
        bars.at_most(&what, self.own, own, "s/min");
        self.check_engine("as root", count, bars);
        if count <= 100 {
            let what = format!("RSS, {count} containers");
            bars.at_most(&what, self.rss_mib, 12.0, "MiB");
        }
    }

    /// Checks the bar of the CPU time that an agent causes in the engine.
    pub(crate) fn check_engine(&self, way: &str, count: usize, bars: &mut Bars) {
        let what = format!("CPU caused in the engine, {way}, {count} containers");
        bars.at_most(&what, self.engine, 0.2, "s/min");
    }

    /// Subtracts the mean CPU time of the idle engine from the engine's CPU time.
    pub(crate) fn over(self, before: &Idle, after: &Idle) -> Self {
        let all = [&before.0[..], &after.0[..]].concat();
        let idle = all.iter().sum::<f64>() / all.len() as f64;
        Self {
            engine: self.engine - idle,
            ..self
        }
    }
}

/// A function that returns the ids of a process and all its descendants.
pub(crate) fn processes_of(pid: u32) -> impl Fn() -> Vec<u32> {
    move || tree(pid)
}

pub(crate) fn print(rows: &[Row]) {
    println!(
        "| way | own CPU s/min | engine CPU added s/min | RSS MiB | anonymous MiB | ms per round |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for row in rows.iter().filter(|row| row.missing.is_none()) {
        let Row {
            name,
            own,
            engine,
            rss_mib,
            anonymous_mib,
            ..
        } = row;
        let latency = row
            .latency_ms
            .map_or_else(String::new, |ms| format!("{ms:.0}"));
        println!(
            "| {name} | {own:.3} | {engine:.2} | {rss_mib:.1} | {anonymous_mib:.1} | {latency} |"
        );
    }
    for row in rows {
        if let Some(why) = &row.missing {
            println!("\nNOTE: not measured: {}: {why}", row.name);
        }
    }
}
