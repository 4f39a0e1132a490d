//! Reloads keys and certificates while the agent runs: at SIGHUP, and when their files change. Warns of certificates that expire
//! soon.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::messages::Reports;
use crate::settings::{ApiKey, ApiKeys, CredentialSources, Credentials, Stamps, Tls};

/// The interval at which the thread checks the files for changes. A check costs a few system calls.
///
/// The thread reads changed files only after two checks in a row have found the same state. So the thread reads no file that is
/// half written, and no new certificate together with the old key.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// After this time, files that could not be used are read again, even if they are unchanged. The cause of the failure can have
/// been temporary.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The interval of warnings about the expiry of a certificate.
const DAY: Duration = Duration::from_secs(86_400);

/// A handle that requests a reload of the credentials.
#[derive(Debug, Clone)]
pub struct Renewal(Option<SyncSender<()>>);

impl Renewal {
    /// Starts a thread that follows the files of `sources` and sends reloaded credentials to `newest`. It is a separate thread,
    /// because a file system can hang. If no credentials are in files, no thread is started.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn follow(
        sources: CredentialSources,
        newest: watch::Sender<Arc<Credentials>>,
        reports: Arc<Reports>,
    ) -> io::Result<Self> {
        if sources.files().next().is_none() {
            return Ok(Self(None));
        }
        // One waiting request is enough, because a reload reads all files.
        let (requests, requested) = sync_channel(1);
        let read = sources.stamps();
        let follower = Follower {
            seen: read.clone(),
            unusable: None,
            read,
            sources,
            newest,
            reports,
            warned: SystemTime::now(),
        };
        thread::Builder::new()
            .name("credentials".to_owned())
            .spawn(move || follower.run(&requested))?;
        Ok(Self(Some(requests)))
    }

    /// Requests a reload now.
    pub fn request(&self) {
        match &self.0 {
            Some(requests) => drop(requests.try_send(())),
            None => info!("no credentials to reload: none are in files"),
        }
    }
}

/// Logs warnings about short keys and tokens, about files that other users can read or write, and about a certificate that
/// expires soon.
pub fn warn_of(credentials: &Credentials, sources: &CredentialSources) {
    let weak = |keys: &ApiKeys| -> Vec<Arc<str>> {
        let weak = keys.iter().filter(|key| key.is_weak());
        weak.map(|key| Arc::clone(key.name())).collect()
    };
    for key in weak(&credentials.keys) {
        warn!(%key, "the key is short and can be guessed: use at least 16 characters");
    }
    for token in credentials.metrics_tokens.iter().flat_map(weak) {
        warn!(%token, "the token is short and can be guessed: use at least 16 characters");
    }
    for problem in sources.exposed() {
        warn!(variable = problem.variable, "{}", problem.text);
    }
    warn_of_end(credentials);
}

/// Logs a warning about a certificate that is not valid now, or expires soon.
fn warn_of_end(credentials: &Credentials) {
    let validity = credentials.tls.as_ref().and_then(Tls::validity);
    let Some(validity) = validity else {
        return;
    };
    if let Some(untimely) = validity.untimely(SystemTime::now()) {
        warn!(
            variable = "TLS_CERT_FILE",
            expires_at = validity.end(),
            certificate = validity.first_to_expire,
            "{untimely}"
        );
    }
}

/// Returns whether a day has passed between `warned` and `now`. If the clock was set back by at least a day, a warning is due as
/// well.
fn is_due(warned: SystemTime, now: SystemTime) -> bool {
    let passed = now.duration_since(warned);
    passed.unwrap_or_else(|back| back.duration()) >= DAY
}

struct Follower {
    sources: CredentialSources,
    /// The state of the files when the credentials in use were read.
    read: Stamps,
    /// The state of the files at the previous check.
    seen: Stamps,
    /// If the newest attempt to read the files failed: the state of the files, and the time of the attempt.
    unusable: Option<(Stamps, Instant)>,
    newest: watch::Sender<Arc<Credentials>>,
    reports: Arc<Reports>,
    /// The time, by the wall clock, of the previous check whether the certificate expires soon.
    warned: SystemTime,
}

impl Follower {
    fn run(mut self, requested: &Receiver<()>) {
        loop {
            match requested.recv_timeout(CHECK_INTERVAL) {
                Ok(()) => {
                    self.unusable = None;
                    self.read(self.sources.stamps());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    self.warn_daily(SystemTime::now());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn warn_daily(&mut self, now: SystemTime) {
        if is_due(self.warned, now) {
            self.warned = now;
            warn_of_end(&self.newest.borrow());
        }
    }

    fn look(&mut self) {
        let now = self.sources.stamps();
        let may_be_usable = self
            .unusable
            .as_ref()
            .is_none_or(|(unusable, tried)| *unusable != now || tried.elapsed() >= RETRY_AFTER);
        if now != self.read && now == self.seen && may_be_usable {
            self.read(now);
        } else {
            self.seen = now;
        }
    }

    /// Reads all files. If all new credentials are valid, they replace the previous credentials. If one file cannot be used, all
    /// previous credentials stay in use.
    fn read(&mut self, stamps: Stamps) {
        match self.sources.load() {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                self.newest.send_replace(Arc::clone(&credentials));
                let keys: Vec<_> = credentials.keys.iter().map(ApiKey::name).collect();
                info!(
                    ?keys,
                    tls = credentials.tls.is_some(),
                    "credentials reloaded"
                );
                warn_of(&credentials, &self.sources);
                self.warned = SystemTime::now();
                self.reports
                    .set_certificate_expires(credentials.expires_at());
                self.unusable = None;
                self.read = stamps;
            }
            Err(problems) => {
                let logged = self
                    .unusable
                    .as_ref()
                    .is_some_and(|(unusable, _)| *unusable == stamps);
                for problem in problems.0.iter().filter(|_| !logged) {
                    warn!(
                        variable = problem.variable,
                        problem = problem.text,
                        "credentials not reloaded: the previous credentials stay in use"
                    );
                }
                self.unusable = Some((stamps, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::is_due;

    #[test]
    fn the_expiry_warning_is_due_after_a_day_even_if_the_clock_is_set_back() {
        let warned = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (passed, due) in [(0, false), (23, false), (24, true), (1000, true)] {
            assert_eq!(
                is_due(warned, warned + hours(passed)),
                due,
                "{passed} h later"
            );
            assert_eq!(
                is_due(warned, warned - hours(passed)),
                due,
                "{passed} h earlier"
            );
        }
    }
}
