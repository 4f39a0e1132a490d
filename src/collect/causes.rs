//! The causes of errors, which libraries often keep to themselves.

use std::error::Error;

/// The text of an error and of all its causes, without repetitions.
#[must_use]
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
