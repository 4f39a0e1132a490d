//! Data flows one way: the stages `collect`, `aggregate` and `publish` share `model`, `messages`, `published`, `settings` and `backoff`, may
//! tell the `supervisor` how they are, and know nothing of one another. The compiler does
//! not hold that rule, so this does, by reading the sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const STAGES: [&str; 3] = ["collect", "aggregate", "publish"];
/// `fuzzing` and `recorded` are there for tests only.
const SHARED: [&str; 8] = [
    "model",
    "messages",
    "published",
    "settings",
    "supervisor",
    "backoff",
    "fuzzing",
    "recorded",
];

#[test]
fn stages_import_only_what_all_stages_share() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for stage in STAGES {
        let files = rust_files(&src.join(stage));
        assert!(
            !files.is_empty(),
            "src/{stage} has no sources: was it renamed?"
        );
        for file in files {
            let path = file.strip_prefix(&src).unwrap();
            let source = fs::read_to_string(&file).unwrap();
            for module in imports(&source, depth(path)) {
                if module != stage && !SHARED.contains(&module.as_str()) {
                    violations.push(format!("src/{} imports crate::{module}", path.display()));
                }
            }
        }
    }
    assert!(
        violations.is_empty(),
        "a stage reaches outside {SHARED:?}:\n{}",
        violations.join("\n")
    );
}

#[test]
fn imports_are_found_in_every_form() {
    let source = r"
        //! Not crate::commented nor super::super::either.
        use crate::model::Snapshot; // crate::trailing
        use crate::{messages::Tick, publish::{self, socket}, app};
        use super::tail;
        use super::super::collect;
        pub(crate) fn f(t: &crate::telemetry::T) -> system_agent::check::C {}
        pub(in crate::aggregate) mod g {}
    ";
    let names = |depth| {
        let found: Vec<_> = imports(source, depth).into_iter().collect();
        found.join(" ")
    };
    // In a/b.rs two `super` lead to the crate's root; in a/b/c.rs they do not.
    let absolute = "aggregate app check messages model publish telemetry";
    assert_eq!(names(3), absolute);
    let relative_too = "aggregate app check collect messages model publish telemetry";
    assert_eq!(names(2), relative_too);
}

#[test]
fn depth_counts_modules_from_the_crates_root() {
    assert_eq!(depth(Path::new("publish/mod.rs")), 1);
    assert_eq!(depth(Path::new("publish/figures.rs")), 2);
    assert_eq!(depth(Path::new("collect/docker/mod.rs")), 2);
    assert_eq!(depth(Path::new("collect/docker/stats.rs")), 3);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// How many modules deep the file is, from its path under `src`.
fn depth(path: &Path) -> usize {
    let components = path.components().count();
    if path.ends_with("mod.rs") {
        components - 1
    } else {
        components
    }
}

/// The crate's top-level modules that `source`, a file of a module `depth` deep, names in a path.
fn imports(source: &str, depth: usize) -> BTreeSet<String> {
    let code = source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n");
    let root_by_super = "super::".repeat(depth);
    let mut modules = BTreeSet::new();
    for prefix in ["crate::", "system_agent::", &root_by_super] {
        for (at, _) in code.match_indices(prefix) {
            let continues = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !continues {
                modules.extend(heads(&code[at + prefix.len()..]));
            }
        }
    }
    // A longer chain of `super` than reaches the root does not compile; its tail is not a module's name.
    modules.remove("super");
    modules
}

/// The first names of a path: one for `a::b`, several for `{a::b, c}`.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut heads = Vec::new();
    let (mut level, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                heads.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}
