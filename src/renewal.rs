//! Keys and certificates that change while the agent runs: read anew on SIGHUP, and when their files change. Certificates also
//! expire meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::messages::Reports;
use crate::settings::{ApiKey, ApiKeys, CredentialSources, Credentials, Stamps, Tls};

/// How often the files are looked at: a handful of system calls. One that has changed is read when it is the same at two
/// looks in a row, so that none is read half written, nor a certificate without its key.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// When files that could not be used are tried again, though they are the same: the reason may have been a passing one.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// How often a certificate's end is warned of.
const DAY: Duration = Duration::from_secs(86_400);

/// Asks for the credentials to be read anew.
#[derive(Debug, Clone)]
pub struct Renewal(Option<SyncSender<()>>);

impl Renewal {
    /// Follows the files of `sources` and sends what they come to hold to `newest`; on a thread of its own, as a file system
    /// may hang. With no files there is nothing to follow.
    ///
    /// # Errors
    /// When the process is denied a thread.
    pub fn follow(
        sources: CredentialSources,
        newest: watch::Sender<Arc<Credentials>>,
        reports: Arc<Reports>,
    ) -> io::Result<Self> {
        if sources.files().next().is_none() {
            return Ok(Self(None));
        }
        // One that has not been heeded yet is as good as two.
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

    /// Has the files read now.
    pub fn request(&self) {
        match &self.0 {
            Some(requests) => drop(requests.try_send(())),
            None => info!("no credentials to read anew: none are in files"),
        }
    }
}

/// Has the log tell of keys that can be guessed, of files that others may read or write, and of certificates that are not valid for
/// long.
pub fn warn_of(credentials: &Credentials, sources: &CredentialSources) {
    let weak = |keys: &ApiKeys| -> Vec<Arc<str>> {
        let weak = keys.iter().filter(|key| key.is_weak());
        weak.map(|key| Arc::clone(key.name())).collect()
    };
    for key in weak(&credentials.keys) {
        warn!(%key, "the key is short: 16 characters or more are hard to guess");
    }
    for token in credentials.metrics_tokens.iter().flat_map(weak) {
        warn!(%token, "the token is short: 16 characters or more are hard to guess");
    }
    for problem in sources.exposed() {
        warn!(variable = problem.variable, "{}", problem.text);
    }
    warn_of_end(credentials);
}

/// Has the log tell of a certificate that is not valid, or will not be for long.
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

/// Whether a day has passed. A clock that was set back by more than that counts as well.
fn is_due(warned: SystemTime, now: SystemTime) -> bool {
    let passed = now.duration_since(warned);
    passed.unwrap_or_else(|back| back.duration()) >= DAY
}

struct Follower {
    sources: CredentialSources,
    /// As the files were when they were read.
    read: Stamps,
    /// As they were at the last look.
    seen: Stamps,
    /// As they were when they could not be used, and when that was.
    unusable: Option<(Stamps, Instant)>,
    newest: watch::Sender<Arc<Credentials>>,
    reports: Arc<Reports>,
    /// When a certificate's end was last warned of, or would have been: by the wall clock, as certificates expire.
    warned: SystemTime,
}

impl Follower {
    fn run(mut self, requested: &Receiver<()>) {
        loop {
            match requested.recv_timeout(LOOK_EVERY) {
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
            .is_none_or(|(unusable, tried)| *unusable != now || tried.elapsed() >= TRY_AGAIN);
        if now != self.read && now == self.seen && may_be_usable {
            self.read(now);
        } else {
            self.seen = now;
        }
    }

    /// Takes over what is in the files, if all of it is right: else what was there before stays.
    fn read(&mut self, stamps: Stamps) {
        match self.sources.load() {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                self.newest.send_replace(Arc::clone(&credentials));
                let keys: Vec<_> = credentials.keys.iter().map(ApiKey::name).collect();
                info!(
                    ?keys,
                    tls = credentials.tls.is_some(),
                    "credentials read anew"
                );
                warn_of(&credentials, &self.sources);
                self.warned = SystemTime::now();
                self.reports
                    .set_certificate_expires(credentials.expires_at());
                self.unusable = None;
                self.read = stamps;
            }
            Err(problems) => {
                let told = self
                    .unusable
                    .as_ref()
                    .is_some_and(|(unusable, _)| *unusable == stamps);
                for problem in problems.0.iter().filter(|_| !told) {
                    warn!(
                        variable = problem.variable,
                        problem = problem.text,
                        "credentials not read anew: the ones before stay"
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
    fn a_certificate_is_warned_of_daily_whatever_the_clock_does() {
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
