//! Settings from environment variables.

use std::env;

pub(crate) fn text(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

pub(crate) fn number(name: &str, default: &str) -> u64 {
    let parsed = text(name, default).parse();
    parsed.unwrap_or_else(|_| panic!("{name} must be a whole number"))
}

pub(crate) fn numbers(name: &str, default: &str) -> Vec<usize> {
    let list = text(name, default);
    let parsed = list.split(',').map(|one| one.trim().parse());
    let numbers: Result<_, _> = parsed.collect();
    numbers.unwrap_or_else(|_| panic!("{name} must be a list of whole numbers, but is: {list}"))
}
