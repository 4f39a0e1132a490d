//! Writes the page `docs/metrics.md` from the table in [`figures`](super::figures). The page lists every metric that the agent
//! publishes.
//!
//! `make docs` writes the page. A test compares the page with the table.

use std::fmt::Write;
use std::fs;

use super::figures::kernel::rows;
use super::figures::{MetricKind, families};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
const HEAD: &str = "\
# Metrics

These metrics are in `/metrics`. [prometheus.md](prometheus.md) shows how to scrape them. A metric that the host does not offer is absent.
`make docs` writes this page from the tables in `src/publish/figures.rs` and `src/publish/figures/kernel.rs`.

| metric | type | labels | meaning |
|---|---|---|---|
";

const KERNEL: &str = "
## The kernel's own figures

The agent reads these figures for a scrape, and for clients with the section [`kernel`](snapshot.md#kernel). They have the names of
node_exporter. The first word of the column `kernel` is the name of the collector for `collect[]` and `exclude[]`, and the key in the section
`kernel`. The second is the figure's name in that section. A `*` stands for any text. `METRICS_COLLECTORS` switches on the collectors
`interrupts`, `softirqs` and `tcpstat`, and the counts of the collector `processes`. [prometheus.md](prometheus.md#scrape-it) describes them.

| metric | type | kernel | meaning |
|---|---|---|---|
| `node_scrape_collector_success` | gauge | | Whether the figures of the collector could be read. Also 0 if the host does not have them |
| `node_scrape_collector_duration_seconds` | gauge | | How long the figures of the collector were read, in seconds |
| `node_textfile_mtime_seconds` | gauge | | Time of the last change of a text file that was read, in seconds since 1970 |
| `node_textfile_scrape_error` | gauge | | Whether a text file, or a metric of it, cannot be used |
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for family in families() {
        let (suffix, kind) = suffix_and_type(family.kind);
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
    page += KERNEL;
    for row in rows() {
        let (suffix, kind) = suffix_and_type(row.kind);
        let (name, family, field) = (row.name, row.family, row.field);
        let help = row.help;
        writeln!(
            page,
            "| `{name}{suffix}` | {kind} | `{family}`: `{field}` | {help} |"
        )
        .unwrap();
    }
    page
}

fn suffix_and_type(kind: MetricKind) -> (&'static str, &'static str) {
    match kind {
        MetricKind::Gauge => ("", "gauge"),
        MetricKind::Counter => ("_total", "counter"),
        MetricKind::Unknown => ("", "untyped"),
    }
}

#[test]
fn the_page_lists_every_metric() {
    assert_is_written(PAGE, &page());
}

/// Fails if the file of a page has another text. With `UPDATE_DOCS`, writes the file first.
pub(super) fn assert_is_written(path: &str, page: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, page).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        page == written,
        "make docs writes {path} again: {differs:#?}"
    );
}
