//! Which of the containers' labels are published.

use wildmatch::WildMatch;

/// The most patterns.
const MOST: usize = 64;

/// Patterns of label names; none matches where there are none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelPatterns(Vec<WildMatch>);

impl LabelPatterns {
    /// Reads a comma-separated list of names, in which `*` stands for any text and `?` for any character.
    ///
    /// # Errors
    /// Which entry is wrong, by its place in the list.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "accepted: names of labels, separated by commas, in which * stands for any text and ? for any \
                                character";
        let entries: Vec<&str> = text
            .trim_end_matches([',', ' '])
            .split(',')
            .map(str::trim)
            .collect();
        if entries.len() > MOST {
            return Err(format!("more than {MOST} entries; {ACCEPTED}"));
        }
        let odd = |entry: &str| entry.is_empty() || entry.contains(char::is_whitespace);
        if let Some(place) = entries.iter().position(|entry| odd(entry)) {
            return Err(format!("entry {} is no name; {ACCEPTED}", place + 1));
        }
        Ok(Self(entries.into_iter().map(WildMatch::new).collect()))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether a label of this name is published.
    #[must_use]
    pub fn match_name(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::LabelPatterns;

    #[test]
    fn names_are_matched_whole() {
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
    fn what_is_no_name_is_refused_by_its_place() {
        let error = LabelPatterns::parse("a,,b").unwrap_err();
        assert!(
            error.starts_with("entry 2 is no name; accepted: "),
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
