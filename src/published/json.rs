//! Writes a value as JSON, with fewer steps than `serde_json` needs.
//!
//! The fields of a snapshot are most of its JSON. `serde_json` writes a comma, a quotation mark, the name, a quotation mark and a colon
//! one by one. This module joins the characters before a name, and those after it. The result is the same.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Appends the value as JSON.
///
/// # Errors
/// Fails if the value cannot be JSON, for example a map whose keys are lists.
pub(super) fn append_json(json: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(json, JoinedNames::default());
    Ok(value.serialize(&mut serializer)?)
}

#[derive(Debug, Default)]
struct JoinedNames {
    next: NextString,
}

/// What the string that comes next is. `serde_json` writes exactly one string between `begin_object_key` and `begin_object_value`.
#[derive(Debug, Default)]
enum NextString {
    #[default]
    Value,
    FirstName,
    /// A name with another one before it, so it needs a comma.
    OtherName,
}

impl Formatter for JoinedNames {
    fn begin_object_key<W: ?Sized + Write>(&mut self, _: &mut W, first: bool) -> io::Result<()> {
        self.next = if first {
            NextString::FirstName
        } else {
            NextString::OtherName
        };
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(match self.next {
            NextString::Value | NextString::FirstName => b"\"",
            NextString::OtherName => b",\"",
        })
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.next {
            NextString::Value => writer.write_all(b"\""),
            // `begin_object_value` follows.
            NextString::FirstName | NextString::OtherName => Ok(()),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.next = NextString::Value;
        writer.write_all(b"\":")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::value::RawValue;

    use super::append_json;
    use crate::model::Snapshot;

    #[derive(Serialize)]
    struct Every<'t> {
        text: &'t str,
        empty: (),
        list: Vec<Option<u8>>,
        by_number: BTreeMap<i8, &'t str>,
        by_truth: BTreeMap<bool, char>,
        nothing: BTreeMap<u8, u8>,
        variant: Variant,
        #[serde(flatten)]
        more: BTreeMap<&'t str, f64>,
        raw: &'t RawValue,
        objects: [BTreeMap<char, NoField>; 2],
        by_variant: BTreeMap<Key, u8>,
        no_field: NoField,
    }

    #[derive(Serialize)]
    enum Variant {
        Unit,
        One(&'static str),
        Pair(u8, &'static str),
        Two { a: u8, b: Option<Box<Variant>> },
    }

    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    enum Key {
        First,
        Other,
    }

    #[derive(Serialize)]
    struct NoField {}

    #[derive(Serialize)]
    struct OnlyMore {
        #[serde(flatten)]
        more: BTreeMap<&'static str, u8>,
        after: u8,
    }

    fn check(value: &impl Serialize) {
        let mut json = b"before".to_vec();
        append_json(&mut json, value).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert_eq!(
            json,
            format!("before{}", serde_json::to_string(value).unwrap())
        );
    }

    #[test]
    fn the_result_is_that_of_serde_json() {
        let raw = RawValue::from_string(r#"{"a":{"b":[1,"c"]}}"#.to_owned()).unwrap();
        let inner = Variant::Two { a: 2, b: None };
        for variant in [
            Variant::Unit,
            Variant::One("o\"ne"),
            Variant::Pair(1, "\""),
            Variant::Two {
                a: 1,
                b: Some(Box::new(inner)),
            },
        ] {
            check(&Every {
                text: "a \"quoted\" \\ text\nä\u{1}",
                empty: (),
                list: vec![Some(1), None],
                by_number: [(-1, "minus"), (2, "\"")].into(),
                by_truth: [(false, '"'), (true, 'ß')].into(),
                nothing: BTreeMap::new(),
                variant,
                more: [("one\"", 0.1), ("two", f64::NAN)].into(),
                raw: &raw,
                objects: [[('"', NoField {})].into(), BTreeMap::new()],
                by_variant: [(Key::First, 1), (Key::Other, 2)].into(),
                no_field: NoField {},
            });
        }
        for more in [BTreeMap::new(), [("one", 1), ("two", 2)].into()] {
            check(&OnlyMore { more, after: 3 });
        }
        check(&Snapshot::recorded());
        check(&"text");
        check(&[[["deep"]]]);
    }

    #[test]
    fn a_key_that_is_no_text_is_an_error() {
        let map = BTreeMap::from([(vec![1], 2)]);
        assert!(append_json(&mut Vec::new(), &map).is_err());
    }

    proptest! {
        #[test]
        fn every_map_is_that_of_serde_json(
            map in btree_map(".{0,5}", btree_map(".{0,5}", vec(".{0,5}", 0..3), 0..3), 0..4)
        ) {
            check(&map);
        }
    }
}
