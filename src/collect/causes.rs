//! Builds error messages that include the causes. Many libraries omit the cause in the message of an error.

use std::error::Error;

/// Returns the messages of an error and of all its causes, separated by `: `. Omits a cause that is already in the text.
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
