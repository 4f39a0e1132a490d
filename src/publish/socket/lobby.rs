//! Those who have not shown a key yet: so many at once, and fewer of one origin, so that a crowd of silent ones cannot keep
//! out a client that has the key.
//!
//! Who is waited for makes room for others, the oldest first; who waits for the agent does not: of a crowd that has the key
//! nobody is sent away, however long it takes to greet them all, and of one that has none nobody stays for long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;

/// How many may wait at once, where the open files allow that: more than clients that come back all at once, as after an
/// outage of the network.
pub const MOST_WAITING: usize = 16 * 1024;
/// Of where there are too many, such a part makes room at once: it is looked for by asking all.
const PART: usize = 64;
/// How many may be let in before the agent has got to them: a newcomer with a key waits for all who came before it, and
/// waits less in front of the door, where none of them has cost anything yet.
const MOST_UNATTENDED: usize = 512;
/// How soon it is looked again whether a guest is waited for: of that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The lobby, as listener and handshakes share it.
#[derive(Debug)]
pub(in crate::publish) struct Lobby {
    guests: Mutex<Guests>,
    /// How many guests the agent has not got to yet.
    unattended: Arc<AtomicUsize>,
    /// Tells the listener that somebody has left.
    left: Notify,
}

/// A place in the lobby. Given back when it is dropped.
#[derive(Debug)]
pub(in crate::publish) struct Seat {
    lobby: Arc<Lobby>,
    id: GuestId,
    leave: CancellationToken,
    voice: Arc<Voice>,
}

type GuestId = u64;
type Welcomed = (GuestId, CancellationToken, Arc<Voice>);

/// What becomes of a newcomer.
enum Reception {
    Welcome(Welcomed),
    /// Not before somebody has left.
    Full,
    /// There are too many of its origin, and the agent has yet to get to all of them.
    Crowded,
}

/// Whether a guest is waited for. Shared with its connection, which knows.
#[derive(Debug)]
pub(in crate::publish) struct Voice {
    /// Counts those that are not attended to yet.
    unattended: Arc<AtomicUsize>,
    is_attended: AtomicBool,
    is_waited_for: AtomicBool,
}

impl Voice {
    pub(in crate::publish) fn new(unattended: &Arc<AtomicUsize>) -> Self {
        unattended.fetch_add(1, Ordering::Relaxed);
        Self {
            unattended: Arc::clone(unattended),
            is_attended: AtomicBool::new(false),
            is_waited_for: AtomicBool::new(false),
        }
    }

    /// The agent has got to it, and waits for it or does not.
    pub(in crate::publish) fn is_waited_for(&self, waited_for: bool) {
        self.attend();
        self.is_waited_for.store(waited_for, Ordering::Relaxed);
    }

    fn attend(&self) {
        if !self.is_attended.swap(true, Ordering::Relaxed) {
            self.unattended.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.attend();
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
    pub(in crate::publish) fn new(room: Room) -> Arc<Self> {
        let guests = Guests::new(room);
        Arc::new(Self {
            unattended: Arc::clone(&guests.unattended),
            guests: Mutex::new(guests),
            left: Notify::new(),
        })
    }

    /// A seat for a newcomer beside so many clients: at once, where somebody is waited for who can make room. Else those
    /// before it are being attended to, and whoever comes waits in the kernel's queue meanwhile. None where there are so many
    /// of its origin that others would have to wait for it.
    pub(in crate::publish) async fn enter(
        self: &Arc<Self>,
        origin: Origin,
        clients: impl Fn() -> usize,
    ) -> Option<Seat> {
        loop {
            if self.unattended.load(Ordering::Relaxed) < MOST_UNATTENDED {
                let reception = self.lock().receive(origin, clients());
                match reception {
                    Reception::Welcome((id, leave, voice)) => {
                        return Some(Seat {
                            lobby: Arc::clone(self),
                            id,
                            leave,
                            voice,
                        });
                    }
                    Reception::Crowded => return None,
                    Reception::Full => {}
                }
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
    pub(in crate::publish) async fn needed(&self) {
        self.leave.cancelled().await;
    }

    /// For the guest's connection, to take note of what it says.
    pub(in crate::publish) fn voice(&self) -> Arc<Voice> {
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

    /// Takes in a newcomer. Where there are too many, or too many of its origin, the oldest of those that are waited for
    /// are asked to leave.
    fn receive(&mut self, origin: Origin, clients: usize) -> Reception {
        let room = self.room.in_all.saturating_sub(clients);
        let most = self.room.waiting.min(room).max(2);
        let is_full = self.all.len() >= most;
        // One origin alone never takes all there is.
        let of_this = self.of_origin.get(&origin).copied().unwrap_or_default();
        let is_crowded = of_this >= most.div_ceil(2);
        if is_full && self.leaving > 0 {
            return Reception::Full;
        }
        if is_full || is_crowded {
            let waited_for = self.all.iter().filter(|(_, guest)| {
                guest.voice.is_waited_for.load(Ordering::Relaxed)
                    && !guest.leave.is_cancelled()
                    && (!is_crowded || guest.origin == origin)
            });
            // They are numbered as they come.
            let mut oldest: Vec<GuestId> = waited_for.map(|(id, _)| *id).collect();
            let part = (most / PART).clamp(1, oldest.len().max(1));
            if oldest.len() > part {
                oldest.select_nth_unstable(part - 1);
                oldest.truncate(part);
            }
            for id in &oldest {
                self.ask_to_leave(*id);
            }
            if is_full {
                return Reception::Full;
            }
            if oldest.is_empty() {
                return Reception::Crowded;
            }
        }
        Reception::Welcome(self.welcome(origin))
    }

    fn welcome(&mut self, origin: Origin) -> Welcomed {
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
    use std::sync::atomic::Ordering;

    use super::{Guests, Reception, Room, Welcomed};
    use crate::publish::socket::origin::Origin;

    fn room(most: usize) -> Guests {
        Guests::new(Room {
            waiting: most,
            in_all: 1000,
        })
    }

    fn origin(number: u32) -> Origin {
        Origin::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    /// A newcomer that the agent has not got to.
    fn welcome(guests: &mut Guests, from: u32) -> Welcomed {
        match guests.receive(origin(from), 0) {
            Reception::Welcome(welcomed) => welcomed,
            Reception::Full | Reception::Crowded => panic!("no seat"),
        }
    }

    /// A newcomer that is waited for.
    fn silent(guests: &mut Guests, from: u32) -> Welcomed {
        let welcomed = welcome(guests, from);
        welcomed.2.is_waited_for(true);
        welcomed
    }

    fn is_full(guests: &mut Guests, from: u32) -> bool {
        matches!(guests.receive(origin(from), 0), Reception::Full)
    }

    fn leaving(crowd: &[Welcomed]) -> Vec<usize> {
        let asked = |(_, (_, leave, _)): &(usize, &Welcomed)| leave.is_cancelled();
        let asked = crowd.iter().enumerate().filter(asked);
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
    fn where_all_seats_are_taken_the_oldest_who_is_waited_for_makes_room() {
        let mut guests = room(4);
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut guests, number)).collect();
        crowd[0].2.is_waited_for(false);
        // Not before there is room, and no more than is needed.
        for _ in 0..3 {
            assert!(is_full(&mut guests, 9));
            assert_eq!(leaving(&crowd), [1]);
        }
        guests.leave(crowd[1].0);
        welcome(&mut guests, 9);
        assert!(is_full(&mut guests, 10));
        assert_eq!(leaving(&crowd), [1, 2]);
    }

    #[test]
    fn who_waits_for_the_agent_is_not_sent_away() {
        let mut guests = room(4);
        let crowd: Vec<_> = (0..2).map(|_| welcome(&mut guests, 1)).collect();
        let more = guests.receive(origin(1), 0);
        assert!(matches!(more, Reception::Crowded));
        // Others do not wait for that.
        let others: Vec<_> = (2..4).map(|other| welcome(&mut guests, other)).collect();
        assert!(is_full(&mut guests, 5));
        assert_eq!((leaving(&crowd), leaving(&others)), (vec![], vec![]));
        guests.leave(crowd[1].0);
        welcome(&mut guests, 1);
    }

    #[test]
    fn nothing_is_kept_of_those_that_have_left() {
        let mut guests = room(8);
        let mut all = Vec::new();
        for number in 0..60 {
            if let Reception::Welcome(welcomed) = guests.receive(origin(number % 7), 0) {
                welcomed.2.is_waited_for(true);
                all.push(welcomed);
            }
        }
        for (id, ..) in all {
            guests.leave(id);
        }
        let left = (guests.all.len(), guests.of_origin.len(), guests.leaving);
        assert_eq!(left, (0, 0, 0));
    }

    #[test]
    fn where_clients_take_the_room_fewer_may_wait() {
        let mut guests = Guests::new(Room {
            waiting: 100,
            in_all: 10,
        });
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut guests, number)).collect();
        let beside = |guests: &mut Guests, clients| guests.receive(origin(9), clients);
        assert!(matches!(beside(&mut guests, 6), Reception::Full));
        assert_eq!(leaving(&crowd), [0]);
        assert!(matches!(beside(&mut guests, 0), Reception::Welcome(_)));
    }

    #[test]
    fn of_a_large_crowd_a_part_makes_room_at_once() {
        let mut guests = room(640);
        let crowd: Vec<_> = (0..640).map(|number| silent(&mut guests, number)).collect();
        assert!(is_full(&mut guests, 1000));
        assert_eq!(leaving(&crowd), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn those_that_the_agent_has_not_got_to_are_counted() {
        let mut guests = room(10);
        let count = Arc::clone(&guests.unattended);
        let count = || count.load(Ordering::Relaxed);
        let [first, second, third] = [1, 2, 3].map(|number| welcome(&mut guests, number));
        assert_eq!(count(), 3);
        first.2.is_waited_for(true);
        first.2.is_waited_for(false);
        second.2.is_waited_for(false);
        assert_eq!(count(), 1);
        guests.leave(third.0);
        drop(third);
        assert_eq!(count(), 0);
    }
}
