//! `LOG_REDACT`: the parts of log lines and command lines that the agent replaces before it publishes them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// Maximum number of expressions.
const MAX_EXPRESSIONS: usize = 64;
/// Limit on the memory of one compiled expression, in bytes. A search with this expression has the same limit.
const MAX_MEMORY: usize = 1024 * 1024;
/// Maximum number of matches of one expression in one text. All text after these matches is redacted.
const MAX_MATCHES: usize = 256;
/// The text that replaces a redacted part.
const REDACTED: &str = "[redacted]";
/// The name of a group in an expression. If a match contains this group, only the group is redacted, not the whole match.
const SECRET: &str = "secret";

/// Regular expressions whose matches are redacted. The `Debug` text does not show the expressions, because an expression can
/// contain a secret.
#[derive(Clone, Default)]
pub struct Redaction(Option<Arc<[Regex]>>);

impl Redaction {
    /// Reads expressions in the `regex` crate's syntax, separated by white space.
    ///
    /// # Errors
    /// Fails if an expression is wrong. The error has the place of the expression in the list, and the reason. It does not show
    /// the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "accepted: regular expressions, separated by white space (write \\s for white space in an expression)";
        let expressions: Vec<&str> = text.split_whitespace().collect();
        if expressions.len() > MAX_EXPRESSIONS {
            return Err(format!(
                "more than {MAX_EXPRESSIONS} expressions; {ACCEPTED}"
            ));
        }
        let compiled: Vec<Regex> = expressions
            .into_iter()
            .enumerate()
            .map(|(index, expression)| {
                compile(expression)
                    .map_err(|problem| format!("expression {} {problem}; {ACCEPTED}", index + 1))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self((!compiled.is_empty()).then(|| compiled.into())))
    }

    /// The number of expressions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.as_deref().map_or(0, <[_]>::len)
    }

    /// Whether there is at least one expression.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Redacts the matches of all expressions in a text. The time is proportional to the length of the text, whatever the text
    /// contains.
    #[must_use]
    pub fn apply<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        let mut secrets: Vec<Range<usize>> = Vec::new();
        for expression in self.0.iter().flat_map(|all| all.iter()) {
            find(expression, &text, &mut secrets);
        }
        if secrets.is_empty() {
            return text;
        }
        secrets.sort_unstable_by_key(|secret| secret.start);
        let mut redacted = String::with_capacity(text.len());
        let mut shown = 0;
        for secret in secrets {
            // Matches of several expressions can overlap. Overlapping matches are replaced by a single `[redacted]`.
            if secret.start > shown || redacted.is_empty() {
                redacted.push_str(&text[shown..secret.start.max(shown)]);
                redacted.push_str(REDACTED);
            }
            shown = shown.max(secret.end);
        }
        redacted.push_str(&text[shown..]);
        redacted.into()
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} expressions", self.count())
    }
}

impl PartialEq for Redaction {
    fn eq(&self, other: &Self) -> bool {
        let texts = |redaction: &Self| -> Vec<String> {
            let all = redaction.0.iter().flat_map(|all| all.iter());
            all.map(ToString::to_string).collect()
        };
        texts(self) == texts(other)
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(expression)
        .size_limit(MAX_MEMORY)
        .dfa_size_limit(MAX_MEMORY)
        .build();
    match compiled {
        Ok(compiled) if compiled.is_match("") => Err("matches an empty text".to_owned()),
        Ok(compiled) => Ok(compiled),
        Err(regex::Error::CompiledTooBig(_)) => Err("is too large".to_owned()),
        Err(error) => {
            // Take only the final line of the error, because the other lines show the expression.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Err(format!("is not valid ({why})"))
        }
    }
}

/// Searches a text with one expression, and adds the ranges that must be redacted to `secrets`. After 256 matches all remaining
/// text is redacted. Without this limit the time could be quadratic, because each search for the next match can read all
/// remaining text.
fn find(expression: &Regex, text: &str, secrets: &mut Vec<Range<usize>>) {
    for (number, captures) in expression.captures_iter(text).enumerate() {
        // If a match does not contain the group `secret`, the whole match is redacted.
        let Some(secret) = captures.name(SECRET).or_else(|| captures.get(0)) else {
            continue;
        };
        if number == MAX_MATCHES {
            secrets.push(secret.start()..text.len());
            return;
        }
        if !secret.is_empty() {
            secrets.push(secret.range());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::Redaction;

    fn redacted(expressions: &str, text: &str) -> String {
        let redaction = Redaction::parse(expressions).unwrap();
        redaction.apply(text.into()).into_owned()
    }

    #[test]
    fn each_match_is_replaced() {
        assert_eq!(
            redacted(r"\d+ x", "a1b22 x"),
            "a[redacted]b[redacted] [redacted]"
        );
        assert_eq!(redacted("nothing", "as it was"), "as it was");
        assert_eq!(redacted("", "as it was"), "as it was");
        assert_eq!(redacted("é+", "caféé au lait"), "caf[redacted] au lait");
        // All expressions search the original text. Overlapping matches are replaced once.
        assert_eq!(redacted("abc bcd e", "abcd e"), "[redacted] [redacted]");
        assert_eq!(redacted("bc abcd", "abcd"), "[redacted]");
        assert_eq!(redacted("ab cd", "abcd"), "[redacted]");
    }

    #[test]
    fn only_the_group_secret_is_replaced_if_an_expression_has_one() {
        let password = r"(?i)password=(?P<secret>\S+)";
        assert_eq!(
            redacted(password, "Password=hunter2 password=x, ok"),
            "Password=[redacted] password=[redacted] ok"
        );
        assert_eq!(
            redacted(r"a(?P<secret>b)?c", "abc ac"),
            "a[redacted]c [redacted]"
        );
    }

    #[test]
    fn an_error_names_the_place_of_the_bad_expression() {
        for (expressions, problem) in [
            (
                "fine [",
                "expression 2 is not valid (unclosed character class)",
            ),
            (r"(?=ahead)", "expression 1 is not valid (look-around"),
            (r"(.)\1", "expression 1 is not valid (backreferences"),
            ("x*", "expression 1 matches an empty text"),
            (r"fine fine \w{1000}{1000}", "expression 3 is too large"),
        ] {
            let error = Redaction::parse(expressions).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
            assert!(
                error.contains("accepted: ") && !error.contains('\n'),
                "{error}"
            );
        }
        assert!(Redaction::parse(&"x ".repeat(65)).is_err());
    }

    #[test]
    fn every_text_is_redacted_in_a_short_time() {
        // A search with backtracking would need exponential time.
        let redaction = Redaction::parse(r"(a+)+$ (x|x)*y").unwrap();
        let text = "a".repeat(8 * 1024) + &"x".repeat(8 * 1024);
        let started = Instant::now();
        assert_eq!(redaction.apply(text.as_str().into()), text);
        assert!(started.elapsed() < Duration::from_secs(2));
        // A search for all matches would need quadratic time. After 256 matches all remaining text is redacted.
        let redaction = Redaction::parse(".*[^A-Z]|[A-Z]").unwrap();
        let started = Instant::now();
        let redacted = redaction.apply("A".repeat(16 * 1024).into());
        assert!(
            !redacted.contains('A') && redacted.len() < 10_000,
            "{}",
            redacted.len()
        );
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_redacted_text_has_no_match(text in r"(key=[a-z]{0,8}|[ -~é]{0,4}){0,20}") {
            let text = redacted("key=[a-z]+", &text);
            let left = regex::Regex::new("key=[a-z]").unwrap();
            prop_assert!(!left.is_match(&text));
        }
    }
}
