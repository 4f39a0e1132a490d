//! Lists of patterns for names: `CONTAINER_LABELS`, `DISKS_EXCLUDE` and `NETWORKS_EXCLUDE`.

use wildmatch::WildMatch;

/// Maximum number of patterns.
const MAX_PATTERNS: usize = 64;

/// Patterns for names. In a pattern, `*` stands for any text and `?` for any character. An empty list matches no name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patterns(Vec<WildMatch>);

impl Patterns {
    /// Reads a list of patterns, separated by commas. `names` tells people what the patterns match, for example `names of labels`.
    ///
    /// # Errors
    /// Fails if an entry is not a name, or if there are too many entries. The error has the place of the wrong entry in the list.
    pub fn parse(text: &str, names: &str) -> Result<Self, String> {
        let accepted = || {
            format!(
                "accepted: {names}, separated by commas (in a name, * stands for any text and ? for any character)"
            )
        };
        let entries = entries(text, accepted)?;
        let odd = |entry: &&str| entry.is_empty() || entry.contains(char::is_whitespace);
        if let Some(place) = entries.iter().position(odd) {
            return Err(format!("entry {} is not a name; {}", place + 1, accepted()));
        }
        Ok(Self(entries.into_iter().map(WildMatch::new).collect()))
    }

    /// Returns the number of patterns.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether a pattern matches the whole name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// Returns the entries of a list that is separated by commas, without the spaces around them. Fails if there are too many.
pub(super) fn entries(text: &str, accepted: impl Fn() -> String) -> Result<Vec<&str>, String> {
    let text = text.trim_end_matches([',', ' ']);
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    if entries.len() > MAX_PATTERNS {
        return Err(format!("more than {MAX_PATTERNS} entries; {}", accepted()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::Patterns;

    fn parse(text: &str) -> Result<Patterns, String> {
        Patterns::parse(text, "names of labels")
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let patterns = parse("com.example.*, tier ,v?").unwrap();
        for name in ["com.example.", "com.example.team", "tier", "v1"] {
            assert!(patterns.matches(name), "{name}");
        }
        for name in [
            "",
            "com.example",
            "org.com.example.a",
            "tiers",
            "TIER",
            "v",
            "v12",
        ] {
            assert!(!patterns.matches(name), "{name}");
        }
        assert_eq!(patterns.count(), 3);
        assert!(parse("*").unwrap().matches("anything"));
        assert!(!Patterns::default().matches("anything"));
    }

    #[test]
    fn an_error_names_the_place_of_the_bad_entry() {
        let error = parse("a,,b").unwrap_err();
        assert!(
            error.starts_with("entry 2 is not a name; accepted: "),
            "{error}"
        );
        for text in ["", ",", "a b", "a,b c"] {
            parse(text).unwrap_err();
        }
        let many = vec!["a"; 65].join(",");
        assert!(parse(&many).unwrap_err().starts_with("more than 64"));
        parse(&many[2..]).unwrap();
    }
}
