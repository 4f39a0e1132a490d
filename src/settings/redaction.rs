//! What is taken out of containers' log lines before they leave the host.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// The most expressions.
const MOST: usize = 64;
/// The most memory that one expression, or its search, may take, in bytes.
const LARGEST: usize = 1024 * 1024;
/// The most matches of an expression in a text.
const MOST_MATCHES: usize = 256;
/// What stands in place of what was taken out.
const REDACTED: &str = "[redacted]";
/// The group of an expression which is taken out instead of the whole match.
const SECRET: &str = "secret";

/// Expressions whose matches are taken out of a text; with none, nothing is. Its `Debug` text does not show them: one may be
/// a secret itself.
#[derive(Clone, Default)]
pub struct Redaction(Option<Arc<[Regex]>>);

impl Redaction {
    /// Reads expressions in the `regex` crate's syntax, separated by white space.
    ///
    /// # Errors
    /// Which expression is wrong, by its place in the list, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str =
            "accepted: regular expressions, separated by white space, which in one is written \\s";
        let expressions: Vec<&str> = text.split_whitespace().collect();
        if expressions.len() > MOST {
            return Err(format!("more than {MOST} expressions; {ACCEPTED}"));
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

    /// How many expressions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.as_deref().map_or(0, <[_]>::len)
    }

    /// Whether anything is taken out at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The text without what matches, whichever expression it is. Takes time that grows with the text's length and with
    /// nothing else in it.
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
            // What several expressions match is taken out once.
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
        .size_limit(LARGEST)
        .dfa_size_limit(LARGEST)
        .build();
    match compiled {
        Ok(compiled) if compiled.is_match("") => Err("matches nothing, so everywhere".to_owned()),
        Ok(compiled) => Ok(compiled),
        Err(regex::Error::CompiledTooBig(_)) => Err("is too large".to_owned()),
        Err(error) => {
            // The last of several lines; those before it quote the expression.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Err(format!("is not valid ({why})"))
        }
    }
}

/// Adds what an expression takes out of a text. Of so many matches as nobody expects the rest of the text is taken out as a
/// whole: each search begins anew, and only a bounded number of them is linear.
fn find(expression: &Regex, text: &str, secrets: &mut Vec<Range<usize>>) {
    for (number, captures) in expression.captures_iter(text).enumerate() {
        // One whose group takes no part in the match is a secret as a whole.
        let Some(secret) = captures.name(SECRET).or_else(|| captures.get(0)) else {
            continue;
        };
        if number == MOST_MATCHES {
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
    fn what_matches_is_taken_out() {
        assert_eq!(
            redacted(r"\d+ x", "a1b22 x"),
            "a[redacted]b[redacted] [redacted]"
        );
        assert_eq!(redacted("nothing", "as it was"), "as it was");
        assert_eq!(redacted("", "as it was"), "as it was");
        assert_eq!(redacted("é+", "caféé au lait"), "caf[redacted] au lait");
        // Several expressions see the same text, and what they take out is told once.
        assert_eq!(redacted("abc bcd e", "abcd e"), "[redacted] [redacted]");
        assert_eq!(redacted("bc abcd", "abcd"), "[redacted]");
        assert_eq!(redacted("ab cd", "abcd"), "[redacted]");
    }

    #[test]
    fn of_an_expression_with_a_secret_only_that_is_taken_out() {
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
    fn an_expression_that_cannot_be_used_is_named_by_its_place() {
        for (expressions, problem) in [
            (
                "fine [",
                "expression 2 is not valid (unclosed character class)",
            ),
            (r"(?=ahead)", "expression 1 is not valid (look-around"),
            (r"(.)\1", "expression 1 is not valid (backreferences"),
            ("x*", "expression 1 matches nothing"),
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
    fn no_text_takes_long() {
        // Exponential for an engine that backtracks.
        let redaction = Redaction::parse(r"(a+)+$ (x|x)*y").unwrap();
        let text = "a".repeat(8 * 1024) + &"x".repeat(8 * 1024);
        let started = Instant::now();
        assert_eq!(redaction.apply(text.as_str().into()), text);
        assert!(started.elapsed() < Duration::from_secs(2));
        // Quadratic, were each of its matches looked for: what is there after so many is taken out as a whole.
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
        fn nothing_that_matches_is_left(text in r"(key=[a-z]{0,8}|[ -~é]{0,4}){0,20}") {
            let text = redacted("key=[a-z]+", &text);
            let left = regex::Regex::new("key=[a-z]").unwrap();
            prop_assert!(!left.is_match(&text));
        }
    }
}
