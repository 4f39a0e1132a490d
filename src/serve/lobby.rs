//! Those who have not shown a key yet: few at once, and fewer of one origin, so that a crowd of silent ones cannot keep out
//! a client that has the key.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;

/// How many may wait at once, where the open files allow that.
pub const MOST_WAITING: usize = 1024;
/// How long a guest may take, where others wait for its place: of an origin from which nobody has shown a key lately, and
/// of any. A client sends its key as soon as it is connected.
const PATIENCE: Duration = Duration::from_millis(250);
const LONG_PATIENCE: Duration = Duration::from_secs(2);
/// How long it counts that somebody of an origin has shown a key.
const LATELY: Duration = Duration::from_secs(1);

/// The lobby, as listener and handshakes share it.
#[derive(Debug)]
pub(super) struct Lobby {
    guests: Mutex<Guests>,
    /// Tells the listener that somebody has left.
    left: Notify,
}

/// What becomes of a newcomer.
enum Reception {
    Welcome(GuestId, CancellationToken),
    /// There is no room before somebody leaves, or before that time.
    Full(Option<Instant>),
}

type GuestId = u64;

/// Who waits.
#[derive(Debug)]
struct Guests {
    most: usize,
    /// How many there are; among them those who were asked to leave and have not left yet.
    count: usize,
    last: GuestId,
    by_origin: HashMap<Origin, Group>,
}

/// Those of one origin.
#[derive(Debug, Default)]
struct Group {
    /// The oldest first, without those who were asked to leave.
    waiting: VecDeque<Guest>,
    /// When one of them has last shown a key.
    admitted: Option<Instant>,
}

#[derive(Debug)]
struct Guest {
    id: GuestId,
    since: Instant,
    leave: CancellationToken,
}

/// A place in the lobby. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    origin: Origin,
    id: GuestId,
    leave: CancellationToken,
    admitted: bool,
}

impl Lobby {
    /// A lobby for so many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            guests: Mutex::new(Guests {
                most: most.max(2),
                count: 0,
                last: 0,
                by_origin: HashMap::new(),
            }),
            left: Notify::new(),
        })
    }

    /// A seat for a newcomer, as soon as there is one: whoever waits for longest of those that are too many makes room.
    /// Meanwhile others wait in the kernel's queue.
    pub(super) async fn enter(self: &Arc<Self>, origin: Origin) -> Seat {
        loop {
            let reception = self.lock().receive(origin, Instant::now());
            match reception {
                Reception::Welcome(id, leave) => {
                    return Seat {
                        lobby: Arc::clone(self),
                        origin,
                        id,
                        leave,
                        admitted: false,
                    };
                }
                Reception::Full(Some(until)) => {
                    tokio::select! {
                        () = self.left.notified() => {}
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                }
                Reception::Full(None) => self.left.notified().await,
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

    /// Its guest has shown a key.
    pub(super) fn admitted(mut self) {
        self.admitted = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guests = self.lobby.lock();
        guests.leave(self.origin, self.id, self.admitted.then(Instant::now));
        drop(guests);
        self.lobby.left.notify_one();
    }
}

impl Guests {
    fn receive(&mut self, origin: Origin, now: Instant) -> Reception {
        let group = self.by_origin.get(&origin);
        let of_this = group.map_or(0, |group| group.waiting.len());
        // One origin alone never takes all there is.
        let crowded = of_this >= self.most.div_ceil(2);
        if self.count < self.most && !crowded {
            return self.welcome(origin, now);
        }
        let host = if crowded {
            Some(origin)
        } else {
            // Of several that are as large, the one whose oldest waits for longest.
            let size = |group: &Group| {
                let oldest = group.waiting.front().map(|guest| Reverse(guest.since));
                (group.waiting.len(), oldest)
            };
            let groups = self.by_origin.iter();
            let largest = groups.max_by_key(|(_, group)| size(group));
            largest.map(|(origin, _)| *origin)
        };
        let Some(group) = host.and_then(|host| self.by_origin.get_mut(&host)) else {
            return Reception::Full(None);
        };
        let Some(oldest) = group.waiting.front() else {
            return Reception::Full(None);
        };
        let until = oldest.since + group.patience(now);
        // Those of a large group make room for others at once.
        let for_others = host != Some(origin) && group.waiting.len() > of_this + 1;
        if now < until && !for_others {
            return Reception::Full(Some(until));
        }
        if let Some(guest) = group.waiting.pop_front() {
            guest.leave.cancel();
        }
        if self.count < self.most {
            return self.welcome(origin, now);
        }
        // As soon as it has left.
        Reception::Full(None)
    }

    fn welcome(&mut self, origin: Origin, now: Instant) -> Reception {
        self.count += 1;
        self.last += 1;
        let (id, leave) = (self.last, CancellationToken::new());
        let group = self.by_origin.entry(origin).or_default();
        group.waiting.push_back(Guest {
            id,
            since: now,
            leave: leave.clone(),
        });
        Reception::Welcome(id, leave)
    }

    /// A guest has left, and had shown a key at that time, if so.
    fn leave(&mut self, origin: Origin, id: GuestId, admitted: Option<Instant>) {
        self.count -= 1;
        let Some(group) = self.by_origin.get_mut(&origin) else {
            return;
        };
        if let Ok(place) = group.waiting.binary_search_by_key(&id, |guest| guest.id) {
            group.waiting.remove(place);
        }
        group.admitted = admitted.or(group.admitted);
        if group.waiting.is_empty() {
            self.by_origin.remove(&origin);
        }
    }
}

impl Group {
    fn patience(&self, now: Instant) -> Duration {
        match self.admitted {
            Some(admitted) if now.duration_since(admitted) < LATELY => LONG_PATIENCE,
            _ => PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use tokio_util::sync::CancellationToken;

    use super::{GuestId, Guests, LONG_PATIENCE, PATIENCE, Reception};
    use crate::serve::origin::Origin;

    fn guests(most: usize) -> Guests {
        Guests {
            most,
            count: 0,
            last: 0,
            by_origin: Default::default(),
        }
    }

    fn origin(number: u32) -> Origin {
        Origin::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn welcome(guests: &mut Guests, from: u32, now: Instant) -> (GuestId, CancellationToken) {
        match guests.receive(origin(from), now) {
            Reception::Welcome(id, leave) => (id, leave),
            Reception::Full(until) => panic!("full until {until:?}"),
        }
    }

    fn full(guests: &mut Guests, from: u32, now: Instant) -> Option<Instant> {
        match guests.receive(origin(from), now) {
            Reception::Full(until) => until,
            Reception::Welcome(..) => panic!("welcome"),
        }
    }

    #[test]
    fn one_origin_takes_half_of_the_places() {
        let mut guests = guests(8);
        let now = Instant::now();
        let crowd: Vec<_> = (0..4).map(|_| welcome(&mut guests, 1, now)).collect();
        // Its own have to wait, for as long as the oldest is waited for.
        assert_eq!(full(&mut guests, 1, now), Some(now + PATIENCE));
        assert!(crowd.iter().all(|(_, leave)| !leave.is_cancelled()));
        // Others need not.
        welcome(&mut guests, 2, now);
        let later = now + PATIENCE;
        welcome(&mut guests, 1, later);
        assert!(crowd[0].1.is_cancelled() && !crowd[1].1.is_cancelled());
    }

    #[test]
    fn where_all_places_are_taken_the_largest_group_makes_room() {
        let mut guests = guests(8);
        let now = Instant::now();
        let crowd: Vec<_> = (0..4).map(|_| welcome(&mut guests, 1, now)).collect();
        for other in 2..6 {
            welcome(&mut guests, other, now);
        }
        // Not before the one that was asked to leave has left.
        assert_eq!(full(&mut guests, 6, now), None);
        assert!(crowd[0].1.is_cancelled() && !crowd[1].1.is_cancelled());
        guests.leave(origin(1), crowd[0].0, None);
        welcome(&mut guests, 6, now);
        assert_eq!(guests.count, 8);
    }

    #[test]
    fn of_many_origins_the_oldest_guest_makes_room() {
        let mut guests = guests(8);
        let start = Instant::now();
        let crowd: Vec<_> = (0..8)
            .map(|number| {
                let since = start + Duration::from_millis(u64::from(number));
                (since, welcome(&mut guests, number, since).1)
            })
            .collect();
        let now = crowd[7].0;
        assert_eq!(full(&mut guests, 8, now), Some(start + PATIENCE));
        assert_eq!(full(&mut guests, 8, start + PATIENCE), None);
        let left: Vec<_> = crowd
            .iter()
            .map(|(_, leave)| leave.is_cancelled())
            .collect();
        assert_eq!(
            left,
            [true, false, false, false, false, false, false, false]
        );
    }

    #[test]
    fn a_crowd_that_has_the_key_is_waited_for() {
        let mut guests = guests(4);
        let now = Instant::now();
        let (first, _) = welcome(&mut guests, 1, now);
        let (second, _) = welcome(&mut guests, 1, now);
        guests.leave(origin(1), first, Some(now));
        let (_, leave) = welcome(&mut guests, 1, now);
        let soon = now + PATIENCE;
        assert_eq!(full(&mut guests, 1, soon), Some(now + LONG_PATIENCE));
        guests.leave(origin(1), second, Some(soon));
        welcome(&mut guests, 1, soon);
        assert!(!leave.is_cancelled());
        // As long as anybody shows one.
        let late = soon + Duration::from_millis(1100);
        welcome(&mut guests, 1, late);
        assert!(leave.is_cancelled());
    }

    #[test]
    fn nothing_is_kept_of_those_that_have_left() {
        let mut guests = guests(100);
        let now = Instant::now();
        let all: Vec<_> = (0..60)
            .map(|number| (number % 7, welcome(&mut guests, number % 7, now).0))
            .collect();
        for (from, id) in all {
            guests.leave(origin(from), id, Some(now));
        }
        assert_eq!((guests.count, guests.by_origin.len()), (0, 0));
    }
}
