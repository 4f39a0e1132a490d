//! Those who have not shown a key yet: so many at once, and fewer of one origin, so that a crowd of silent ones cannot keep
//! out a client that has the key.
//!
//! Who is waited for makes room for others, who waits for the agent does not: of a crowd that has the key nobody is sent
//! away, however long it takes to greet them all, and of one that says nothing nobody stays for long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;

/// How many may wait at once, where the open files allow that: more than clients that come back all at once, as after an
/// outage of the network. One that is silent takes about a kilobyte.
pub const MOST_WAITING: usize = 16 * 1024;
/// Of where there are too many, such a part makes room at once: it is looked for by asking all.
const PART: usize = 64;
/// How many may be let in before the agent has got to them: a newcomer with a key waits for all who came before it, and
/// waits less in front of the door, where none of them has cost anything yet.
const MOST_UNATTENDED: usize = 512;
/// How soon it is looked again whether a guest has fallen silent: of that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The lobby, as listener and handshakes share it.
#[derive(Debug)]
pub(super) struct Lobby {
    guests: Mutex<Guests>,
    /// How many guests the agent has not got to yet.
    unattended: Arc<AtomicUsize>,
    /// Tells the listener that somebody has left.
    left: Notify,
}

/// A place in the lobby. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    id: GuestId,
    leave: CancellationToken,
    voice: Arc<Voice>,
}

type GuestId = u64;

/// Whether a guest is waited for. Shared with its connection, which takes note of what it reads.
#[derive(Debug)]
pub(super) struct Voice {
    entered: Instant,
    /// Counts those that are not attended to yet.
    unattended: Arc<AtomicUsize>,
    is_attended: AtomicBool,
    has_spoken: AtomicBool,
    /// Since when it is waited for, in microseconds after it entered; none: it is not, but has to be attended to.
    silent_since: AtomicU64,
}

const NOT_SILENT: u64 = u64::MAX;

impl Voice {
    fn new(unattended: &Arc<AtomicUsize>) -> Self {
        unattended.fetch_add(1, Ordering::Relaxed);
        Self {
            entered: Instant::now(),
            unattended: Arc::clone(unattended),
            is_attended: AtomicBool::new(false),
            has_spoken: AtomicBool::new(false),
            silent_since: AtomicU64::new(NOT_SILENT),
        }
    }

    /// The agent has got to it.
    fn attend(&self) {
        if !self.is_attended.swap(true, Ordering::Relaxed) {
            self.unattended.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// It has said something.
    pub(super) fn speaks(&self) {
        self.attend();
        self.has_spoken.store(true, Ordering::Relaxed);
        self.silent_since.store(NOT_SILENT, Ordering::Relaxed);
    }

    /// It is waited for, from now on if it was not before.
    pub(super) fn is_waited_for(&self) {
        self.attend();
        if self.silent_since.load(Ordering::Relaxed) == NOT_SILENT {
            let since = self.entered.elapsed().as_micros();
            let since = u64::try_from(since).unwrap_or(NOT_SILENT - 1);
            self.silent_since.store(since, Ordering::Relaxed);
        }
    }

    fn silent_since(&self) -> Option<Instant> {
        let since = self.silent_since.load(Ordering::Relaxed);
        (since != NOT_SILENT).then(|| self.entered + Duration::from_micros(since))
    }

    fn has_spoken(&self) -> bool {
        self.has_spoken.load(Ordering::Relaxed)
    }
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Those that have not shown a key.
    pub waiting: usize,
    /// Those and clients together.
    pub in_all: usize,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.attend();
    }
}

/// Who waits.
#[derive(Debug)]
struct Guests {
    unattended: Arc<AtomicUsize>,
    room: Room,
    last: GuestId,
    all: HashMap<GuestId, Guest>,
    /// How many there are of each origin, without those who were asked to leave.
    of_origin: HashMap<Origin, usize>,
    /// How many were asked to leave, and have not left yet.
    leaving: usize,
}

#[derive(Debug)]
struct Guest {
    origin: Origin,
    leave: CancellationToken,
    voice: Arc<Voice>,
}

impl Lobby {
    /// A lobby with so much room.
    pub(super) fn new(room: Room) -> Arc<Self> {
        let guests = Guests::new(room);
        Arc::new(Self {
            unattended: Arc::clone(&guests.unattended),
            guests: Mutex::new(guests),
            left: Notify::new(),
        })
    }

    /// A seat for a newcomer beside so many clients: at once, where somebody is silent who can make room for it. Else those
    /// before it are being attended to, and whoever comes waits in the kernel's queue meanwhile.
    pub(super) async fn enter(
        self: &Arc<Self>,
        origin: Origin,
        clients: impl Fn() -> usize,
    ) -> Seat {
        loop {
            let may_enter = self.unattended.load(Ordering::Relaxed) < MOST_UNATTENDED;
            let received = may_enter.then(|| self.lock().receive(origin, clients()));
            if let Some(Some((id, leave, voice))) = received {
                return Seat {
                    lobby: Arc::clone(self),
                    id,
                    leave,
                    voice,
                };
            }
            tokio::select! {
                () = self.left.notified() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guests> {
        // A panic ends the process.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until the seat is needed for others.
    pub(super) async fn needed(&self) {
        self.leave.cancelled().await;
    }

    /// For the guest's connection, to take note of what it says.
    pub(super) fn voice(&self) -> Arc<Voice> {
        Arc::clone(&self.voice)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.lock().leave(self.id);
        self.lobby.left.notify_one();
    }
}

impl Guests {
    fn new(room: Room) -> Self {
        Self {
            unattended: Arc::default(),
            room,
            last: 0,
            all: HashMap::new(),
            of_origin: HashMap::new(),
            leaving: 0,
        }
    }

    /// Takes in a newcomer. Where there are too many, or too many of its origin, those who have been silent for longest are
    /// asked to leave, those first who have not said a word.
    fn receive(
        &mut self,
        origin: Origin,
        clients: usize,
    ) -> Option<(GuestId, CancellationToken, Arc<Voice>)> {
        let most = self
            .room
            .waiting
            .min(self.room.in_all.saturating_sub(clients))
            .max(2);
        let is_full = self.all.len() >= most;
        // One origin alone never takes all there is.
        let of_this = self.of_origin.get(&origin).copied().unwrap_or_default();
        let is_crowded = of_this >= most.div_ceil(2);
        if is_full && self.leaving > 0 {
            return None;
        }
        if is_full || is_crowded {
            let silent = self.all.iter().filter_map(|(id, guest)| {
                let counts = !guest.leave.is_cancelled() && (!is_crowded || guest.origin == origin);
                let since = guest.voice.silent_since().filter(|_| counts)?;
                Some((guest.voice.has_spoken(), since, *id))
            });
            let mut silent: Vec<_> = silent.collect();
            let part = (most / PART).clamp(1, silent.len().max(1));
            if silent.len() > part {
                silent.select_nth_unstable(part - 1);
                silent.truncate(part);
            }
            for (_, _, id) in &silent {
                self.ask_to_leave(*id);
            }
            if is_full || silent.is_empty() {
                return None;
            }
        }
        Some(self.welcome(origin))
    }

    fn welcome(&mut self, origin: Origin) -> (GuestId, CancellationToken, Arc<Voice>) {
        self.last += 1;
        *self.of_origin.entry(origin).or_default() += 1;
        let (leave, voice) = (
            CancellationToken::new(),
            Arc::new(Voice::new(&self.unattended)),
        );
        let guest = Guest {
            origin,
            leave: leave.clone(),
            voice: Arc::clone(&voice),
        };
        self.all.insert(self.last, guest);
        (self.last, leave, voice)
    }

    fn ask_to_leave(&mut self, id: GuestId) {
        if let Some(guest) = self.all.get(&id) {
            let origin = guest.origin;
            guest.leave.cancel();
            self.leaving += 1;
            self.count_out(origin);
        }
    }

    fn leave(&mut self, id: GuestId) {
        let Some(guest) = self.all.remove(&id) else {
            return;
        };
        if guest.leave.is_cancelled() {
            self.leaving -= 1;
        } else {
            self.count_out(guest.origin);
        }
    }

    fn count_out(&mut self, origin: Origin) {
        if let Some(count) = self.of_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.of_origin.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{GuestId, Guests, Room, Voice};
    use crate::serve::origin::Origin;

    type Welcomed = (GuestId, CancellationToken, Arc<Voice>);

    fn room(most: usize) -> Guests {
        Guests::new(Room {
            waiting: most,
            in_all: 1000,
        })
    }

    fn origin(number: u32) -> Origin {
        Origin::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    /// A newcomer that is waited for at once.
    fn silent(guests: &mut Guests, from: u32) -> Welcomed {
        let welcomed = guests.receive(origin(from), 0).expect("a seat");
        welcomed.2.is_waited_for();
        // So that each is silent for longer than the next one.
        thread::sleep(Duration::from_millis(1));
        welcomed
    }

    fn leaving(crowd: &[Welcomed]) -> Vec<usize> {
        let asked = crowd
            .iter()
            .enumerate()
            .filter(|(_, (_, leave, _))| leave.is_cancelled());
        asked.map(|(place, _)| place).collect()
    }

    #[test]
    fn one_origin_takes_half_of_the_seats() {
        let mut guests = room(8);
        let crowd: Vec<_> = (0..4).map(|_| silent(&mut guests, 1)).collect();
        let more = silent(&mut guests, 1);
        assert_eq!(leaving(&crowd), [0]);
        // Others lose nothing by it.
        let others: Vec<_> = (2..5).map(|other| silent(&mut guests, other)).collect();
        assert_eq!((leaving(&crowd), leaving(&others)), (vec![0], vec![]));
        assert!(!more.1.is_cancelled());
    }

    #[test]
    fn where_all_seats_are_taken_whoever_is_silent_for_longest_makes_room() {
        let mut guests = room(4);
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut guests, number)).collect();
        crowd[0].2.speaks();
        crowd[1].2.speaks();
        crowd[1].2.is_waited_for();
        // Not before there is room, and no more than is needed.
        for _ in 0..3 {
            assert!(guests.receive(origin(9), 0).is_none());
            assert_eq!(leaving(&crowd), [2]);
        }
        guests.leave(crowd[2].0);
        let late = guests.receive(origin(9), 0).expect("a seat");
        late.2.speaks();
        assert!(guests.receive(origin(9), 0).is_none());
        assert_eq!(leaving(&crowd), [2, 3]);
        guests.leave(crowd[3].0);
        guests.receive(origin(9), 0).expect("a seat");
        // Who has spoken, and is waited for, comes after those who have not.
        assert!(guests.receive(origin(10), 0).is_none());
        assert_eq!(leaving(&crowd), [1, 2, 3]);
    }

    #[test]
    fn who_waits_for_the_agent_is_not_sent_away() {
        let mut guests = room(4);
        let crowd: Vec<_> = (0..2)
            .map(|_| guests.receive(origin(1), 0).expect("a seat"))
            .collect();
        assert!(guests.receive(origin(1), 0).is_none());
        guests.leave(crowd[1].0);
        guests.receive(origin(1), 0).expect("a seat");
        assert_eq!(leaving(&crowd), [] as [usize; 0]);
    }

    #[test]
    fn nothing_is_kept_of_those_that_have_left() {
        let mut guests = room(8);
        let mut all = Vec::new();
        for number in 0..60 {
            all.push(guests.receive(origin(number % 7), 0));
            if let Some(Some(welcomed)) = all.last() {
                welcomed.2.is_waited_for();
            }
        }
        for (id, ..) in all.into_iter().flatten() {
            guests.leave(id);
        }
        assert_eq!(
            (guests.all.len(), guests.of_origin.len(), guests.leaving),
            (0, 0, 0)
        );
    }

    #[test]
    fn where_clients_take_the_room_fewer_may_wait() {
        let mut guests = Guests::new(Room {
            waiting: 100,
            in_all: 10,
        });
        let crowd: Vec<_> = (0..4)
            .map(|number| guests.receive(origin(number), 6).expect("a seat"))
            .collect();
        assert!(guests.receive(origin(9), 6).is_none());
        crowd[0].2.is_waited_for();
        assert!(guests.receive(origin(9), 6).is_none());
        assert_eq!(leaving(&crowd), [0]);
        assert!(guests.receive(origin(9), 0).is_some());
    }

    #[test]
    fn of_a_large_crowd_a_part_makes_room_at_once() {
        let mut guests = room(640);
        let crowd: Vec<_> = (0..640)
            .map(|number| {
                let welcomed = guests.receive(origin(number), 0).expect("a seat");
                welcomed.2.is_waited_for();
                welcomed
            })
            .collect();
        assert!(guests.receive(origin(1000), 0).is_none());
        assert_eq!(leaving(&crowd).len(), 10);
    }

    #[test]
    fn those_that_the_agent_has_not_got_to_are_counted() {
        let mut guests = room(10);
        let count = Arc::clone(&guests.unattended);
        let count = || count.load(std::sync::atomic::Ordering::Relaxed);
        let [first, second, third] =
            [1, 2, 3].map(|number| guests.receive(origin(number), 0).unwrap());
        assert_eq!(count(), 3);
        first.2.is_waited_for();
        first.2.speaks();
        second.2.speaks();
        assert_eq!(count(), 1);
        guests.leave(third.0);
        drop(third);
        assert_eq!(count(), 0);
    }
}
