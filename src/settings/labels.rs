//! `CONTAINER_LABELS`: the labels of containers that the agent publishes.

use wildmatch::WildMatch;

/// Maximum number of patterns.
const MAX_PATTERNS: usize = 64;

/// Patterns of label names. An empty list matches no label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelPatterns(Vec<WildMatch>);

impl LabelPatterns {
    /// Reads a comma-separated list of names, in which `*` stands for any text and `?` for any character.
    ///
    /// # Errors
    /// Fails if an entry is not a name, or if there are too many entries. The error has the place of the wrong entry in the list.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "accepted: names of labels, separated by commas (in a name, * stands for any text and ? for any \
                                character)";
        let entries: Vec<&str> = text
            .trim_end_matches([',', ' '])
            .split(',')
            .map(str::trim)
            .collect();
        if entries.len() > MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} entries; {ACCEPTED}"));
        }
        let odd = |entry: &str| entry.is_empty() || entry.contains(char::is_whitespace);
        if let Some(place) = entries.iter().position(|entry| odd(entry)) {
            return Err(format!("entry {} is not a name; {ACCEPTED}", place + 1));
        }
        Ok(Self(entries.into_iter().map(WildMatch::new).collect()))
    }

    /// Returns the number of patterns.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the agent publishes labels with this name.
    #[must_use]
    pub fn match_name(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::LabelPatterns;

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let patterns = LabelPatterns::parse("com.example.*, tier ,v?").unwrap();
        for name in ["com.example.", "com.example.team", "tier", "v1"] {
            assert!(patterns.match_name(name), "{name}");
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
            assert!(!patterns.match_name(name), "{name}");
        }
        assert_eq!(patterns.count(), 3);
        assert!(LabelPatterns::parse("*").unwrap().match_name("anything"));
        assert!(!LabelPatterns::default().match_name("anything"));
    }

    #[test]
    fn an_error_names_the_place_of_the_bad_entry() {
        let error = LabelPatterns::parse("a,,b").unwrap_err();
        assert!(
            error.starts_with("entry 2 is not a name; accepted: "),
            "{error}"
        );
        for text in ["", ",", "a b", "a,b c"] {
            LabelPatterns::parse(text).unwrap_err();
        }
        let many = vec!["a"; 65].join(",");
        assert!(
            LabelPatterns::parse(&many)
                .unwrap_err()
                .starts_with("more than 64")
        );
        LabelPatterns::parse(&many[2..]).unwrap();
    }
}
