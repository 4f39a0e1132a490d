//! The connection to a server: as whom, by which way, and what becomes of it.

use std::future::ready;
use std::io;
use std::time::Duration;

use actix::{Message, Recipient};
use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, Server};
use nkeys::KeyPair;

use super::subject::Subjects;
use super::tls;
use crate::backoff::jittered;
use crate::settings::{NatsLogin, NatsSecret, NatsSettings, address_of};

/// The nominal pause before the second try at a server, which doubles with each further one, and the longest. Every pause lies
/// between half and the whole of that: agents that lost their server together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How often a server that is silent is asked whether it is still there; after the second question without an answer it is not.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// What waits to be written beside the connection's own buffer, in commands. One of a message stands for its text, which the
/// queue counts.
const MOST_COMMANDS: usize = 256;
/// What is read ahead, in bytes: nothing but acknowledgements comes.
const READ_AHEAD: u16 = 4096;

/// What becomes of the connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) enum ConnectionEvent {
    /// It is there, or is gone, or the server says something.
    Event(Event),
    /// A round of tries at all servers is over, and another one begins: with which addresses, and why not.
    Failed(Vec<(String, String)>),
}

/// Begins to connect, and to connect again whenever the connection is lost, for as long as the client lives.
///
/// # Errors
/// Where a server's name cannot be one.
pub(super) async fn connect(
    settings: &NatsSettings,
    subjects: &Subjects,
    news: Recipient<ConnectionEvent>,
) -> io::Result<Client> {
    let events = news.clone();
    let mut options = options(settings.login.clone())
        .name(format!("system-agent {}", subjects.host()))
        .retry_on_initial_connect()
        // Whom to trust with credentials is in the configuration.
        .ignore_discovered_servers()
        .reconnect_delay_callback(pause)
        .ping_interval(ASK_EVERY)
        .client_capacity(MOST_COMMANDS)
        .read_buffer_capacity(READ_AHEAD)
        .require_tls(settings.tls_required())
        .event_callback(move |event| {
            events.do_send(ConnectionEvent::Event(event));
            ready(())
        })
        .reconnect_to_server_callback(move |servers, _| {
            let failed: Vec<_> = servers.into_iter().filter_map(failure).collect();
            if !failed.is_empty() {
                news.do_send(ConnectionEvent::Failed(failed));
            }
            // Which one is tried next is not ours to say.
            ready(None)
        });
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &settings.identity {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    // In place of both.
    if let Some(config) = tls::client_config(settings) {
        options = options.tls_client_config(config);
    }
    options
        .connect(&settings.servers[..])
        .await
        .map_err(io::Error::other)
}

/// How a connection begins: with what proves to a server who one is.
pub(crate) fn options(login: Option<NatsLogin>) -> ConnectOptions {
    match login {
        Some(login) => {
            ConnectOptions::with_auth_callback(move |nonce| ready(answer(&login, &nonce)))
        }
        None => ConnectOptions::new(),
    }
}

fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let nominal = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST_PAUSE);
    jittered(nominal)
}

/// Why a server could not be connected to, when it was tried last.
fn failure(server: Server) -> Option<(String, String)> {
    let error = server.last_error?;
    Some((address_of(&server.addr), reason(&error).to_owned()))
}

/// A library's error without what only its makers understand.
pub(crate) fn reason(error: &str) -> &str {
    let ours = error.strip_prefix("failed signing nonce: AuthError(");
    let ours = ours.and_then(|ours| ours.strip_suffix(')'));
    let error = ours
        .or_else(|| error.strip_prefix("IO error: "))
        .unwrap_or(error);
    // What this agent itself says of a server's certificate.
    error.strip_prefix("other error: ").unwrap_or(error)
}

/// What proves to a server who one is, from the file as it is now.
fn answer(login: &NatsLogin, nonce: &[u8]) -> Result<Auth, AuthError> {
    let secret = login
        .load()
        .map_err(|problem| AuthError::new(format!("{}: {}", problem.variable, problem.text)))?;
    let sign = |seed: &str| {
        let pair = KeyPair::from_seed(seed).map_err(|_| AuthError::new("not a seed"))?;
        let signature = pair.sign(nonce).map_err(|_| AuthError::new("not signed"))?;
        Ok((pair.public_key(), signature))
    };
    let mut auth = Auth::new();
    match secret {
        NatsSecret::Credentials { jwt, seed } => {
            auth.signature = Some(sign(&seed)?.1);
            auth.jwt = Some(jwt.to_string());
        }
        NatsSecret::Seed(seed) => {
            let (public, signature) = sign(&seed)?;
            (auth.nkey, auth.signature) = (Some(public), Some(signature));
        }
        NatsSecret::Token(token) => auth.token = Some(token.to_string()),
        NatsSecret::Password(password) => {
            if let NatsLogin::Password(user, _) = login {
                auth.username = Some(user.clone());
            }
            auth.password = Some(password.to_string());
        }
    }
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FIRST_PAUSE, LONGEST_PAUSE, pause, reason};

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (attempts, nominal) in [
            (0, FIRST_PAUSE),
            (1, FIRST_PAUSE),
            (2, FIRST_PAUSE * 2),
            (4, Duration::from_secs(2)),
            (5, LONGEST_PAUSE),
            (usize::MAX, LONGEST_PAUSE),
        ] {
            let pause = pause(attempts);
            assert!(
                pause >= nominal / 2 && pause <= nominal,
                "{attempts}: {pause:?}"
            );
        }
    }

    #[test]
    fn reasons_are_as_they_were_meant() {
        let ours = "failed signing nonce: AuthError(NATS_TOKEN_FILE: the file is empty)";
        assert_eq!(reason(ours), "NATS_TOKEN_FILE: the file is empty");
        assert_eq!(reason("IO error: refused"), "refused");
        assert_eq!(reason("timed out"), "timed out");
        assert_eq!(reason("IO error: other error: no name"), "no name");
    }
}
