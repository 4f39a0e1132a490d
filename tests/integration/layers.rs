//! Checks two rules on imports that the compiler does not check. The tests read the source files.
//! 1. Data flows one way. The stages `collect`, `aggregate` and `publish` import only the modules in [`SHARED`], and not
//!    each other.
//! 2. Modules do not import each other in a cycle.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const STAGES: [&str; 3] = ["collect", "aggregate", "publish"];
/// The modules that all stages may import. `fuzzing` and `recorded` exist only for tests.
const SHARED: [&str; 10] = [
    "model",
    "messages",
    "published",
    "settings",
    "supervisor",
    "backoff",
    "http_connection",
    "hash",
    "fuzzing",
    "recorded",
];

#[test]
fn stages_import_only_what_all_stages_share() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = modules_of(&src);
    let mut violations = Vec::new();
    for stage in STAGES {
        let files = rust_files(&src.join(stage));
        assert!(
            !files.is_empty(),
            "src/{stage} has no source files. Was it renamed?"
        );
        for file in files {
            let path = file.strip_prefix(&src).unwrap();
            let source = fs::read_to_string(&file).unwrap();
            for target in targets(&source, &module_of(path), &modules) {
                let module = target[0].as_str();
                if module != stage && !SHARED.contains(&module) {
                    violations.push(format!("src/{} imports crate::{module}", path.display()));
                }
            }
        }
    }
    assert!(
        violations.is_empty(),
        "a stage imports a module that is not in {SHARED:?}:\n{}",
        violations.join("\n")
    );
}

/// Imports of submodules count as imports of their module. Imports between a module and its parent are not a cycle.
#[test]
fn modules_do_not_import_each_other_in_a_cycle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cycles = Vec::new();
    for folder in [
        "src",
        "benches/cost",
        "benches/fanout",
        "benches/fleet",
        "benches/web",
        "tests/integration",
        "tests/faults",
    ] {
        let files = rust_files(&root.join(folder));
        let modules = modules_of(&root.join(folder));
        let mut edges = BTreeSet::new();
        for file in &files {
            let from = module_of(file.strip_prefix(root.join(folder)).unwrap());
            // Unit tests may import any module.
            let source = fs::read_to_string(file).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for to in targets(code, &from, &modules) {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if from.len() > common && to.len() > common {
                    let beside = |module: &[String]| module[..=common].join("::");
                    edges.insert((beside(&from), beside(&to)));
                }
            }
        }
        cycles.extend(
            cycles_in(&edges)
                .into_iter()
                .map(|cycle| format!("{folder}: {cycle}")),
        );
    }
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

#[test]
fn cycles_are_found() {
    let edges = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        cycles_in(&pairs.collect())
    };
    assert_eq!(
        edges(&[("a", "b"), ("b", "c"), ("a", "c")]),
        Vec::<String>::new()
    );
    assert_eq!(
        edges(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]),
        ["a, b, c"]
    );
    let modules: BTreeSet<Vec<String>> = ["a", "a::b", "a::c", "d"]
        .map(|name| name.split("::").map(str::to_owned).collect())
        .into();
    let from = ["a".to_owned(), "b".to_owned()];
    let source = "use super::c::{X, Y}; use crate::{d::{self, Z}, e}; fn f(_: super::super::d::T) {} // super::b";
    let found: Vec<_> = targets(source, &from, &modules)
        .into_iter()
        .map(|module| module.join("::"))
        .collect();
    assert_eq!(found, ["a::c", "d"]);
}

/// A long file on two topics must be split. A long file on one topic gives the reason in its head.
#[test]
fn a_file_of_over_600_lines_gives_a_reason_in_its_head() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut silent = Vec::new();
    for file in ["src", "benches", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
    {
        let source = fs::read_to_string(&file).unwrap();
        let says = source
            .lines()
            .take(20)
            .any(|line| line.starts_with("//!") && line.contains("This file is long: "));
        if source.lines().count() > 600 && !says {
            silent.push(file.display().to_string());
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// All modules of the crate whose root is in this folder.
fn modules_of(root: &Path) -> BTreeSet<Vec<String>> {
    let files = rust_files(root).into_iter();
    files
        .map(|file| module_of(file.strip_prefix(root).unwrap()))
        .collect()
}

/// The module of a file. `path` is relative to the crate's root.
fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<_> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "main" || last == "lib")
    {
        module.pop();
    }
    module
}

/// The existing modules that a source names with `crate::`, `system_agent::` or `super::`.
fn targets(
    source: &str,
    from: &[String],
    modules: &BTreeSet<Vec<String>>,
) -> BTreeSet<Vec<String>> {
    let code: String = source
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join(" ");
    let mut targets = BTreeSet::new();
    for prefix in ["crate::", "system_agent::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            if before.ends_with("::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                continue;
            }
            let mut base = match prefix {
                "crate::" | "system_agent::" => Vec::new(),
                _ => from[..from.len().saturating_sub(1)].to_vec(),
            };
            let mut rest = &code[at + prefix.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            for path in paths(rest) {
                let mut module = base.clone();
                for name in path {
                    module.push(name);
                    if !modules.contains(&module) {
                        module.pop();
                        break;
                    }
                }
                targets.insert(module);
            }
        }
    }
    targets.remove(from);
    // Every module may import the crate's root.
    targets.remove(&[] as &[String]);
    targets
}

/// The paths at the start of a text. `a::b` is one path, and `a::{b, c::d}` is several paths.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut all = Vec::new();
        let (mut level, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => level += 1,
                '}' if level > 0 => level -= 1,
                ',' | '}' if level == 0 => {
                    all.extend(paths(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return all;
    }
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    if name.is_empty() {
        return Vec::new();
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) => {
            let further = paths(rest);
            match further.is_empty() {
                true => vec![vec![name]],
                false => further
                    .into_iter()
                    .map(|path| [vec![name.clone()], path].concat())
                    .collect(),
            }
        }
        None => vec![vec![name]],
    }
}

/// The cycles: sets of modules in which each module reaches every other module of its set.
fn cycles_in(edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut reached = edges.clone();
    loop {
        let further: Vec<_> = reached
            .iter()
            .flat_map(|(a, b)| {
                let next = edges.iter().filter(move |(from, _)| from == b);
                next.map(move |(_, to)| (a.clone(), to.clone()))
            })
            .filter(|edge| !reached.contains(edge))
            .collect();
        if further.is_empty() {
            break;
        }
        reached.extend(further);
    }
    let members = |module: &String| -> BTreeSet<String> {
        let there = reached
            .iter()
            .filter(|(a, b)| a == module && reached.contains(&(b.clone(), a.clone())));
        there.map(|(_, b)| b.clone()).collect()
    };
    let cycles: BTreeSet<BTreeSet<String>> = edges
        .iter()
        .filter(|(a, b)| a != b)
        .map(|(a, _)| members(a))
        .filter(|cycle| cycle.len() > 1)
        .collect();
    let text = |cycle: &BTreeSet<String>| cycle.iter().cloned().collect::<Vec<_>>().join(", ");
    cycles.iter().map(text).collect()
}

#[test]
fn imports_are_found_in_every_form() {
    let names = [
        "aggregate",
        "app",
        "check",
        "collect",
        "messages",
        "model",
        "publish",
        "publish::socket",
        "telemetry",
    ];
    let modules: BTreeSet<Vec<String>> = names
        .map(|name| name.split("::").map(str::to_owned).collect())
        .into();
    let source = r"
        //! Not crate::commented nor super::super::either.
        use crate::model::Snapshot; // crate::check::trailing
        use crate::{messages::Tick, publish::{self, socket::S}, app};
        use super::tail;
        use super::super::collect;
        pub(crate) fn f(t: &crate::telemetry::T) -> system_agent::check::C {}
        pub(in crate::aggregate) mod g {}
    ";
    let found = |from: &[&str]| {
        let from: Vec<_> = from.iter().map(|&name| name.to_owned()).collect();
        let found = targets(source, &from, &modules).into_iter();
        found
            .map(|module| module.join("::"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    // A name that is not a module counts as the module that contains it. In a/b.rs two `super` lead to the crate's root. In
    // a/b/c.rs two `super` lead to the module `a`.
    let absolute = "a a::b aggregate app check messages model publish publish::socket telemetry";
    assert_eq!(found(&["a", "b", "c"]), absolute);
    let relative_too =
        "a aggregate app check collect messages model publish publish::socket telemetry";
    assert_eq!(found(&["a", "b"]), relative_too);
}

#[test]
fn a_module_has_the_name_of_its_file() {
    let module = |path: &str| module_of(Path::new(path)).join("::");
    assert_eq!(module("publish/mod.rs"), "publish");
    assert_eq!(module("publish/figures.rs"), "publish::figures");
    assert_eq!(module("collect/docker/mod.rs"), "collect::docker");
    assert_eq!(module("lib.rs"), "");
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
