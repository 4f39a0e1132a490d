use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, MessageKind, OVERHEAD, Queue, QueuedMessage};

fn subject(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn push(queue: &mut Queue, name: &str, kind: MessageKind, text: &str) -> u64 {
    let batch = Batch {
        text: text.to_owned(),
        count: 1,
        dropped: 0,
    };
    queue.push(&subject(name), kind, batch)
}

fn taken(queue: &mut Queue) -> Vec<(String, u64)> {
    let mut texts = Vec::new();
    while let Some(QueuedMessage {
        number,
        text,
        dropped,
        ..
    }) = queue.take()
    {
        texts.push((String::from_utf8(text.to_vec()).unwrap(), dropped));
        queue.settle(number, 0);
    }
    texts
}

#[test]
fn only_one_message_of_each_subject_is_in_flight_and_the_order_does_not_change() {
    let mut queue = Queue::new(1 << 20);
    for (name, text) in [("a", "1"), ("a", "2"), ("b", "3")] {
        push(&mut queue, name, MessageKind::Event, text);
    }
    let first = queue.take().unwrap();
    let other = queue.take().unwrap();
    assert_eq!((&first.text[..], &other.text[..]), (&b"1"[..], &b"3"[..]));
    assert_eq!(queue.take(), None);
    queue.retry(first.number);
    assert_eq!(queue.take(), Some(first.clone()));
    queue.settle(first.number, 0);
    // The publisher does not get a confirmed message again.
    queue.retry(first.number);
    assert_eq!(&queue.take().unwrap().text[..], b"2");
    assert_eq!(queue.take(), None);
    assert!(!queue.is_empty());
    assert_eq!(queue.waiting(), 2);
}

#[test]
fn new_log_lines_are_added_to_a_waiting_message_and_not_to_a_message_in_flight() {
    let mut queue = Queue::new(1 << 20);
    push(&mut queue, "a", MessageKind::Tail, "0\n");
    push(&mut queue, "a", MessageKind::Lines, "1\n");
    push(&mut queue, "a", MessageKind::Lines, "2\n");
    let tail = queue.take().unwrap();
    queue.settle(tail.number, 0);
    let first = queue.take().unwrap();
    assert_eq!(&first.text[..], b"1\n2\n");
    push(&mut queue, "a", MessageKind::Lines, "3\n");
    queue.retry(first.number);
    assert_eq!(queue.take(), Some(first));
    let large = "x".repeat(40 * 1024);
    push(&mut queue, "b", MessageKind::Lines, &large);
    push(&mut queue, "b", MessageKind::Lines, "4\n");
    assert_eq!(queue.waiting(), 5);
}

#[test]
fn a_retried_message_has_the_same_pieces_or_shorter_pieces() {
    let mut queue = Queue::new(1 << 20);
    push(&mut queue, "a", MessageKind::Lines, "1\n");
    let first = queue.take().unwrap().number;
    assert_eq!(queue.piece(first, 1000), 1000);
    queue.retry(first);
    assert_eq!(queue.take().unwrap().number, first);
    for (longest, expected) in [(5000, 1000), (200, 200), (1000, 200)] {
        assert_eq!(queue.piece(first, longest), expected);
    }
    queue.settle(first, 0);
    push(&mut queue, "a", MessageKind::Lines, "2\n");
    let next = queue.take().unwrap().number;
    assert_eq!(queue.piece(next, 5000), 5000);
}

#[test]
fn a_message_that_is_refused_repeatedly_is_cut_into_shorter_pieces() {
    let mut queue = Queue::new(1 << 20);
    push(&mut queue, "a", MessageKind::Lines, "1\n");
    let number = queue.take().unwrap().number;
    for expected in [1000, 1000, 1000, 500, 250] {
        assert_eq!(queue.piece(number, 1000), expected);
        assert_eq!(queue.is_refused(number), expected < 1000);
        queue.refuse(number);
    }
}

#[test]
fn a_tail_is_published_if_the_clock_was_set_back() {
    let left = |last: &str| {
        let mut queue = Queue::new(1 << 20);
        push(
            &mut queue,
            "a",
            MessageKind::Tail,
            "2026-01-01T12:00:00.5Z a\n",
        );
        push(
            &mut queue,
            "a",
            MessageKind::Tail,
            "2026-01-01T12:00:01.5Z b\n",
        );
        let first = queue.take().unwrap();
        queue.resolve(&first.subject, Some(last));
        let texts = taken(&mut queue).into_iter();
        texts
            .map(|(text, _)| text[23..24].to_owned())
            .collect::<String>()
    };
    assert_eq!(left("9999-01-01T14:00:00.5Z gone"), "ab");
    assert_eq!(left("2026-01-01T14:00:00.5Z gone"), "");
    assert_eq!(left("2026-01-01T12:00:01.5Z b"), "");
}

#[test]
fn the_oldest_messages_are_dropped_and_the_next_message_reports_their_number() {
    let size = OVERHEAD + 2;
    let mut queue = Queue::new(3 * size);
    for text in ["1", "2", "3"] {
        assert_eq!(push(&mut queue, "a", MessageKind::Event, text), 0);
    }
    assert_eq!(push(&mut queue, "a", MessageKind::Event, "4"), 1);
    // A message in flight stays in the queue. Newer messages, which are not in flight, are dropped.
    let sent = queue.take().unwrap();
    assert_eq!((&sent.text[..], sent.dropped), (&b"2"[..], 1));
    assert_eq!(push(&mut queue, "a", MessageKind::Event, "5"), 1);
    assert_eq!(push(&mut queue, "a", MessageKind::Event, "6"), 1);
    queue.settle(sent.number, 0);
    let rest = [("5".to_owned(), 2), ("6".to_owned(), 0)];
    assert_eq!(taken(&mut queue), rest);
    assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
    // All messages of a subject can be dropped to make space for another subject.
    push(&mut queue, "a", MessageKind::Event, "7");
    for text in ["8", "9", "10"] {
        push(&mut queue, "b", MessageKind::Event, text);
    }
    let kept: Vec<_> = taken(&mut queue)
        .into_iter()
        .map(|(text, _)| text)
        .collect();
    assert_eq!(kept, ["9", "10"]);
    push(&mut queue, "a", MessageKind::Event, "11");
    assert_eq!(taken(&mut queue), [("11".to_owned(), 1)]);
}

#[test]
fn dropped_log_lines_are_reported_by_the_next_message_of_the_subject() {
    let mut queue = Queue::new(1 << 20);
    let batch = |text: &str, dropped| Batch {
        text: text.to_owned(),
        count: u64::from(!text.is_empty()),
        dropped,
    };
    let a = subject("a");
    queue.push(&a, MessageKind::Lines, batch("", 3));
    assert!(queue.is_empty());
    queue.push(&a, MessageKind::Lines, batch("1\n", 4));
    queue.push(&a, MessageKind::Lines, batch("2\n", 0));
    queue.push(&a, MessageKind::Lines, batch("3\n", 5));
    let reported = [("1\n2\n".to_owned(), 7), ("3\n".to_owned(), 5)];
    assert_eq!(taken(&mut queue), reported);
}

#[test]
fn only_the_unpublished_log_lines_of_a_tail_remain() {
    let lines = ["1Z a\n2Z b\n", "3Z c\n4Z d\n", "4Z e\n"];
    let lines = lines.map(|lines| {
        let dated = lines
            .lines()
            .map(|line| format!("2026-01-01T00:00:00.{line}\n"));
        dated.collect::<String>()
    });
    let left = |last: Option<&str>| {
        let mut queue = Queue::new(1 << 20);
        let a = subject("a");
        for text in &lines {
            let (text, count) = (text.clone(), text.lines().count() as u64);
            queue.push(
                &a,
                MessageKind::Tail,
                Batch {
                    text,
                    count,
                    dropped: 0,
                },
            );
        }
        push(&mut queue, "a", MessageKind::Lines, "new\n");
        let first = queue.take().unwrap();
        assert_eq!((first.kind, queue.take()), (MessageKind::Tail, None));
        let last = last.map(|last| format!("2026-01-01T00:00:00.{last}"));
        queue.resolve(&first.subject, last.as_deref());
        let mut text = String::new();
        while let Some(message) = queue.take() {
            assert_eq!((message.kind, message.dropped), (MessageKind::Lines, 0));
            text.push_str(std::str::from_utf8(&message.text).unwrap());
            queue.settle(message.number, 0);
        }
        assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
        let texts = text
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned());
        texts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(left(None), "a b c d e new");
    assert_eq!(left(Some("0Z gone")), "a b c d e new");
    assert_eq!(left(Some("1Z a")), "b c d e new");
    assert_eq!(left(Some("2Z b")), "c d e new");
    // The next batch has a log line with the same timestamp.
    assert_eq!(left(Some("4Z d")), "e new");
    assert_eq!(left(Some("4Z e")), "new");
    assert_eq!(left(Some("9Z later")), "new");
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, usize),
    Take,
    Settle,
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 1..300_usize).prop_map(|(name, length)| Step::Push(name, length)),
        3 => Just(Step::Take),
        2 => Just(Step::Settle),
        1 => Just(Step::Retry),
    ]
}

proptest! {
    /// Each log line of a subject is published once and in order, or the next message counts the log line as dropped. This is
    /// true for every sequence of steps.
    #[test]
    fn every_log_line_is_published_once_or_counted_as_dropped(steps in prop::collection::vec(step(), 1..200)) {
        let mut queue = Queue::new(3000);
        let mut pushed: HashMap<Arc<str>, u64> = HashMap::new();
        let mut reported: HashMap<Arc<str>, u64> = HashMap::new();
        let mut pending: Vec<QueuedMessage> = Vec::new();
        for step in steps.into_iter().chain((0..400).map(|i| if i % 2 == 0 { Step::Take } else { Step::Settle })) {
            match step {
                Step::Push(name, length) => {
                    let name = subject(&name.to_string());
                    let number = pushed.entry(Arc::clone(&name)).or_default();
                    *number += 1;
                    let text = format!("{number} {}\n", "x".repeat(length));
                    queue.push(&name, MessageKind::Lines, Batch { text, count: 1, dropped: 0 });
                }
                Step::Take => pending.extend(queue.take()),
                Step::Retry => if let Some(message) = pending.pop() {
                    queue.retry(message.number);
                },
                Step::Settle => if let Some(message) = pending.pop() {
                    queue.settle(message.number, 0);
                    let last = reported.entry(Arc::clone(&message.subject)).or_default();
                    *last += message.dropped;
                    for line in std::str::from_utf8(&message.text).unwrap().lines() {
                        *last += 1;
                        prop_assert_eq!(line.split(' ').next().unwrap(), last.to_string());
                    }
                },
            }
            let in_flight: usize = queue.messages.values().filter(|m| m.sent).map(super::Message::size).sum();
            prop_assert!(queue.taken <= 3000.max(in_flight));
        }
        prop_assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
        for (name, pushed) in pushed {
            let lost = queue.lost.get(&name).copied().unwrap_or_default();
            prop_assert_eq!(reported.get(&name).copied().unwrap_or_default() + lost, pushed);
        }
    }
}
