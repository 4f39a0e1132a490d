//! Writes the page `docs/opentelemetry-metrics.md` from the tables. A test compares the page with the tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{CONTAINERS, HOST, Kind, NOT_SENT, NameSet, Set, sent};
use crate::publish::figures::{MetricKind, families};
use crate::publish::metrics_page::assert_is_written;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/opentelemetry-metrics.md");
const HEAD: &str = "\
# Metrics of OpenTelemetry

The agent sends these metrics to a receiver of OpenTelemetry. [opentelemetry.md](opentelemetry.md) shows how to set it up. A metric that the host
does not offer is absent. The names are those of the semantic conventions, where these have the figure, and begin with `system_agent.`
otherwise. Metrics of [other programs](prometheus.md#figures-of-other-programs) keep their names. The column `names` tells whether a metric is sent with `OTLP_NAMES=conventions`, with `OTLP_NAMES=receivers`, or with both. The last
column has the same figure in [metrics.md](metrics.md), which explains it. `make docs` writes this page from the tables in
`src/publish/otlp/metrics`.

";
const TABLE: &str = "| metric | unit | kind | names | in Prometheus |\n|---|---|---|---|---|\n";
const CONTAINER_HEAD: &str = "\n## Containers\n\nEach container is a resource of its own.\n\n";
const NOT_SENT_HEAD: &str = "\n## Not sent\n\n| in Prometheus | reason |\n|---|---|\n";

/// A line of the table, without its set of names.
type Line = (String, String, &'static str, Vec<String>);

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::UpDown => "up-down counter",
    }
}

/// Returns the full name of a family of Prometheus.
fn full_name(name: &str) -> String {
    let family = families().find(|family| family.name == name).unwrap();
    match family.kind {
        MetricKind::Counter => format!("`{name}_total`"),
        MetricKind::Gauge | MetricKind::Unknown => format!("`{name}`"),
    }
}

/// Returns a unit for a cell of a table. A state has no unit.
fn quoted(unit: &str) -> String {
    match unit {
        "" => String::new(),
        unit => format!("`{unit}`"),
    }
}

fn write_table(page: &mut String, lines: &[(NameSet, Line)]) {
    let mut sets: BTreeMap<Line, Vec<NameSet>> = BTreeMap::new();
    let mut merged: BTreeMap<(String, String, &str, bool), Vec<String>> = BTreeMap::new();
    let mut order: Vec<(String, String, &str, bool)> = Vec::new();
    for (names, line) in lines {
        sets.entry(line.clone()).or_default().push(*names);
    }
    for (_, line) in lines {
        let both = sets[line].len() > 1;
        let key = (line.0.clone(), line.1.clone(), line.2, both);
        let families = merged.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        for family in &line.3 {
            if !families.contains(family) {
                families.push(family.clone());
            }
        }
    }
    page.push_str(TABLE);
    for key in order {
        let (name, unit, kind, both) = &key;
        let of = |names: NameSet| {
            lines
                .iter()
                .any(|(set, line)| *set == names && (&line.0, &line.1) == (name, unit))
        };
        let names = match (both, of(NameSet::Conventions)) {
            (true, _) => "both",
            (false, true) => "conventions",
            (false, false) => "receivers",
        };
        let (families, unit) = (merged[&key].join(", "), quoted(unit));
        writeln!(
            page,
            "| `{name}` | {unit} | {kind} | {names} | {families} |"
        )
        .unwrap();
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let all = [NameSet::Conventions, NameSet::Receivers];
    let named = |families: &[&str]| {
        families
            .iter()
            .map(|name| full_name(name))
            .collect::<Vec<_>>()
    };
    let mut host = Vec::new();
    for names in all {
        for row in HOST.iter().filter(|row| row.set.has(names)) {
            let line = (
                row.name.to_owned(),
                row.unit.to_owned(),
                kind(row.kind),
                named(row.families),
            );
            host.push((names, line));
        }
        for one in families().filter_map(|family| sent(family, names)) {
            let line = (
                one.name,
                one.unit.to_owned(),
                kind(one.kind),
                named(&[one.family.name]),
            );
            host.push((names, line));
        }
    }
    write_table(&mut page, &host);
    page.push_str(CONTAINER_HEAD);
    page.push_str(TABLE);
    for row in CONTAINERS {
        let names = match row.set {
            Set::Both => "both",
            Set::Conventions => "conventions",
            Set::Receivers => "receivers",
        };
        let families = named(row.families).join(", ");
        let (name, unit, kind) = (row.name, quoted(row.unit), kind(row.kind));
        writeln!(
            page,
            "| `{name}` | {unit} | {kind} | {names} | {families} |"
        )
        .unwrap();
    }
    page.push_str(NOT_SENT_HEAD);
    for (name, reason) in NOT_SENT {
        writeln!(page, "| {} | {reason} |", full_name(name)).unwrap();
    }
    page
}

#[test]
fn the_metrics_page_lists_every_metric_of_opentelemetry() {
    assert_is_written(PAGE, &page());
}
