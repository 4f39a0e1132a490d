//! `system-agent update`: tells whether a newer release exists.

use system_agent::command_line::UpdateArguments;
use system_agent::update::{UpdateError, VERSION, newer_release};

use super::{block_on, complain, say, variables};

/// The variable with the URL of the folder of releases.
const UPDATE_URL: &str = "UPDATE_URL";
/// The exit status if a newer release exists.
const NEWER_EXISTS: i32 = 10;

/// Prints whether a newer release exists. Returns the exit status.
pub(super) fn run(arguments: &UpdateArguments) -> i32 {
    let Some((origin, folder)) = url(arguments) else {
        complain(format_args!(
            "update: no URL of releases; give --url URL or set {UPDATE_URL}"
        ));
        return 1;
    };
    let folder = folder.trim_end_matches('/');
    match block_on(newer_release(folder)) {
        Ok(None) => {
            say(format!("system-agent {VERSION} is the newest release.").as_bytes());
            0
        }
        Ok(Some(newer)) => {
            let line = format!(
                "system-agent {newer} is available; this is {VERSION}. How to install it: {folder}/install.sh"
            );
            say(line.as_bytes());
            NEWER_EXISTS
        }
        Err(error @ UpdateError::Url(_)) => {
            complain(format_args!("update: {origin}: {error}"));
            1
        }
        Err(error) => {
            complain(format_args!("update: {error}"));
            1
        }
    }
}

/// Returns the URL of the folder of releases, and the option or the variable that has it. An empty variable counts as unset.
fn url(arguments: &UpdateArguments) -> Option<(&'static str, String)> {
    if let Some(url) = &arguments.url {
        return Some(("--url", url.clone()));
    }
    let variable = variables()
        .into_iter()
        .find(|(name, value)| name == UPDATE_URL && !value.is_empty());
    let (_, url) = variable?;
    // A URL with other characters is refused.
    Some((UPDATE_URL, url.to_string_lossy().into_owned()))
}
