//! A lenient JSON reader for the engine's answers.
//!
//! A strict reader refuses a whole answer because of one invalid value. Examples are a number that is too large for its type,
//! half of a surrogate pair, or a byte that is not UTF-8. This reader replaces or omits the invalid value, and reads the other
//! values. Only an invalid structure is an error.

/// Maximum depth of nesting. A list or object at a greater depth is read as null.
const MAX_DEPTH: usize = 64;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    /// The members in the order of the text. If two keys are equal, [`Json::get`] returns the value of the second key.
    Object(Vec<(String, Json)>),
}

/// The position of the first byte at which a text is not valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON at byte {0}")]
pub(crate) struct NotJson(usize);

impl Json {
    /// Reads a text that has exactly one value.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, NotJson> {
        let mut parser = Parser { text, at: 0 };
        if text.starts_with(b"\xef\xbb\xbf") {
            parser.at = 3;
        }
        let value = parser.value(0)?;
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(NotJson(parser.at)),
        }
    }

    /// Returns a member of an object. Null if there is no such member.
    pub(crate) fn get(&self, key: &str) -> &Self {
        let mut members = self.members().iter().rev();
        members
            .find(|(name, _)| name == key)
            .map_or(&Self::Null, |(_, value)| value)
    }

    /// Returns the members of an object. Empty for any other value.
    pub(crate) fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// Returns the items of a list. Empty for any other value.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// Returns a text. Converts a number or a Boolean value to a text. None for any other value.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Boolean(value) => Some(value.to_string()),
            Self::Unsigned(number) => Some(number.to_string()),
            Self::Signed(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// Works like [`Json::text`], but returns none for an empty text.
    pub(crate) fn non_empty_text(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty())
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Returns an integer. Drops the fraction of a number, and reads a number that is written as a text.
    pub(crate) fn integer(&self) -> Option<i64> {
        /// 2^63, the smallest number that is too large.
        const END: f64 = 9_223_372_036_854_775_808.0;
        match self {
            Self::Unsigned(number) => i64::try_from(*number).ok(),
            Self::Signed(number) => Some(*number),
            Self::Float(number) if (-END..END).contains(number) => Some(*number as i64),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Works like [`Json::integer`], but returns none for a negative number.
    pub(crate) fn count(&self) -> Option<u64> {
        /// 2^64, the smallest number that is too large.
        const END: f64 = 18_446_744_073_709_551_616.0;
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Float(number) if (0.0..END).contains(number) => Some(*number as u64),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Works like [`Json::count`], for a type with a smaller range.
    pub(crate) fn number<T: TryFrom<u64>>(&self) -> Option<T> {
        self.count().and_then(|number| T::try_from(number).ok())
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// Skips white space and returns the next byte.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        self.take(byte).then_some(()).ok_or(NotJson(self.at))
    }

    fn value(&mut self, depth: usize) -> Result<Json, NotJson> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => self.skip(),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(_) => self.scalar(),
            None => Err(NotJson(self.at)),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, NotJson> {
        self.expect(b'{')?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(NotJson(self.at));
            }
            let key = self.string()?;
            self.expect(b':')?;
            members.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            self.expect(b',')?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, NotJson> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Json::List(items));
            }
            self.expect(b',')?;
        }
    }

    /// Skips a list or an object of any depth, without recursion.
    fn skip(&mut self) -> Result<Json, NotJson> {
        let mut nesting = Nesting::default();
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            nesting.pass(byte);
            if nesting.is_outside() {
                return Ok(Json::Null);
            }
        }
        Err(NotJson(self.at))
    }

    /// Reads the text between quotes. The parser is at the opening quote.
    fn string(&mut self) -> Result<String, NotJson> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = memchr::memchr2(b'"', b'\\', rest).ok_or(NotJson(self.text.len()))?;
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(match String::from_utf8(text) {
                    Ok(text) => text,
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                });
            }
            let escape = *self.text.get(self.at).ok_or(NotJson(self.at))?;
            self.at += 1;
            let character = match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode(),
                // This is a quote, a slash, a backslash, or a character that needs no escape.
                other => {
                    text.push(other);
                    continue;
                }
            };
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// Reads the digits after `\u`. If the digits are the first half of a surrogate pair, also reads the second half.
    fn unicode(&mut self) -> char {
        let Some(first) = self.hex_digits() else {
            return char::REPLACEMENT_CHARACTER;
        };
        let after_first = self.at;
        if (0xd800..0xdc00).contains(&first) && self.text.get(self.at..self.at + 2) == Some(b"\\u")
        {
            self.at += 2;
            if let Some(second @ 0xdc00..0xe000) = self.hex_digits() {
                let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
            self.at = after_first;
        }
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let number = digits.iter().try_fold(0, |number, digit| {
            Some(number * 16 + char::from(*digit).to_digit(16)?)
        })?;
        self.at += 4;
        Some(number)
    }

    fn scalar(&mut self) -> Result<Json, NotJson> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        let word = str::from_utf8(&rest[..length]).map_err(|_| NotJson(self.at))?;
        let value = match word {
            // `NaN` and `Infinity` are not JSON, but some programs write them.
            "null" | "NaN" | "Infinity" | "-Infinity" => Json::Null,
            "true" => Json::Boolean(true),
            "false" => Json::Boolean(false),
            _ => number(word).ok_or(NotJson(self.at))?,
        };
        self.at += length;
        Ok(value)
    }
}

fn number(word: &str) -> Option<Json> {
    if !word.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    word.parse()
        .map(Json::Unsigned)
        .or_else(|_| word.parse().map(Json::Signed))
        .or_else(|_| word.parse().map(Json::Float))
        .ok()
}

/// Counts how deeply a place in a text is nested in lists and objects. Accepts any bytes, and uses no recursion.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    pub(super) fn pass(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether the place is outside of all lists, objects and strings.
    pub(super) fn is_outside(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::Json;

    fn parse(text: impl AsRef<[u8]>) -> Json {
        let text = text.as_ref();
        Json::parse(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    #[test]
    fn every_escape_and_byte_in_a_text_is_read() {
        for (json, expected) in [
            (&br#""a\n\"\\\/\u00e9""#[..], "a\n\"\\/é"),
            (br#""\ud83d\ude00""#, "😀"),
            (br#""\ud800""#, "\u{fffd}"),
            (br#""\ud800\u0041""#, "\u{fffd}A"),
            (br#""\udc00x""#, "\u{fffd}x"),
            (br#""\ud800\ud83d\ude00""#, "\u{fffd}😀"),
            (br#""\uzzzz""#, "\u{fffd}zzzz"),
            (b"\"caf\xe9\"", "caf\u{fffd}"),
            (b"\"a\0b\x01\"", "a\0b\u{1}"),
            (b"\xef\xbb\xbf \"with a BOM\" ", "with a BOM"),
        ] {
            assert_eq!(parse(json), Json::Text(expected.to_owned()));
        }
    }

    #[test]
    fn a_number_out_of_range_is_not_an_integer() {
        assert_eq!(parse("18446744073709551615").count(), Some(u64::MAX));
        assert_eq!(parse("1.7e9").integer(), Some(1_700_000_000));
        assert_eq!(parse("\" 12 \"").count(), Some(12));
        assert_eq!(parse("-5").integer(), Some(-5));
        for none in [
            "1e300", "1e400", "-1e400", "null", "[1]", "\"x\"", "NaN", "true",
        ] {
            assert_eq!(parse(none).integer(), None, "{none}");
            assert_eq!(parse(none).count(), None, "{none}");
        }
        assert_eq!(parse("-1").count(), None);
        assert_eq!(parse("70000").number::<u16>(), None);
        assert_eq!(parse("18446744073709551616").count(), None);
    }

    #[test]
    fn the_second_of_two_equal_keys_counts() {
        assert_eq!(parse(r#"{"a":1,"a":2}"#).get("a").count(), Some(2));
        assert_eq!(parse("[]").get("a"), &Json::Null);
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!(
            "{{\"deep\":{}{},\"b\":1}}",
            "[".repeat(400_000),
            "]".repeat(400_000)
        );
        assert_eq!(parse(deep).get("b").count(), Some(1));
        assert!(Json::parse("[".repeat(400_000).as_bytes()).is_err());
    }

    #[test]
    fn a_broken_structure_is_an_error() {
        for broken in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[,]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "\"",
            "\"\\",
            "\"\\u12",
            "nul",
            "tru",
            "1 2",
            "{} x",
            "<html>",
            "-",
            "+1",
            ".5",
            "]",
            "{\"a\":1,}",
            "\x1f\u{8b}",
        ] {
            assert!(Json::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn fuzz_lenient_json() {
        let seeds: [&[u8]; 3] = [
            br#"{"a":[1,-2,3.5e6,null,true,"x\ud83d\ude00\n"],"b":{"c":{}}}"#,
            b"[[[[{\"a\":\"\xff\"}]]]]",
            br#"{"Id":"0123","Ports":[{"PrivatePort":70000}],"a":"\\u12"}"#,
        ];
        crate::fuzzing::run("lenient_json", &seeds, |bytes| {
            let read = Json::parse(bytes);
            if serde_json::from_slice::<Value>(bytes).is_ok() {
                assert!(read.is_ok(), "the strict reader accepts this text");
            }
        });
    }

    fn same(ours: &Json, strict: &Value) -> bool {
        match strict {
            Value::Null => *ours == Json::Null,
            Value::Bool(value) => ours.boolean() == Some(*value),
            Value::Number(number) => match ours {
                Json::Float(float) => number.as_f64() == Some(*float),
                _ => ours.text() == Some(number.to_string()),
            },
            Value::String(text) => *ours == Json::Text(text.clone()),
            Value::Array(items) => {
                ours.items().len() == items.len()
                    && ours
                        .items()
                        .iter()
                        .zip(items)
                        .all(|(ours, strict)| same(ours, strict))
            }
            Value::Object(members) => members
                .iter()
                .all(|(key, value)| same(ours.get(key), value)),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_json_is_read_as_the_strict_reader_reads_it(value in values()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert!(same(&parse(&text), &value), "{:?}", value);
        }
    }
}
