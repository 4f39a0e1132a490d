//! The dashboards in config/grafana and the alerts in config/prometheus-rules.yml, as the tests read them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The dashboards, by the names of their files.
const FILES: [(&str, &str); 3] = [
    (
        "fleet.json",
        include_str!("../../../config/grafana/fleet.json"),
    ),
    (
        "host.json",
        include_str!("../../../config/grafana/host.json"),
    ),
    (
        "container.json",
        include_str!("../../../config/grafana/container.json"),
    ),
];

const RULES: &str = include_str!("../../../config/prometheus-rules.yml");

/// A dashboard of Grafana.
pub(crate) struct Dashboard {
    pub(crate) file: &'static str,
    pub(crate) text: &'static str,
    pub(crate) json: Value,
}

/// All dashboards.
pub(crate) fn dashboards() -> Vec<Dashboard> {
    let read = |(file, text): (&'static str, &'static str)| Dashboard {
        file,
        text,
        json: serde_json::from_str(text).unwrap(),
    };
    FILES.into_iter().map(read).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Dashboard {
    pub(crate) fn uid(&self) -> &str {
        self.json["uid"].as_str().unwrap()
    }

    pub(crate) fn panels(&self) -> &[Value] {
        array(&self.json["panels"])
    }

    pub(crate) fn variables(&self) -> &[Value] {
        array(&self.json["templating"]["list"])
    }

    /// The panel with this title.
    pub(crate) fn panel(&self, title: &str) -> &Value {
        let mut panels = self.panels().iter();
        let panel = panels.find(|panel| panel["title"] == title && panel["type"] != "row");
        panel.unwrap_or_else(|| panic!("{}: no panel {title}", self.file))
    }
}

/// The queries of a panel.
pub(crate) fn expressions(panel: &Value) -> Vec<&str> {
    let targets = array(&panel["targets"]).iter();
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// The query in a variable: `label_values(selector, label)` as `count by (label) (selector)`.
pub(crate) fn listing(variable: &Value) -> Option<String> {
    let query = variable["query"]["query"].as_str()?;
    let inner = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).unwrap();
    Some(format!("count by ({label}) ({selector})"))
}

/// An alert of the rules file.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    /// The lines of the rule.
    pub(crate) lines: Vec<String>,
}

/// The alerts of the rules file. Reads the layout that the file has, not all of YAML: `promtool` checks the rest.
pub(crate) fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    let mut is_folded = false;
    for line in RULES.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("- alert: ") {
            alerts.push(Alert {
                name: name.to_owned(),
                expression: String::new(),
                lines: Vec::new(),
            });
        }
        let Some(alert) = alerts.last_mut() else {
            continue;
        };
        alert.lines.push(text.to_owned());
        let is_deep = line.starts_with("          ");
        if let Some(expression) = text.strip_prefix("expr: ") {
            is_folded = expression == ">";
            if !is_folded {
                expression.clone_into(&mut alert.expression);
            }
        } else if is_folded && is_deep {
            alert.expression += text;
            alert.expression.push(' ');
        } else {
            is_folded = false;
        }
    }
    alerts
}

/// A query without its filters: a comparison returns 0 or 1 in place of no series, so that a healthy host answers, too.
pub(crate) fn unfiltered(query: &str) -> String {
    let words = query.split_whitespace().map(|word| match word {
        "==" | "!=" | "<" | "<=" | ">" | ">=" => format!("{word} bool"),
        word => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Replaces the variables of a dashboard, such as `$job`.
pub(crate) fn filled(query: &str, values: &[(&str, &str)]) -> String {
    let replace =
        |text: String, (name, value): &(&str, &str)| text.replace(&format!("${name}"), value);
    values.iter().fold(query.to_owned(), replace)
}

/// The names of metrics in a query. Skips texts in quotes, and labels in braces.
pub(crate) fn metrics_in(query: &str) -> BTreeSet<String> {
    let (mut outside, mut is_quoted, mut depth) = (String::new(), false, 0);
    for c in query.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => depth += 1,
            '}' if !is_quoted => depth -= 1,
            _ if !is_quoted && depth == 0 => outside.push(c),
            _ => {}
        }
        if is_quoted || depth > 0 {
            outside.push(' ');
        }
    }
    // A variable finds two metrics by their name.
    if let Some((_, names)) = query.split_once("__name__=~\"") {
        outside.push(' ');
        outside += &names
            .split('"')
            .next()
            .unwrap_or_default()
            .replace('|', " ");
    }
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let of_ours = [
        "node_",
        "container_",
        "system_agent_",
        "machine_",
        "process_",
    ];
    words
        .filter(|word| of_ours.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// All queries of dashboards, their variables and the rules, by the place where they are.
pub(crate) fn all_queries() -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dashboard in dashboards() {
        for panel in dashboard.panels() {
            let place = format!("{}: {}", dashboard.file, panel["title"]);
            let expressions = expressions(panel).into_iter().map(str::to_owned);
            all.entry(place).or_default().extend(expressions);
        }
        for variable in dashboard.variables() {
            let place = format!("{}: variable {}", dashboard.file, variable["name"]);
            all.entry(place).or_default().extend(listing(variable));
        }
    }
    for alert in alerts() {
        let place = format!("alert {}", alert.name);
        all.entry(place).or_default().push(alert.expression);
    }
    all
}
