//! What an earlier build put out for recorded input, in `tests/fixtures`: a change that is meant to change nothing is held to it.

use std::fs;
use std::path::Path;

/// Compares what this build puts out with what is recorded in `file`. With `UPDATE_RECORDED=1` it is recorded anew.
pub(crate) fn compare(file: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file);
    if std::env::var_os("UPDATE_RECORDED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, now).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    for (number, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "line {} of {file}", number + 1);
    }
    assert_eq!(recorded, now);
}
