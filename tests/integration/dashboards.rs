//! Tests of the dashboards and alerts as files. The tests in docker/dashboards.rs ask a Prometheus server for their figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serial_test::parallel;

use crate::support::dashboards::{
    Dashboard, alerts, all_queries, dashboards, expressions, metrics_in,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

#[test]
#[parallel]
fn the_files_are_those_that_the_script_writes() {
    let folder = tempfile::tempdir().unwrap();
    let written = Command::new("python3")
        .arg(Path::new(ROOT).join("config/grafana/dashboards.py"))
        .arg(folder.path())
        .status();
    assert!(written.unwrap().success());
    for dashboard in dashboards() {
        let written = std::fs::read_to_string(folder.path().join(dashboard.file)).unwrap();
        assert!(
            written == dashboard.text,
            "run `make dashboards`: config/grafana/{} differs from what the script writes",
            dashboard.file
        );
    }
}

/// Panels of the same kind have settings that Grafana needs. A problem panel says what an empty panel means.
#[test]
#[parallel]
fn every_panel_has_an_id_a_unit_and_a_source() {
    let source = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
    for dashboard in dashboards() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        let mut row = "";
        for panel in dashboard.panels() {
            let title = panel["title"].as_str().unwrap();
            let place = format!("{}: {title}", dashboard.file);
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{place}: the id is used twice"
            );
            if panel["type"] == "row" {
                row = title;
                continue;
            }
            assert!(
                titles.insert(title),
                "{place}: the title is used twice in the dashboard"
            );
            // These panels are part of Grafana. Others are plugins, and a gauge shows no more than a number.
            let kind = panel["type"].as_str().unwrap();
            assert!(
                ["stat", "table", "timeseries"].contains(&kind),
                "{place}: {kind}"
            );
            assert_eq!(panel["datasource"], source, "{place}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place}: no query");
            let references: BTreeSet<_> = targets.iter().map(|one| one["refId"].as_str()).collect();
            assert_eq!(
                references.len(),
                targets.len(),
                "{place}: a refId is used twice"
            );
            assert!(
                targets.iter().all(|one| one["datasource"] == source),
                "{place}"
            );
            if kind != "table" {
                let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
                assert!(
                    unit.is_some_and(|unit| !unit.is_empty()),
                    "{place}: no unit"
                );
            }
            if row == "Problems" {
                let description = panel["description"].as_str().unwrap_or_default();
                assert!(
                    description.contains("An empty table means"),
                    "{place}: {description}"
                );
            }
        }
        let first = &dashboard.panels()[0];
        assert_eq!(
            first["title"], "Problems",
            "{}: problems come first",
            dashboard.file
        );
    }
}

/// The cells of a dashboard's grid that a panel covers.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let of = |name: &str| panel["gridPos"][name].as_u64().unwrap();
    let rows = of("y")..of("y") + of("h");
    rows.flat_map(|y| (of("x")..of("x") + of("w")).map(move |x| (x, y)))
        .collect()
}

#[test]
#[parallel]
fn panels_do_not_overlap() {
    for dashboard in dashboards() {
        let mut taken = BTreeMap::new();
        for panel in dashboard.panels() {
            for cell in cells(panel) {
                assert!(
                    cell.0 < 24,
                    "{}: {} is too wide",
                    dashboard.file,
                    panel["title"]
                );
                let other = taken.insert(cell, &panel["title"]);
                assert!(
                    other.is_none(),
                    "{}: {other:?} and {}",
                    dashboard.file,
                    panel["title"]
                );
            }
        }
    }
}

/// The names of variables in a text: `$name` and `${name}`.
fn variables_in(text: &str) -> BTreeSet<&str> {
    let parts = text.split('$').skip(1);
    parts
        .map(|part| part.trim_start_matches('{'))
        .filter_map(|part| {
            part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
        })
        // `$1` is a part of a regular expression.
        .filter(|name| !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// All texts below a value.
fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}

fn names_of(dashboard: &Dashboard) -> BTreeSet<&str> {
    let variables = dashboard.variables().iter();
    variables.map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
#[parallel]
fn every_variable_of_a_dashboard_exists_and_is_used() {
    // Grafana's own variables.
    let built_in = ["__rate_interval", "__url_time_range", "__data", "__all"];
    for dashboard in dashboards() {
        let names = names_of(&dashboard);
        let mut found = Vec::new();
        texts(&dashboard.json, &mut found);
        let used: BTreeSet<&str> = found.into_iter().flat_map(variables_in).collect();
        let unknown: Vec<_> = used
            .iter()
            .filter(|name| !names.contains(*name) && !built_in.contains(name))
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", dashboard.file);
        assert!(names.is_subset(&used), "{}: {names:?}", dashboard.file);
        // A variable's query uses only variables before it.
        let mut before = BTreeSet::from(["datasource", "__all"]);
        for variable in dashboard.variables() {
            let mut found = Vec::new();
            texts(variable, &mut found);
            let used: BTreeSet<&str> = found.into_iter().flat_map(variables_in).collect();
            assert!(used.is_subset(&before), "{}: {variable}", dashboard.file);
            before.insert(variable["name"].as_str().unwrap());
        }
    }
}

/// A link leads to one of the dashboards, sets only variables that this dashboard has, and keeps the time range.
#[test]
#[parallel]
fn every_link_leads_to_a_dashboard() {
    let all = dashboards();
    let mut targets = BTreeSet::new();
    for dashboard in &all {
        let mut found = Vec::new();
        texts(&dashboard.json, &mut found);
        for url in found.into_iter().filter(|text| text.starts_with("/d/")) {
            let (path, query) = url.split_once('?').unwrap();
            let uid = path.split('/').nth(2).unwrap();
            let target = all.iter().find(|one| one.uid() == uid);
            let target = target.unwrap_or_else(|| panic!("{}: no dashboard {uid}", dashboard.file));
            targets.insert(uid.to_owned());
            for part in query
                .split('&')
                .filter(|part| *part != "${__url_time_range}")
            {
                // `${job:queryparam}` becomes `var-job=…`.
                let name = part.strip_prefix("${").map_or_else(
                    || {
                        part.strip_prefix("var-")
                            .and_then(|rest| rest.split('=').next())
                    },
                    |rest| rest.strip_suffix(":queryparam}"),
                );
                let names = names_of(target);
                assert!(
                    name.is_some_and(|name| names.contains(name)),
                    "{}: {url}",
                    dashboard.file
                );
            }
            let navigation = dashboard.json["links"].as_array().unwrap().iter();
            let keeps = navigation
                .filter(|link| link["url"] == url)
                .any(|link| link["keepTime"] == true);
            assert!(
                keeps || query.contains("${__url_time_range}"),
                "{}: {url}",
                dashboard.file
            );
        }
    }
    let uids: BTreeSet<String> = all.iter().map(|one| one.uid().to_owned()).collect();
    assert_eq!(uids.len(), all.len(), "a uid is used twice");
    assert_eq!(targets, uids, "a dashboard without a link to it");
}

/// The values that links read from a row of a table are columns of that table.
#[test]
#[parallel]
fn every_table_has_the_columns_that_its_links_and_settings_need() {
    for dashboard in dashboards() {
        let tables = dashboard.panels().iter();
        for panel in tables.filter(|panel| panel["type"] == "table") {
            let place = format!("{}: {}", dashboard.file, panel["title"]);
            let steps = panel["transformations"].as_array().unwrap();
            let kept = steps
                .iter()
                .find(|step| step["id"] == "filterFieldsByName")
                .unwrap();
            let kept = kept["options"]["include"]["names"].as_array().unwrap();
            let mut found = Vec::new();
            texts(&panel["fieldConfig"], &mut found);
            let needed = found
                .iter()
                .flat_map(|text| text.split("${__data.fields.").skip(1));
            let needed = needed.filter_map(|rest| rest.split('}').next());
            let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap().iter();
            let settings = overrides.map(|one| one["matcher"]["options"].as_str().unwrap());
            for name in needed.chain(settings) {
                assert!(
                    kept.iter().any(|one| one == name),
                    "{place}: no column {name}"
                );
            }
            // Grafana calls the column `Value` if there is one query, and `Value #A` if there are more.
            let queries = expressions(panel).len();
            let values = kept.iter().filter_map(Value::as_str);
            for name in values.filter(|name| name.starts_with("Value")) {
                let known = match (queries, name.strip_prefix("Value #")) {
                    (1, None) => true,
                    (2.., Some(letter)) => {
                        let mut targets = panel["targets"].as_array().unwrap().iter();
                        targets.any(|target| target["refId"] == letter)
                    }
                    _ => false,
                };
                assert!(known, "{place}: no query for the column {name}");
            }
        }
    }
}

/// `node_memory_*_bytes` of docs/metrics.md stands for `node_memory_MemFree_bytes`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() > before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        }
    }
}

#[test]
#[parallel]
fn every_metric_of_dashboards_and_alerts_is_in_the_list_of_metrics() {
    let page = read("docs/metrics.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let (mut unknown, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (place, queries) in all_queries() {
        for name in queries.iter().flat_map(|query| metrics_in(query)) {
            if !listed.iter().any(|pattern| fits(pattern, &name)) {
                unknown.insert(format!("{place}: {name}"));
            }
            seen.insert(name);
        }
    }
    assert_eq!(unknown, BTreeSet::new());
    assert!(
        seen.len() > 150,
        "only {} metrics were found: {seen:?}",
        seen.len()
    );
}

#[test]
#[parallel]
fn every_alert_is_complete() {
    let all = alerts();
    assert!(all.len() >= 40, "only {} alerts were found", all.len());
    let names: BTreeSet<&str> = all.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(
        names.len(),
        all.len(),
        "an alert has a name that is used twice"
    );
    for alert in &all {
        let has = |begin: &str| alert.lines.iter().any(|line| line.starts_with(begin));
        assert!(
            !alert.expression.is_empty(),
            "{}: no expression",
            alert.name
        );
        assert!(has("labels: { severity: "), "{}: no severity", alert.name);
        assert!(
            has("summary: \"{{ $labels.instance }}: "),
            "{}: no summary",
            alert.name
        );
        assert!(has("description: \""), "{}: no description", alert.name);
    }
}

/// Each alert of the rules has a case in which it fires, and a case in which it does not.
#[test]
#[parallel]
fn every_alert_has_tests() {
    let text = read("tests/fixtures/prometheus-rules-test.yml");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let (mut fires, mut is_silent) = (BTreeSet::new(), BTreeSet::new());
    for (at, line) in lines.iter().enumerate() {
        if let Some((_, name)) = line.split_once("alertname: ") {
            let name = name.trim_end_matches([' ', '}']);
            let next = lines[at + 1..].iter().take(2);
            let is_firing = next
                .take_while(|line| !line.contains("eval_time"))
                .any(|line| *line == "exp_alerts:" || line.starts_with("- exp_labels"));
            let cases = if is_firing {
                &mut fires
            } else {
                &mut is_silent
            };
            cases.insert(name.to_owned());
        }
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(fires, names, "alerts that fire in a test, and all alerts");
    assert_eq!(
        is_silent, names,
        "alerts that do not fire in a test, and all alerts"
    );
}
