//! Tests of the pages that people read: README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md.
//!
//! The tests check that links lead to existing headings, that names exist, that log messages are listed, and that commands work.
//! The page `docs/snapshot.md` has tests of its own in `docs.rs`.

mod commands;
mod links;
mod log_messages;
mod names;
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the tree.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A page, by its path below the root.
struct Page {
    path: PathBuf,
    text: String,
}

/// A block of code in a page.
struct Block {
    /// The word after the opening fence, such as `sh`.
    language: String,
    /// The heading above the block, without its marks.
    heading: String,
    text: String,
}

impl Page {
    fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap();
        Self { path, text }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The blocks of code, in the order of the page.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut heading, mut is_open) = (String::new(), false);
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), is_open) {
                (Some(_), true) => is_open = false,
                (Some(language), false) => {
                    is_open = true;
                    blocks.push(Block {
                        language: language.to_owned(),
                        heading: heading.clone(),
                        text: String::new(),
                    });
                }
                (None, true) => {
                    let block = blocks.last_mut().unwrap();
                    block.text += line;
                    block.text.push('\n');
                }
                (None, false) if line.starts_with('#') => {
                    heading = line.trim_start_matches('#').trim().to_owned();
                }
                (None, false) => {}
            }
        }
        assert!(!is_open, "{}: a block of code has no end", self.name());
        blocks
    }

    /// The lines outside of blocks of code.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_open = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_open ^= is_fence;
            !is_open && !is_fence
        })
    }

    /// The texts in single backticks, outside of blocks of code.
    fn quoted(&self) -> Vec<&str> {
        let in_line = |line: &'_ str| {
            let start = line.as_ptr() as usize - self.text.as_ptr() as usize;
            let ranges = line.split('`').scan(start, |at, part| {
                let range = *at..*at + part.len();
                *at += part.len() + 1;
                Some(range)
            });
            ranges.skip(1).step_by(2).collect::<Vec<_>>()
        };
        self.prose()
            .flat_map(in_line)
            .map(|range| &self.text[range])
            .collect()
    }
}

/// All pages.
fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .to_vec();
    for file in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path.strip_prefix(ROOT).unwrap().to_owned());
        }
    }
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}
