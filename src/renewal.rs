//! Keys and certificates that change while the agent runs: read anew on SIGHUP, and when their files change.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::settings::{ApiKey, ApiKeys, CredentialSources, Credentials, Stamps};

/// How often the files are looked at: a handful of system calls. One that has changed is read when it is the same at two
/// looks in a row, so that none is read half written, nor a certificate without its key.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// When files that could not be used are tried again, though they are the same: the reason may have been a passing one.
const TRY_AGAIN: Duration = Duration::from_secs(60);

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

/// Has the log tell of keys that can be guessed, and of files that others may read or write.
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
}

impl Follower {
    fn run(mut self, requested: &Receiver<()>) {
        loop {
            match requested.recv_timeout(LOOK_EVERY) {
                Ok(()) => {
                    self.unusable = None;
                    self.read(self.sources.stamps());
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
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
