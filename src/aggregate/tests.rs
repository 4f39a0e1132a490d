use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Aggregator, FIRST_SNAPSHOT_WITHIN, Newest, SourceState};
use crate::messages::{Collected, Delivery, StopPublishing, Subscribe, SystemSample, Unsubscribe};
use crate::model::Options;

const INTERVAL: Duration = Duration::from_secs(5);

/// A session that takes notes: when a delivery came, and its number (none for the end).
struct Session(mpsc::UnboundedSender<(f64, Option<u64>)>, Instant);

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Session {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        let seq = match delivery {
            Delivery::Snapshot(encoded) => Some(encoded.seq),
            Delivery::End(_) => None,
        };
        let _ = self.0.send((self.1.elapsed().as_secs_f64(), seq));
    }
}

type Deliveries = mpsc::UnboundedReceiver<(f64, Option<u64>)>;

fn subscribe(aggregator: &Addr<Aggregator>, client: u64, start: Instant) -> Deliveries {
    let (notes, deliveries) = mpsc::unbounded_channel();
    aggregator.do_send(Subscribe {
        client,
        options: Options::default(),
        deliveries: Session(notes, start).start().recipient(),
    });
    deliveries
}

fn aggregator() -> Addr<Aggregator> {
    let newest = Newest {
        system: SourceState::enabled("system", INTERVAL),
        docker: SourceState::disabled("docker"),
        logs: SourceState::disabled("logs"),
    };
    Aggregator::new(INTERVAL, newest).start()
}

fn sample() -> Collected<SystemSample> {
    Collected {
        sample: Some(SystemSample::default()),
        error: None,
        collected_at: SystemTime::now(),
        duration: Duration::ZERO,
        stretched: None,
    }
}

async fn next(deliveries: &mut Deliveries) -> (f64, Option<u64>) {
    let (at, seq) = deliveries.recv().await.unwrap();
    ((at * 10.0).round() / 10.0, seq)
}

#[actix::test]
async fn the_first_snapshot_goes_out_when_all_sources_have_answered() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    let mut deliveries = subscribe(&aggregator, 1, start);
    tokio::time::sleep(Duration::from_secs(1)).await;
    aggregator.do_send(sample());
    assert_eq!(next(&mut deliveries).await, (1.0, Some(1)));
    // The next ones at the interval, whatever comes in between.
    aggregator.do_send(sample());
    assert_eq!(next(&mut deliveries).await, (6.0, Some(2)));
    assert_eq!(next(&mut deliveries).await, (11.0, Some(3)));
}

#[actix::test]
async fn a_source_that_does_not_answer_delays_the_first_snapshot_only_so_long() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    let mut deliveries = subscribe(&aggregator, 1, start);
    let within = FIRST_SNAPSHOT_WITHIN.as_secs_f64();
    assert_eq!(next(&mut deliveries).await, (within, Some(1)));
    assert_eq!(next(&mut deliveries).await, (within + 5.0, Some(2)));
}

#[actix::test]
async fn a_newcomer_gets_the_newest_at_once() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    aggregator.do_send(sample());
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut deliveries = subscribe(&aggregator, 1, start);
    assert_eq!(next(&mut deliveries).await, (7.0, Some(2)));
    assert_eq!(next(&mut deliveries).await, (10.0, Some(3)));
    aggregator.do_send(Unsubscribe { client: 1 });
    tokio::time::sleep(INTERVAL * 2).await;
    assert!(deliveries.try_recv().is_err());
}

#[actix::test]
async fn stopping_ends_sessions_old_and_new() {
    tokio::time::pause();
    let start = Instant::now();
    let aggregator = aggregator();
    aggregator.do_send(sample());
    let mut early = subscribe(&aggregator, 1, start);
    assert_eq!(next(&mut early).await.1, Some(1));
    aggregator.do_send(StopPublishing { within: INTERVAL });
    assert_eq!(next(&mut early).await.1, None);
    let mut late = subscribe(&aggregator, 2, start);
    assert_eq!(next(&mut late).await.1, None);
    tokio::time::sleep(INTERVAL * 2).await;
    assert!(early.try_recv().is_err() && late.try_recv().is_err());
}

#[actix::test]
async fn all_sessions_share_one_encoding() {
    struct Keep(mpsc::UnboundedSender<Delivery>);
    impl Actor for Keep {
        type Context = Context<Self>;
    }
    impl Handler<Delivery> for Keep {
        type Result = ();
        fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
            let _ = self.0.send(delivery);
        }
    }
    let aggregator = aggregator();
    let (notes, mut kept) = mpsc::unbounded_channel();
    for client in [1, 2] {
        aggregator.do_send(Subscribe {
            client,
            options: Options::default(),
            deliveries: Keep(notes.clone()).start().recipient(),
        });
    }
    aggregator.do_send(sample());
    let (Some(Delivery::Snapshot(one)), Some(Delivery::Snapshot(other))) =
        (kept.recv().await, kept.recv().await)
    else {
        panic!("two snapshots were due");
    };
    assert!(Arc::ptr_eq(&one, &other));
}
