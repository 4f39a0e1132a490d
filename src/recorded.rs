//! Compares the output of this build with the recorded output of an earlier build, in `tests/fixtures`. So a test can show that
//! a refactoring has not changed the output.

use std::fs;
use std::path::Path;

/// Returns the recorded text in `file`.
pub(crate) fn read(file: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_to_string(fixtures.join(file)).unwrap()
}

/// Compares `now`, the output of this build, with the recorded text in `file`. Panics at the first line that differs.
pub(crate) fn compare(file: &str, now: &str) {
    let recorded = read(file);
    for (number, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "line {} of {file}", number + 1);
    }
    assert_eq!(recorded, now);
}
