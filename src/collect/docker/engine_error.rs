//! Why a call to the engine failed.

use std::io;
use std::time::Duration;

use bollard::errors::Error as BollardError;

use crate::collect::causes::with_causes;

/// Timeout of one call.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Why a call to the engine failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EngineError {
    /// The container no longer exists.
    #[error("no such container")]
    Gone,
    /// The container's logging driver does not support reading the log.
    #[error("its logging driver does not support reading")]
    Unreadable,
    /// The engine cannot read the log to its end. The text is the engine's reason.
    #[error("container logs: {0}")]
    BrokenLog(String),
    /// The engine did not answer before the deadline.
    #[error("{call}: no answer within {} s", DEADLINE.as_secs())]
    Deadline {
        /// The name of the call.
        call: &'static str,
    },
    /// There was no connection, the engine reported an error, or the answer cannot be read.
    #[error("{call}: {reason}")]
    Failed {
        /// The name of the call.
        call: &'static str,
        /// Why the call failed, with all causes.
        reason: String,
    },
}

impl EngineError {
    pub(super) fn failed(call: &'static str, reason: &impl ToString) -> Self {
        Self::Failed {
            call,
            reason: reason.to_string(),
        }
    }
}

/// Maximum length of a reason, in characters. A longer reason is truncated.
const MAX_REASON_CHARS: usize = 300;

/// Turns an error of bollard into an [`EngineError`].
pub(crate) fn classify(call: &'static str, error: &BollardError) -> EngineError {
    match error {
        BollardError::RequestTimeoutError => EngineError::Deadline { call },
        // The status 409 means that the engine is removing the container.
        BollardError::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        } => EngineError::Gone,
        BollardError::DockerResponseServerError { message, .. }
            if message.contains("does not support reading") =>
        {
            EngineError::Unreadable
        }
        _ => {
            let mut reason = with_causes(error);
            if is_denied(error) {
                reason.push_str(
                    "; the agent must run as root or in the group that owns the socket (docker)",
                );
            }
            if let Some((cut, _)) = reason.char_indices().nth(MAX_REASON_CHARS) {
                reason.truncate(cut);
                reason.push('…');
            }
            EngineError::Failed { call, reason }
        }
    }
}

fn is_denied(error: &BollardError) -> bool {
    // For this error, bollard does not return the inner error as the source.
    if let BollardError::IOError { err } = error {
        return err.kind() == io::ErrorKind::PermissionDenied;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::classify;

    #[test]
    fn an_error_for_a_denied_socket_says_what_to_do() {
        for (kind, has_advice) in [
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::NotFound, false),
        ] {
            let error = io::Error::new(kind, "/run/docker.sock: text");
            let reason = classify("connect", &error.into()).to_string();
            assert!(reason.contains("/run/docker.sock"), "{reason}");
            assert_eq!(reason.contains("docker)"), has_advice, "{reason}");
        }
    }
}
