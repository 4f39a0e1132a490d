//! The login of the page: sessions, and the limit on wrong passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::password::{PasswordHash, random};
use super::settings::{TrustedProxy, WebSettings};

/// Maximum number of passwords that wait for their check.
const MAX_CHECKS: usize = 16;
/// Maximum number of sessions. At the limit, the session that was unused for the longest time ends.
const MAX_SESSIONS: usize = 1024;
/// The number of random bytes in the name of a session.
const TOKEN: usize = 32;
/// Number of wrong passwords within [`WINDOW`] after which an address is blocked.
const FREE_GUESSES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The longest block of an address.
const MAX_BLOCK: Duration = Duration::from_secs(300);
/// The wrong passwords of an address are forgotten after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Maximum number of addresses whose wrong passwords are remembered.
const MAX_ADDRESSES: usize = 4096;

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    Admin,
    /// A reader without a login (`WEB_GUEST`).
    Guest,
}

/// The outcome of a login.
pub(super) enum Login {
    /// The value of the cookie.
    Accepted(String),
    Wrong,
    /// Too many wrong passwords, or too many logins at a time. A login is possible after this time.
    Later(Duration),
}

/// Checks who sends a request.
pub(super) struct Auth {
    password: Option<PasswordHash>,
    guest: bool,
    proxy: Option<TrustedProxy>,
    session_time: Duration,
    has_tls: bool,
    sessions: Mutex<HashMap<[u8; TOKEN], Instant>>,
    guesses: Mutex<HashMap<IpAddr, Guesses>>,
    /// One permit for each password that waits or is checked.
    waiting: Semaphore,
    /// One check of a password runs at a time, because it needs much memory.
    checking: Semaphore,
}

impl Auth {
    pub(super) fn new(settings: &WebSettings) -> Self {
        Self {
            password: settings.password.clone(),
            guest: settings.guest,
            proxy: settings.proxy.clone(),
            session_time: settings.session_time,
            has_tls: settings.tls.is_some(),
            sessions: Mutex::default(),
            guesses: Mutex::default(),
            waiting: Semaphore::new(MAX_CHECKS),
            checking: Semaphore::new(1),
        }
    }

    /// Whether a request needs a session or an authenticating proxy.
    pub(super) fn is_needed(&self) -> bool {
        self.password.is_some() || self.proxy.is_some()
    }

    /// Whether a login with a password is possible.
    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Whether this server uses TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Whether `peer` is the trusted proxy.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        let proxy = self.proxy.as_ref();
        proxy.is_some_and(|proxy| proxy.network.contains(&peer.to_canonical()))
    }

    /// Returns who sends a request. None: the request needs a login.
    pub(super) fn user(&self, headers: &HeaderMap, peer: IpAddr) -> Option<User> {
        if !self.is_needed() {
            return Some(User::Admin);
        }
        let named = |proxy: &TrustedProxy| {
            let name = headers.get(&proxy.header);
            name.is_some_and(|name| !name.is_empty())
        };
        if self.is_proxy(peer) && self.proxy.as_ref().is_some_and(named) {
            return Some(User::Admin);
        }
        let is_known = self.token(headers).is_some_and(|token| {
            let mut sessions = lock(&self.sessions);
            let now = Instant::now();
            match sessions.get_mut(&token) {
                Some(used) if now - *used <= self.session_time => {
                    *used = now;
                    true
                }
                Some(_) => {
                    sessions.remove(&token);
                    false
                }
                None => false,
            }
        });
        match is_known {
            true => Some(User::Admin),
            false => self.guest.then_some(User::Guest),
        }
    }

    /// Checks a password. `peer` is the address of the client.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        password: Zeroizing<Vec<u8>>,
        peer: IpAddr,
    ) -> Login {
        let Some(hash) = self.password.clone() else {
            return Login::Wrong;
        };
        let address = network_of(peer);
        if let Some(wait) = self.blocked(address) {
            return Login::Later(wait);
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Login::Later(Duration::from_secs(2));
        };
        let Ok(_checking) = self.checking.acquire().await else {
            return Login::Wrong;
        };
        // Guesses that waited at the same time as others must not be checked after a block has begun.
        if let Some(wait) = self.blocked(address) {
            return Login::Later(wait);
        }
        let check = move || hash.matches(&password);
        let is_right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        if !is_right {
            self.count_wrong(address);
            return Login::Wrong;
        }
        lock(&self.guesses).remove(&address);
        match self.new_session() {
            Ok(token) => Login::Accepted(token),
            Err(_) => Login::Wrong,
        }
    }

    /// Returns how long the address is still blocked.
    fn blocked(&self, address: IpAddr) -> Option<Duration> {
        let guesses = lock(&self.guesses);
        let until = guesses.get(&address)?.blocked_until?;
        until.checked_duration_since(Instant::now())
    }

    fn count_wrong(&self, address: IpAddr) {
        let mut guesses = lock(&self.guesses);
        let now = Instant::now();
        guesses.retain(|_, one| now - one.newest <= FORGOTTEN_AFTER);
        if guesses.len() >= MAX_ADDRESSES && !guesses.contains_key(&address) {
            let oldest = guesses.iter().min_by_key(|(_, one)| one.newest);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                guesses.remove(&oldest);
            }
        }
        let one = guesses.entry(address).or_insert_with(|| Guesses::new(now));
        one.count(now);
    }

    fn new_session(&self) -> Result<String, String> {
        let mut token = [0; TOKEN];
        random(&mut token)?;
        let mut sessions = lock(&self.sessions);
        let now = Instant::now();
        sessions.retain(|_, used| now - *used <= self.session_time);
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, used)| **used);
            if let Some(oldest) = oldest.map(|(token, _)| *token) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(token, now);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Ends the session of a request.
    pub(super) fn log_out(&self, headers: &HeaderMap) {
        if let Some(token) = self.token(headers) {
            lock(&self.sessions).remove(&token);
        }
    }

    /// Returns the value of `Set-Cookie` that begins a session with this token, or ends the session if there is no token.
    pub(super) fn cookie(&self, token: Option<&str>, is_encrypted: bool) -> String {
        let secure = match self.has_tls || is_encrypted {
            true => "; Secure",
            false => "",
        };
        let age = token.map_or(0, |_| self.session_time.as_secs());
        let token = token.unwrap_or_default();
        let name = self.cookie_name();
        format!("{name}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
    }

    /// A browser accepts a cookie with the prefix `__Host-` only from this host and with TLS.
    fn cookie_name(&self) -> &'static str {
        match self.has_tls {
            true => "__Host-system-agent",
            false => "system-agent",
        }
    }

    /// Returns the token in the cookie of a request.
    fn token(&self, headers: &HeaderMap) -> Option<[u8; TOKEN]> {
        let name = self.cookie_name();
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let mut cookies = cookies.flat_map(|cookies| cookies.split(';'));
        let token = cookies.find_map(|cookie| {
            let (key, value) = cookie.trim().split_once('=')?;
            (key == name).then_some(value)
        })?;
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        token.try_into().ok()
    }
}

/// The wrong passwords of an address.
struct Guesses {
    /// When the count began.
    first: Instant,
    newest: Instant,
    wrong: u32,
    block: Duration,
    blocked_until: Option<Instant>,
}

impl Guesses {
    fn new(now: Instant) -> Self {
        Self {
            first: now,
            newest: now,
            wrong: 0,
            block: Duration::ZERO,
            blocked_until: None,
        }
    }

    /// Counts a wrong password. After the free guesses, each further one blocks the address for twice as long.
    fn count(&mut self, now: Instant) {
        if self.block.is_zero() && now - self.first > WINDOW {
            (self.first, self.wrong) = (now, 0);
        }
        self.wrong = self.wrong.saturating_add(1);
        self.newest = now;
        if self.wrong >= FREE_GUESSES {
            let longer = (self.block * 2).max(Duration::from_secs(1));
            self.block = longer.min(MAX_BLOCK);
            self.blocked_until = Some(now + self.block);
        }
    }
}

/// Returns the address for which wrong passwords are counted: all addresses of an IPv6 network of one customer count as one.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Guesses, network_of};

    #[test]
    fn each_further_wrong_password_blocks_for_longer() {
        let start = Instant::now();
        let mut guesses = Guesses::new(start);
        for _ in 0..4 {
            guesses.count(start);
        }
        assert_eq!(guesses.blocked_until, None);
        let mut blocks = Vec::new();
        for _ in 0..11 {
            guesses.count(start);
            blocks.push((guesses.blocked_until.unwrap() - start).as_secs());
        }
        assert_eq!(blocks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // A wrong password each minute is never too fast.
        let mut slow = Guesses::new(start);
        for minute in 0..100 {
            slow.count(start + Duration::from_secs(61 * minute));
        }
        assert_eq!(slow.blocked_until, None);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
    }
}
