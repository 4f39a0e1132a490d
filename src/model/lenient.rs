//! Reads snapshots from other versions of the agent. If this version expects a whole number and finds a fraction, the fraction
//! is rounded. If this version expects a value and finds null, null is read as false, zero, an empty text, an empty array or an
//! empty object. An unknown word for a state or kind is stored in the variant `Other` of the type.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Parses one value.
///
/// # Errors
/// Fails if the text is not JSON, if a required field is missing, or if a value has the wrong type.
pub(crate) fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Lenient(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Wraps a type of serde. The value, and all values inside the value, are then read by the rules of this module.
struct Lenient<T>(T);

/// The type that the model expects.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Boolean,
    Integer,
    Number,
    Text,
    List,
    Object,
    /// Any other type. Null is passed on unchanged.
    Other,
}

struct LenientVisitor<V> {
    visitor: V,
    wanted: Wanted,
}

/// An empty array or object.
struct Nothing<E>(std::marker::PhantomData<E>);

impl<D> Lenient<D> {
    /// Asks serde_json for a value of any type. If this function asked for the expected type, serde_json would refuse every
    /// other type.
    fn any<'de, V: Visitor<'de>>(self, wanted: Wanted, visitor: V) -> Result<V::Value, D::Error>
    where
        D: Deserializer<'de>,
    {
        self.0.deserialize_any(LenientVisitor { visitor, wanted })
    }
}

macro_rules! wanted {
    ($wanted:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.any(Wanted::$wanted, visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<D> {
    type Error = D::Error;

    wanted!(Boolean: deserialize_bool);
    wanted!(Integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    wanted!(Integer: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);
    wanted!(Number: deserialize_f32 deserialize_f64);
    wanted!(Text: deserialize_char deserialize_str deserialize_string);
    wanted!(List: deserialize_seq);
    wanted!(Object: deserialize_map);
    wanted!(Other: deserialize_any deserialize_bytes deserialize_byte_buf deserialize_unit);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let wanted = Wanted::Other;
        self.0
            .deserialize_option(LenientVisitor { visitor, wanted })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.any(Wanted::List, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.any(Wanted::List, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.any(Wanted::Object, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.any(Wanted::Other, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let wanted = Wanted::Other;
        let visitor = LenientVisitor { visitor, wanted };
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for LenientVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match self.wanted {
            // A cast of a value that is too large returns the largest integer.
            Wanted::Integer if value < 0.0 => self.visitor.visit_i64(value.round() as i64),
            Wanted::Integer => self.visitor.visit_u64(value.round() as u64),
            _ => self.visitor.visit_f64(value),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.visitor.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.visitor.visit_borrowed_str(value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        self.visitor.visit_string(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Lenient(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Lenient(value))
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        let nothing = Nothing(std::marker::PhantomData);
        match self.wanted {
            Wanted::Boolean => self.visitor.visit_bool(false),
            Wanted::Integer => self.visitor.visit_u64(0),
            Wanted::Number => self.visitor.visit_f64(0.0),
            Wanted::Text => self.visitor.visit_str(""),
            Wanted::List => self.visitor.visit_seq(nothing),
            Wanted::Object => self.visitor.visit_map(nothing),
            Wanted::Other => self.visitor.visit_unit(),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Lenient(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Lenient(entries))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Lenient<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Lenient(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Lenient<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Lenient(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Lenient<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Lenient(value))
    }
}

impl<'de, E: Error> SeqAccess<'de> for Nothing<E> {
    type Error = E;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, E> {
        Ok(None)
    }
}

impl<'de, E: Error> MapAccess<'de> for Nothing<E> {
    type Error = E;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, E> {
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<T::Value, E> {
        Err(E::custom("no value without a key"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::read;
    use crate::model::Snapshot;

    const RECORDED: &str = include_str!("../../tests/fixtures/snapshot.json");

    /// Calls `with` for every value that is not an object or an array.
    fn change(value: &mut Value, with: &impl Fn(&mut Value)) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|one| change(one, with)),
            Value::Object(all) => all.values_mut().for_each(|one| change(one, with)),
            other => with(other),
        }
    }

    fn read_value(value: &Value) -> serde_json::Result<Snapshot> {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn a_snapshot_of_this_version_is_read_unchanged() {
        let strict: Snapshot = serde_json::from_str(RECORDED).unwrap();
        assert_eq!(read::<Snapshot>(RECORDED.as_bytes()).unwrap(), strict);
        for broken in ["", "{", "[]", "null", "{}", r#"{"error":"x"}"#] {
            assert!(read::<Snapshot>(broken.as_bytes()).is_err(), "{broken}");
        }
        let twice = format!("{RECORDED}{RECORDED}");
        assert!(read::<Snapshot>(twice.as_bytes()).is_err());
    }

    #[test]
    fn a_fraction_in_place_of_a_whole_number_is_rounded() {
        let strict: Snapshot = serde_json::from_str(RECORDED).unwrap();
        let mut later: Value = serde_json::from_str(RECORDED).unwrap();
        change(&mut later, &|value| {
            // An f64 cannot hold larger numbers with a fraction exactly.
            if let Some(whole) = value.as_u64().filter(|whole| *whole < 1 << 50) {
                *value = (whole as f64 + 0.25).into();
            }
        });
        let read = read_value(&later).unwrap();
        assert_eq!(read.agent, strict.agent);
        assert_eq!(read.host, strict.host);
        assert_eq!(read.docker_meta, strict.docker_meta);
        assert_eq!(read.system.uptime, strict.system.uptime);
        assert!(serde_json::from_value::<Snapshot>(later).is_err());
    }

    #[test]
    fn null_is_read_as_zero_or_empty() {
        let mut later: Value = serde_json::from_str(RECORDED).unwrap();
        for section in ["system", "host", "agent"] {
            let fields = later[section].as_object_mut().unwrap();
            for (name, field) in fields {
                // Objects and the array with a fixed length cannot be null.
                if !field.is_object() && name != "cpu_percent" {
                    *field = Value::Null;
                }
            }
        }
        for section in ["containers", "docker_meta", "logs", "events"] {
            later[section] = Value::Null;
        }
        let read = read_value(&later).unwrap();
        assert_eq!(read.agent.version, "");
        assert_eq!((read.host.cpus, read.system.uptime), (0, 0));
        assert!(read.system.network.is_empty() && read.containers.is_empty());
        assert!(read.logs.is_empty() && read.events.is_empty());
    }
}
