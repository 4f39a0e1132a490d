//! Checks that every link leads to a file and a heading that exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serial_test::parallel;

use super::{Page, ROOT, pages};

/// The targets of links and pictures: `[text](target)`.
fn targets(page: &Page) -> Vec<String> {
    let prose: Vec<&str> = page.prose().collect();
    let prose = prose.join("\n");
    let parts = prose.split("](").skip(1);
    parts
        .filter_map(|part| part.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.prose().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Resolves `..` in a path. `docs/../config` becomes `config`.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved
}

#[test]
#[parallel]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for page in pages() {
        for target in targets(&page) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() {
                page.path.clone()
            } else {
                resolved(&page.path.parent().unwrap().join(file))
            };
            let exists = Path::new(ROOT).join(&path).exists();
            if !exists || (!anchor.is_empty() && !anchors(&Page::read(&path)).contains(anchor)) {
                wrong.push(format!("{}: {target}", page.name()));
            }
        }
    }
    assert_eq!(
        wrong,
        Vec::<String>::new(),
        "these links lead to no file or heading"
    );
}

#[test]
#[parallel]
fn every_page_can_be_reached_by_links_from_the_readme() {
    let mut reached = BTreeSet::from([PathBuf::from("README.md")]);
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(path) = next.pop() {
        let page = Page::read(&path);
        for target in targets(&page) {
            let file = target.split('#').next().unwrap();
            let below = resolved(&path.parent().unwrap().join(file));
            if file.ends_with(".md") && !file.contains("://") && reached.insert(below.clone()) {
                next.push(below);
            }
        }
    }
    let unlinked: Vec<_> = pages()
        .into_iter()
        .filter(|page| !reached.contains(&page.path))
        .map(|page| page.name())
        .collect();
    assert_eq!(
        unlinked,
        Vec::<String>::new(),
        "no page links to these pages"
    );
}
