//! Checks that docs/operations.md lists every message that the agent logs at the levels `info`, `warn` and `error`, with its
//! fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serial_test::parallel;

use super::{Page, ROOT};

/// A message of the log, as its row in the page shows it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    level: String,
    text: String,
    fields: BTreeSet<String>,
}

/// Finds all messages in the source files below a folder, without the messages of unit tests.
fn logged(folder: &Path, messages: &mut BTreeSet<Message>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            logged(&path, messages);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let source: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
            find(source, messages);
        }
    }
}

fn find(tokens: TokenStream, messages: &mut BTreeSet<Message>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut is_of_tests = false;
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let before = |back: usize| index.checked_sub(back).map(|at| tokens[at].to_string());
        if group.delimiter() == Delimiter::Bracket && before(1).as_deref() == Some("#") {
            is_of_tests |= group.stream().to_string().replace(' ', "") == "cfg(test)";
            continue;
        }
        let level = before(2).filter(|_| before(1).as_deref() == Some("!"));
        match level.as_deref() {
            Some(level @ ("info" | "warn" | "error")) => {
                messages.insert(message(level, group.stream()))
            }
            // Skips a module of unit tests.
            _ if is_of_tests && before(2).as_deref() == Some("mod") => false,
            _ => {
                find(group.stream(), messages);
                false
            }
        };
        is_of_tests = false;
    }
}

/// Reads the arguments of a log macro: first the fields, and then the text.
fn message(level: &str, arguments: TokenStream) -> Message {
    let mut parts: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for token in arguments {
        match &token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => parts.push(Vec::new()),
            _ => parts.last_mut().unwrap().push(token),
        }
    }
    let (mut text, mut fields) = (String::new(), BTreeSet::new());
    // All parts after the text are arguments of the text, not fields.
    for part in parts.iter().filter(|part| !part.is_empty()) {
        match &part[0] {
            TokenTree::Literal(literal) => {
                text = syn::parse_str::<syn::LitStr>(&literal.to_string())
                    .unwrap()
                    .value();
                break;
            }
            TokenTree::Punct(_) => {
                fields.insert(part[1].to_string());
            }
            TokenTree::Ident(name) => {
                fields.insert(name.to_string());
            }
            TokenTree::Group(_) => panic!("a message that this test cannot read: {part:?}"),
        }
    }
    let level = level.to_owned();
    Message {
        level,
        text,
        fields,
    }
}

/// The rows of the page: `| level | message | fields | meaning |`.
fn documented() -> BTreeSet<Message> {
    let page = Page::read("docs/operations.md");
    let rows = page.prose().skip_while(|line| *line != "## The log");
    let rows = rows.filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| ["info", "warn", "error"].contains(&cells[0]))
        .map(|cells| Message {
            level: cells[0].to_owned(),
            text: cells[1].trim_matches('`').to_owned(),
            fields: cells[2]
                .split([',', ' '])
                .map(|field| field.trim_matches('`'))
                .filter(|field| !field.is_empty())
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}

#[test]
#[parallel]
fn the_page_lists_every_message_with_its_fields() {
    let mut messages = BTreeSet::new();
    logged(&Path::new(ROOT).join("src"), &mut messages);
    let documented = documented();
    let undocumented: Vec<_> = messages.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&messages).collect();
    assert!(
        undocumented.is_empty(),
        "docs/operations.md does not list: {undocumented:#?}"
    );
    assert!(
        unknown.is_empty(),
        "docs/operations.md lists messages that the agent does not log: {unknown:#?}"
    );
}
