//! Writes the page `docs/metrics.md` from the table in [`figures`](super::figures). The page lists every metric that the agent
//! publishes.
//!
//! `make docs` writes the page. A test compares the page with the table.

use std::fmt::Write;
use std::fs;

use super::figures::{MetricKind, families};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
const HEAD: &str = "\
# Metrics

These metrics are in `/metrics`. [prometheus.md](prometheus.md) shows how to scrape them. A metric that the host does not offer is absent.
`make docs` writes this page from the table in `src/publish/figures.rs`.

| metric | type | labels | meaning |
|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for family in families() {
        let (suffix, kind) = match family.kind {
            MetricKind::Gauge => ("", "gauge"),
            MetricKind::Counter => ("_total", "counter"),
            MetricKind::Unknown => ("", "untyped"),
        };
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        writeln!(
            page,
            "| `{}{suffix}` | {kind} | {} | {} |",
            family.name,
            labels.join(", "),
            family.help
        )
        .unwrap();
    }
    page
}

#[test]
fn the_page_lists_every_metric() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        page == written,
        "make docs writes docs/metrics.md again: {differs:#?}"
    );
}
