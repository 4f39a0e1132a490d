//! The connection to a NATS server. Sets the options, reads the credentials, retries, and sends events to the publisher.

use std::future::ready;
use std::io;
use std::time::Duration;

use actix::{Message, Recipient};
use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, Server};
use nkeys::KeyPair;
use tokio_rustls::rustls::ClientConfig;

use super::subject::Subjects;
use crate::backoff::jittered;
use crate::publish::server_tls;
use crate::settings::{NatsLogin, NatsSecret, NatsSettings, address_of};

/// The nominal back-off after the first failed attempt to connect. The nominal back-off doubles after each further failure.
///
/// The real back-off is random, between half of the nominal back-off and the whole. Agents that lose their server at the same
/// time then do not reconnect at the same time.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// Limit on the nominal back-off.
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// Interval of pings to a silent server. The connection counts as lost after two pings without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Limit on the commands that wait until the NATS library handles them. A command can contain the text of a message. The queue
/// counts the memory of this text.
const MAX_COMMANDS: usize = 256;
/// Size of the read buffer in bytes. The buffer is small, because the server sends only short answers.
const READ_BUFFER: u16 = 4096;

/// An event of the connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) enum ConnectionEvent {
    /// An event of the NATS library. For example, the connection is established or lost, or the server has sent an error.
    Event(Event),
    /// The agent could not connect to any server. The value has the address of each server and the reason. The agent tries again.
    Failed(Vec<(String, String)>),
}

/// Starts to connect, and returns a client. The client reconnects each time that the connection is lost. Sends events of the
/// connection to `observer`.
///
/// # Errors
/// Fails if the name of a server is invalid.
pub(super) async fn connect(
    settings: &NatsSettings,
    subjects: &Subjects,
    observer: Recipient<ConnectionEvent>,
) -> io::Result<Client> {
    let events = observer.clone();
    let mut options = options(settings.login.clone())
        .name(format!("system-agent {}", subjects.host()))
        .retry_on_initial_connect()
        // The agent sends its credentials only to configured servers.
        .ignore_discovered_servers()
        .reconnect_delay_callback(pause)
        .ping_interval(PING_INTERVAL)
        .client_capacity(MAX_COMMANDS)
        .read_buffer_capacity(READ_BUFFER)
        .require_tls(settings.tls_required())
        .event_callback(move |event| {
            events.do_send(ConnectionEvent::Event(event));
            ready(())
        })
        .reconnect_to_server_callback(move |servers, _| {
            let failed: Vec<_> = servers.into_iter().filter_map(failure).collect();
            if !failed.is_empty() {
                observer.do_send(ConnectionEvent::Failed(failed));
            }
            // The library chooses the next server.
            ready(None)
        });
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &settings.identity {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    // This configuration replaces the authorities and the client certificate that are set above.
    if let Some(config) = tls_config(settings) {
        options = options.tls_client_config(config);
    }
    options
        .connect(&settings.servers[..])
        .await
        .map_err(io::Error::other)
}

/// Returns the TLS configuration for connections to servers. Returns None if TLS is not required, or if a file cannot be used. If
/// this function returns None, the NATS library makes the configuration, and reports the error in the file.
fn tls_config(settings: &NatsSettings) -> Option<ClientConfig> {
    if !settings.tls_required() {
        return None;
    }
    // If the agent passes a configuration, the library also reads the system's certificates, and fails if a certificate is
    // invalid. If the agent passes only a CA file, the library does not read the system's certificates. Therefore, the agent
    // passes only the CA file if a certificate of the system is invalid.
    if settings.ca.is_some() && !rustls_native_certs::load_native_certs().errors.is_empty() {
        return None;
    }
    let identity = settings.identity.as_ref();
    server_tls::client_config(
        settings.ca.as_deref(),
        identity.map(|(certificate, key)| (&**certificate, &**key)),
    )
}

/// Returns the options of a connection. If `login` is set, the client authenticates with these credentials.
pub(crate) fn options(login: Option<NatsLogin>) -> ConnectOptions {
    match login {
        Some(login) => {
            ConnectOptions::with_auth_callback(move |nonce| ready(answer(&login, &nonce)))
        }
        None => ConnectOptions::new(),
    }
}

/// Returns the random back-off after a number of failed attempts.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let nominal = MIN_BACKOFF
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(MAX_BACKOFF);
    jittered(nominal)
}

/// Returns the address of a server, and the reason why the newest attempt to connect to the server failed. Returns None if no
/// attempt has failed.
fn failure(server: Server) -> Option<(String, String)> {
    let error = server.last_error?;
    Some((address_of(&server.addr), reason(&error).to_owned()))
}

/// Shortens an error text of the library: removes prefixes that mean nothing to an administrator.
pub(crate) fn reason(error: &str) -> &str {
    let ours = error.strip_prefix("failed signing nonce: AuthError(");
    let ours = ours.and_then(|ours| ours.strip_suffix(')'));
    let error = ours
        .or_else(|| error.strip_prefix("IO error: "))
        .unwrap_or(error);
    // The library puts this prefix before the agent's own errors about the certificate of a server.
    error.strip_prefix("other error: ").unwrap_or(error)
}

/// Reads the credentials from their file, and returns the answer to the server's authentication request.
fn answer(login: &NatsLogin, nonce: &[u8]) -> Result<Auth, AuthError> {
    let secret = login
        .load()
        .map_err(|problem| AuthError::new(format!("{}: {}", problem.variable, problem.text)))?;
    let sign = |seed: &str| {
        let pair = KeyPair::from_seed(seed).map_err(|_| AuthError::new("the seed is invalid"))?;
        let signature = pair
            .sign(nonce)
            .map_err(|_| AuthError::new("the seed cannot sign"))?;
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

    use super::{MAX_BACKOFF, MIN_BACKOFF, pause, reason};

    #[test]
    fn the_back_off_doubles_up_to_the_limit() {
        for (attempts, nominal) in [
            (0, MIN_BACKOFF),
            (1, MIN_BACKOFF),
            (2, MIN_BACKOFF * 2),
            (4, Duration::from_secs(2)),
            (5, MAX_BACKOFF),
            (usize::MAX, MAX_BACKOFF),
        ] {
            let pause = pause(attempts);
            assert!(
                pause >= nominal / 2 && pause <= nominal,
                "{attempts}: {pause:?}"
            );
        }
    }

    #[test]
    fn error_texts_of_the_library_are_shortened() {
        let ours = "failed signing nonce: AuthError(NATS_TOKEN_FILE: the file is empty)";
        assert_eq!(reason(ours), "NATS_TOKEN_FILE: the file is empty");
        assert_eq!(reason("IO error: refused"), "refused");
        assert_eq!(reason("timed out"), "timed out");
        assert_eq!(reason("IO error: other error: no name"), "no name");
    }
}
