//! Tests parsers with random input, in addition to the property tests. The random input is made from real input by random
//! changes. Each test runs for `FUZZ_SECONDS` (default: 0.05 s).
//!
//! The fuzz test of a parser is in the parser's own module. Its name begins with `fuzz_`.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// Maximum length of an input, in bytes.
const MAX_INPUT: usize = 64 * 1024;
/// The texts that replace numbers.
const NUMBERS: [&str; 14] = [
    "",
    "0",
    "-1",
    "1",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "-1e400",
    "NaN",
    "inf",
    "0.0000000000001",
];
/// Bytes that have a meaning in one of the formats.
const TOKENS: [&[u8]; 22] = [
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"/",
    b"..",
    b"(",
    b") ",
    b"max",
    b"null",
    b"\xff\xfe",
    b"\xf0\x9f\x92\xa9",
    b"\\u0000",
];

/// Calls `parse` with randomly changed copies of `seeds`. If `parse` panics, the input is written to `target/fuzz`, and the test
/// fails.
pub(crate) fn run(name: &str, seeds: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    let seconds = env::var("FUZZ_SECONDS").map_or(0.05, |seconds| seconds.parse().unwrap());
    let (mut random, end) = (
        Rng::new(),
        Instant::now() + Duration::from_secs_f64(seconds),
    );
    let mut runs = 0_u64;
    while Instant::now() < end {
        let input = mutated(seeds, &mut random);
        runs += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| parse(&input))) {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
            let file = folder.join(format!("{name}-{runs}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &input).unwrap();
            println!(
                "{name}: panic; the input is in {}: {}",
                file.display(),
                input.escape_ascii()
            );
            resume_unwind(panic);
        }
    }
    println!("{name}: {runs} inputs in {seconds} s");
}

fn mutated(seeds: &[&[u8]], random: &mut Rng) -> Vec<u8> {
    let mut input = pick(seeds, random).to_vec();
    for _ in 0..random.usize(1..8) {
        let at = random.usize(0..=input.len());
        let until = (at + random.usize(0..64)).min(input.len());
        match random.u8(0..9) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => drop(input.drain(at..until)),
            3 => input.truncate(at),
            4 => insert(
                &mut input,
                at,
                &pick(&TOKENS, random).repeat(random.usize(1..4)),
            ),
            5 => {
                let again = input[at..until].repeat(random.usize(1..20));
                insert(&mut input, at, &again);
            }
            6 => {
                let other = pick(seeds, random);
                let from = random.usize(0..=other.len());
                insert(&mut input, at, &other[from..]);
            }
            7 => replace_number(&mut input, at, random),
            _ => {
                let noise: Vec<u8> = (0..random.usize(0..16)).map(|_| random.u8(..)).collect();
                insert(&mut input, at, &noise);
            }
        }
        input.truncate(MAX_INPUT);
    }
    input
}

fn pick<'s>(from: &[&'s [u8]], random: &mut Rng) -> &'s [u8] {
    from[random.usize(0..from.len())]
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

/// Replaces the first number at or after the offset `at`.
fn replace_number(input: &mut Vec<u8>, at: usize, random: &mut Rng) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(begin) = input[at..].iter().position(is_digit) else {
        return;
    };
    let begin = at + begin;
    let length = input[begin..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    let number = NUMBERS[random.usize(0..NUMBERS.len())];
    input.splice(begin..begin + length, number.bytes());
}
