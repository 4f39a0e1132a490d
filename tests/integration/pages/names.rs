//! Checks that every variable, metric, field and test that a page names exists, and that every variable is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use serial_test::parallel;
use system_agent::model::HOST_SERIES;

use super::{Page, ROOT, pages};
use crate::configuration::GOOD;
use crate::support::schema::PUBLISHED;

/// The text of all files of the tree that are not pages. A name exists if it occurs in this text.
fn sources() -> String {
    let mut text = String::new();
    for below in [
        "src",
        "config",
        "examples",
        "tests",
        "benches",
        "release",
        "Makefile",
        "Cargo.toml",
    ] {
        append(&Path::new(ROOT).join(below), &mut text);
    }
    text
}

fn append(path: &Path, text: &mut String) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            append(&entry.unwrap().path(), text);
        }
    } else if !path.ends_with("tests/integration/pages/names.rs") {
        *text += &fs::read_to_string(path).unwrap_or_default();
        text.push('\n');
    }
}

/// Splits a text into words. A word consists of characters that `keeps` accepts.
fn words(text: &str, keeps: fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c: char| !keeps(c))
        .filter(|word| !word.is_empty())
}

/// The variables of the daemon, as config/agent.env lists them. A test of `configuration` checks that this file lists all
/// variables.
fn variables() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("config/agent.env")).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('='));
    names
        .map(|(name, _)| name.trim_start_matches('#'))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect()
}

#[test]
#[parallel]
fn the_page_about_configuration_lists_each_variable_once() {
    let page = Page::read("docs/configuration.md");
    let rows = page.prose().filter_map(|line| line.strip_prefix("| `"));
    let listed: Vec<String> = rows
        .filter_map(|row| row.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(unique, variables());
    assert_eq!(unique.len(), listed.len(), "a variable has two rows");
}

#[test]
#[parallel]
fn every_variable_in_a_page_exists() {
    let sources = sources();
    let is_variable = |word: &&str| {
        word.contains('_')
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    };
    let mut wrong = BTreeSet::new();
    for page in pages() {
        for quoted in page.quoted() {
            for word in words(quoted, |c| c.is_ascii_alphanumeric() || c == '_').filter(is_variable)
            {
                // Capabilities are the kernel's names.
                if !word.starts_with("CAP_") && !sources.contains(word) {
                    wrong.insert(format!("{}: {word}", page.name()));
                }
            }
        }
    }
    assert_eq!(
        wrong,
        BTreeSet::new(),
        "these variables are in no file of the tree"
    );
}

#[test]
#[parallel]
fn every_metric_in_a_page_exists() {
    let listed = Page::read("docs/metrics.md");
    let listed: BTreeSet<&str> = listed.quoted().into_iter().collect();
    let is_metric = |word: &&str| {
        ["node_", "container_", "system_agent_"]
            .iter()
            .any(|prefix| {
                word.strip_prefix(prefix)
                    .is_some_and(|rest| rest.contains('_'))
            })
            && !word.ends_with('_')
    };
    let mut wrong = BTreeSet::new();
    for page in pages() {
        for quoted in page.quoted() {
            // Texts such as `container_memory_working_set_bytes` are checked. Longer texts, such as queries, are not checked.
            let is_name = quoted
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_');
            // The log has the settings in lower case.
            let is_setting = GOOD.iter().any(|(name, _)| name.to_lowercase() == quoted);
            if is_name && is_metric(&quoted) && !is_setting && !listed.contains(quoted) {
                wrong.insert(format!("{}: {quoted}", page.name()));
            }
        }
    }
    assert_eq!(
        wrong,
        BTreeSet::new(),
        "docs/metrics.md does not list these metrics"
    );
}

/// Whether the schema has a field at a path such as `sources.docker.via` or `sources.*.interval_ms`.
fn has_field(schema: &Value, part: &Value, path: &[&str]) -> bool {
    if let Some(pointer) = part["$ref"].as_str() {
        return has_field(
            schema,
            schema.pointer(pointer.trim_start_matches('#')).unwrap(),
            path,
        );
    }
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    let first = first.trim_end_matches("[]");
    let options = [
        &part["properties"][first],
        &part["additionalProperties"],
        &part["items"],
    ];
    options
        .into_iter()
        .enumerate()
        .any(|(index, below)| match index {
            2 => below.is_object() && has_field(schema, below, path),
            _ => below.is_object() && has_field(schema, below, rest),
        })
        || (first == "*"
            && part["properties"]
                .as_object()
                .is_some_and(|all| all.values().any(|one| has_field(schema, one, rest))))
}

#[test]
#[parallel]
fn every_field_of_a_snapshot_in_a_page_exists() {
    let schema: Value = serde_json::from_str(PUBLISHED).unwrap();
    let sections: Vec<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut wrong = BTreeSet::new();
    // The metrics and attributes of OpenTelemetry have names like paths, such as `system.memory.limit`.
    let has_fields = |page: &Page| !page.name().starts_with("docs/opentelemetry");
    for page in pages().into_iter().filter(has_fields) {
        for quoted in page.quoted() {
            let is_path = quoted
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.[]*".contains(c));
            let path: Vec<&str> = quoted.split('.').collect();
            let section = path[0].trim_end_matches("[]");
            if is_path
                && path.len() > 1
                && sections.contains(&section)
                && path.last() != Some(&"rs")
                && path.last() != Some(&"env")
                && !HOST_SERIES.contains(&quoted)
                && !has_field(&schema, &schema, &path)
            {
                wrong.insert(format!("{}: {quoted}", page.name()));
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new(), "snapshots do not have these fields");
}

/// `docker::logs::a_line_…` stands for all tests whose names begin with `a_line_`.
#[test]
#[parallel]
fn every_test_in_a_page_exists() {
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for name in ["docs/security.md", "docs/fleet.md"] {
        for quoted in Page::read(name).quoted() {
            let Some((module, test)) = quoted.rsplit_once("::") else {
                continue;
            };
            if quoted.contains(' ')
                || module.starts_with("system_agent")
                || module.starts_with("publish")
            {
                continue;
            }
            seen += 1;
            let path = format!("tests/integration/{}", module.replace("::", "/"));
            let text = [format!("{path}.rs"), format!("{path}/mod.rs")]
                .iter()
                .find_map(|file| fs::read_to_string(Path::new(ROOT).join(file)).ok())
                .unwrap_or_default();
            let exists = match test.strip_suffix('…') {
                Some(begin) => text.contains(&format!("fn {begin}")),
                None => text.contains(&format!("fn {test}(")),
            };
            if !exists {
                wrong.insert(format!("{name}: {quoted}"));
            }
        }
    }
    assert!(seen > 30, "only {seen} names of tests were found");
    assert_eq!(wrong, BTreeSet::new(), "these tests do not exist");
}
