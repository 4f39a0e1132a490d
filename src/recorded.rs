//! What an earlier build put out for recorded input, in `tests/fixtures`: a change that is meant to change nothing is held to it.

use std::fs;
use std::path::Path;

/// What is recorded in `file`.
pub(crate) fn read(file: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_to_string(fixtures.join(file)).unwrap()
}

/// Compares what this build puts out with what is recorded in `file`.
pub(crate) fn compare(file: &str, now: &str) {
    let recorded = read(file);
    for (number, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "line {} of {file}", number + 1);
    }
    assert_eq!(recorded, now);
}
