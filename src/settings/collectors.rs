//! `METRICS_COLLECTORS`: the collectors that are off by default and that the agent switches on.

use super::patterns::entries;

/// Collectors whose figures cost much. Without this setting, the agent reads them only for a scrape that names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collectors(Vec<&'static str>);

impl Collectors {
    /// The names that the setting accepts. They are those of node_exporter's collectors.
    pub const ACCEPTED: [&'static str; 4] = ["interrupts", "processes", "softirqs", "tcpstat"];

    /// Reads a list of names, separated by commas.
    ///
    /// # Errors
    /// Fails for an unknown name. The error says which names are accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let accepted = || {
            format!(
                "accepted: {}, separated by commas",
                Self::ACCEPTED.join(", ")
            )
        };
        let mut collectors = Self::default();
        for (place, entry) in entries(text, accepted)?.into_iter().enumerate() {
            let known = Self::ACCEPTED.into_iter().find(|name| *name == entry);
            let known =
                known.ok_or_else(|| format!("entry {} is unknown; {}", place + 1, accepted()))?;
            if !collectors.has(known) {
                collectors.0.push(known);
            }
        }
        Ok(collectors)
    }

    /// Whether the setting has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    /// Returns the names, separated by commas.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::Collectors;

    #[test]
    fn names_of_collectors_are_read() {
        let collectors = Collectors::parse(" tcpstat, softirqs,tcpstat").unwrap();
        assert_eq!(collectors.names(), "tcpstat,softirqs");
        assert!(collectors.has("softirqs") && !collectors.has("interrupts"));
        assert_eq!(Collectors::default().names(), "");
        let error = Collectors::parse("tcpstat,cpu").unwrap_err();
        assert!(
            error.starts_with("entry 2 is unknown; accepted: interrupts, "),
            "{error}"
        );
        for text in ["", ",", "all", "TCPSTAT"] {
            Collectors::parse(text).unwrap_err();
        }
    }
}
