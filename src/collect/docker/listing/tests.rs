//! Tests of the container list.

use serde_json::{Value, json};

use super::{ListScope, ListedContainer, ListedContainers, Listing, MAX_CONTAINERS, MAX_STOPPED};
use crate::collect::docker::choice::ContainerChoice;
use crate::collect::docker::json::Json;
use crate::collect::docker::pieces::Piece;

const ID: &str = "0123456789abcdef";

fn listed(json: &str) -> Option<ListedContainer> {
    ListedContainer::read(&Json::parse(json.as_bytes()).unwrap()).ok()
}

/// Returns a container with one value of its list entry replaced.
fn with(key: &str, value: Value) -> ListedContainer {
    let mut entry =
        json!({"Id": ID, "Names": ["/web"], "Image": "i", "State": "running", "Created": 5});
    entry[key] = value;
    listed(&entry.to_string()).unwrap()
}

fn listing(entries: &[&str]) -> (Vec<ListedContainer>, Option<String>) {
    let listed = listing_of(ListScope::Running, entries);
    (listed.running, listed.unreadable)
}

fn listing_of(scope: ListScope, entries: &[&str]) -> ListedContainers {
    let choice = ContainerChoice::default();
    let mut listing = Listing::new(scope, &choice);
    entries
        .iter()
        .for_each(|entry| listing.add(Piece::Whole(entry.as_bytes())));
    listing.check().unwrap();
    listing.finish()
}

#[test]
fn an_invalid_value_does_not_affect_other_values() {
    for (value, state) in [
        (json!("initialized"), "initialized"),
        (json!("stopped"), "stopped"),
        (json!("Running"), "Running"),
        (json!(7), "7"),
        (json!(null), "unknown"),
        (json!(""), "unknown"),
        (json!([1]), "unknown"),
    ] {
        assert_eq!(&*with("State", value).meta.state, state);
    }
    for (value, created) in [
        (json!(1.7e9), 1_700_000_000),
        (json!("1700000000"), 1_700_000_000),
        (json!("2023-11-14T22:13:20Z"), 1_700_000_000),
        (json!(-62_135_596_800_i64), 0),
        (json!(1e300), 0),
        (json!("soon"), 0),
        (json!(null), 0),
    ] {
        assert_eq!(with("Created", value).meta.created, created);
    }
    for (value, name) in [
        (json!(null), "/0123456789ab"),
        (json!([]), "/0123456789ab"),
        (json!(["", "/", null]), "/0123456789ab"),
        (json!(["web"]), "/web"),
        (json!([5, "/x"]), "/5"),
        (json!("/web"), "/0123456789ab"),
    ] {
        assert_eq!(&*with("Names", value).name, name);
    }
    for value in [
        json!(null),
        json!({}),
        json!("x"),
        json!([null, 5, {}, {"PrivatePort": 70000}, {"PublicPort": 1}]),
    ] {
        assert_eq!(*with("Ports", value).meta.ports, []);
    }
    let ports = json!([
        {"PrivatePort": 80, "Type": "QUIC"}, {"PrivatePort": "81", "PublicPort": -1, "Type": null, "IP": null},
        {"PrivatePort": 82, "PublicPort": 70000, "Type": "TCP"}, {"PrivatePort": 0, "PublicPort": 0, "Type": 6},
    ]);
    assert_eq!(
        serde_json::to_value(&with("Ports", ports).meta.ports).unwrap(),
        json!([
            {"PrivatePort": 80, "Type": "quic"}, {"PrivatePort": 81, "Type": "tcp"},
            {"PrivatePort": 82, "Type": "tcp"}, {"PrivatePort": 0, "Type": "6"},
        ])
    );
}

#[test]
fn an_unreadable_entry_is_named_in_the_error() {
    let good = format!(r#"{{"Id":"{ID}","Names":["/good"]}}"#);
    for (odd, reason) in [
        ("null", "it has no id"),
        ("", "not valid JSON at byte 0"),
        (r#"{"Names":["/odd"]}"#, r#""/odd": it has no id"#),
        (r#"{"Id":"xyz"}"#, r#""xyz": not a container id"#),
        (
            r#"{"Id":"../../0123456789"}"#,
            r#""../../0123456789": not a container id"#,
        ),
        (
            r#"{"Id":"f00","Names":["/a"}"#,
            r#""f00": not valid JSON at byte 25"#,
        ),
    ] {
        let (listed, unreadable) = listing(&[odd, &good]);
        assert_eq!(listed.len(), 1, "{odd}");
        assert_eq!(&*listed[0].name, "/good");
        let expected = format!("list containers: an entry cannot be read: {reason}");
        assert_eq!(unreadable.unwrap(), expected);
    }
    let unreadable = listing(&["null", "{}", "[]"]).1.unwrap();
    assert!(unreadable.ends_with("(and 2 more)"), "{unreadable}");
    assert_eq!(listing(&[&good]).1, None);
}

#[test]
fn no_two_containers_share_an_id_or_a_name() {
    let entry = |id: &str, name: &str| format!(r#"{{"Id":"{id}","Names":["{name}"]}}"#);
    let other = "FEDCBA987654";
    let entries = [entry(ID, "/web"), entry(ID, "/again"), entry(other, "/web")];
    let (listed, unreadable) = listing(&entries.each_ref().map(String::as_str));
    let names: Vec<_> = listed.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["/web", "/fedcba987654"]);
    assert_eq!(
        listed[1].id, other,
        "calls use the id as the engine writes it"
    );
    assert_eq!(unreadable, None);
}

#[test]
fn a_list_of_all_containers_tells_which_ones_are_stopped() {
    let states = [
        ("running", false),
        ("exited", true),
        ("paused", false),
        ("created", true),
        ("restarting", false),
        ("dead", true),
        ("removing", true),
        ("stopped", true),
        ("strange", false),
    ];
    let mut ids = 0..;
    let entries = states.map(|(state, _)| {
        let id = format!("{:064}", ids.next().unwrap());
        format!(r#"{{"Id":"{id}","Names":["/{state}"],"State":"{state}"}}"#)
    });
    let entries = entries.each_ref().map(String::as_str);
    let names = |listed: &[ListedContainer]| -> Vec<String> {
        listed
            .iter()
            .map(|one| one.bare_name().to_owned())
            .collect()
    };
    let expected = |is: bool| -> Vec<&str> {
        let states = states.iter().filter(|(_, stopped)| *stopped == is);
        states.map(|(state, _)| *state).collect()
    };
    let all = listing_of(ListScope::All, &entries);
    assert_eq!(names(&all.running), expected(false));
    assert_eq!(names(&all.stopped), expected(true));
    let running = listing_of(ListScope::Running, &entries);
    assert_eq!((running.running.len(), running.stopped.len()), (9, 0));
}

#[test]
fn too_many_stopped_containers_are_counted() {
    let choice = ContainerChoice::default();
    let mut listing = Listing::new(ListScope::All, &choice);
    for number in 0..MAX_STOPPED + 3 {
        let entry = format!(r#"{{"Id":"{number:064x}","State":"exited"}}"#);
        listing.add(Piece::Whole(entry.as_bytes()));
    }
    listing.check().unwrap();
    let listed = listing.finish();
    assert_eq!(
        (listed.stopped.len(), listed.stopped_surplus),
        (MAX_STOPPED, 3)
    );
}

#[test]
fn a_list_has_limits() {
    let choice = ContainerChoice::default();
    let mut listing = Listing::new(ListScope::Running, &choice);
    for number in 0..=MAX_CONTAINERS {
        listing.check().unwrap();
        listing.add(Piece::Whole(
            format!(r#"{{"Id":"{number:064x}"}}"#).as_bytes(),
        ));
    }
    assert_eq!(listing.check().unwrap_err(), "more than 10000 containers");

    let mut listing = Listing::new(ListScope::Running, &choice);
    let ports = vec![json!({"PrivatePort": 1}); 10_000];
    let wide = json!({"Id": ID, "Image": "x".repeat(100_000), "Ports": ports}).to_string();
    let of_one = (0..1000).take_while(|_| {
        listing.add(Piece::Whole(wide.as_bytes()));
        listing.check().is_ok()
    });
    assert!((2..500).contains(&of_one.count()));
    assert!(
        listing
            .containers
            .iter()
            .all(|one| one.meta.image.len() == 4096)
    );
}

#[test]
fn texts_and_ports_are_published_as_the_engine_gives_them() {
    let listed = listed(
        r#"{"Id":"0123456789abcdef0123456789abcdef","Names":["/db/cache","/cache"],
            "Image":"redis:7","Created":1640995200,"State":"running",
            "Status":"Up 2 hours (healthy)",
            "Ports":[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},
                     {"PrivatePort":53,"Type":"udp"}]}"#,
    )
    .unwrap();
    assert_eq!(&*listed.name, "/cache");
    assert_eq!(listed.bare_name(), "cache");
    assert_eq!(&*listed.meta.id, "0123456789ab");
    assert_eq!(&*listed.meta.status, "Up 2 hours (healthy)");
    assert_eq!(
        serde_json::to_string(&listed.meta.ports).unwrap(),
        r#"[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},{"PrivatePort":53,"Type":"udp"}]"#
    );
}

#[test]
fn only_the_id_is_required() {
    assert_eq!(listed("{}"), None);
    let listed = listed(r#"{"Id":"0123456789abcdef"}"#).unwrap();
    assert_eq!(&*listed.name, "/0123456789ab");
    assert!(listed.meta.ports.is_empty());
}
