//! `CONTAINERS_INCLUDE` and `CONTAINERS_EXCLUDE`: the containers that the agent leaves out.

use wildmatch::WildMatch;

use super::patterns::entries;

/// A container with this label and the value `true` is left out.
const EXCLUDE_LABEL: &str = "system-agent.exclude";

/// Decides which containers the agent leaves out. It leaves out a container if a pattern of `CONTAINERS_EXCLUDE` matches, if
/// `CONTAINERS_INCLUDE` is set and none of its patterns matches, or if the container has the label `system-agent.exclude=true`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerFilter {
    /// None if all containers are wanted.
    include: Option<Vec<ContainerPattern>>,
    exclude: Vec<ContainerPattern>,
}

/// A pattern for the name, the image or a label of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ContainerPattern {
    Name(WildMatch),
    Image(WildMatch),
    /// The label's name and its value. Without a value, the pattern matches any value.
    Label(WildMatch, Option<WildMatch>),
}

/// The properties of a container on which a [`ContainerFilter`] decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFacts<'c> {
    /// The name, without the slash.
    pub name: &'c str,
    /// The name of the image.
    pub image: &'c str,
    /// The labels for which [`ContainerFilter::looks_at`] is true.
    pub labels: Vec<(&'c str, String)>,
}

impl ContainerFilter {
    pub(super) fn new(
        include: Option<Vec<ContainerPattern>>,
        exclude: Vec<ContainerPattern>,
    ) -> Self {
        Self { include, exclude }
    }

    /// Returns the number of patterns in `CONTAINERS_INCLUDE` and in `CONTAINERS_EXCLUDE`.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let included = self.include.as_ref().map_or(0, Vec::len);
        (included, self.exclude.len())
    }

    /// Whether the filter needs the value of a label with this name.
    #[must_use]
    pub fn looks_at(&self, label: &str) -> bool {
        let patterns = self.include.iter().flatten().chain(&self.exclude);
        label == EXCLUDE_LABEL
            || patterns
                .into_iter()
                .any(|pattern| matches!(pattern, ContainerPattern::Label(name, _) if name.matches(label)))
    }

    /// Whether the agent measures a container.
    #[must_use]
    pub fn wants(&self, container: &ContainerFacts<'_>) -> bool {
        let fits = |pattern: &ContainerPattern| pattern.matches(container);
        let is_marked = container
            .labels
            .iter()
            .any(|(name, value)| *name == EXCLUDE_LABEL && value == "true");
        let is_included = self.include.as_ref().is_none_or(|all| all.iter().any(fits));
        is_included && !is_marked && !self.exclude.iter().any(fits)
    }
}

impl ContainerPattern {
    /// Reads a list of patterns, separated by commas.
    ///
    /// # Errors
    /// Fails if an entry is empty or has spaces, or if there are too many entries. The error has the place of the wrong entry.
    pub(super) fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        const ACCEPTED: &str = "accepted: names, image=NAME, label=NAME and label=NAME=VALUE, separated by commas (* stands for any \
                                text and ? for any character)";
        let entries = entries(text, || ACCEPTED.to_owned())?;
        let patterns = entries.iter().enumerate().map(|(place, entry)| {
            Self::parse(entry)
                .ok_or_else(|| format!("entry {} is not a pattern; {ACCEPTED}", place + 1))
        });
        patterns.collect()
    }

    fn parse(entry: &str) -> Option<Self> {
        let pattern = |text: &str| (!text.is_empty()).then(|| WildMatch::new(text));
        if entry.contains(char::is_whitespace) {
            return None;
        }
        match entry.split_once('=') {
            None => Some(Self::Name(pattern(entry.trim_start_matches('/'))?)),
            Some(("name", name)) => Some(Self::Name(pattern(name.trim_start_matches('/'))?)),
            Some(("image", image)) => Some(Self::Image(pattern(image)?)),
            Some(("label", label)) => match label.split_once('=') {
                None => Some(Self::Label(pattern(label)?, None)),
                Some((name, value)) => {
                    Some(Self::Label(pattern(name)?, Some(WildMatch::new(value))))
                }
            },
            Some(_) => None,
        }
    }

    fn matches(&self, container: &ContainerFacts<'_>) -> bool {
        match self {
            Self::Name(name) => name.matches(container.name),
            Self::Image(image) => image.matches(container.image),
            Self::Label(label, wanted) => container.labels.iter().any(|(name, value)| {
                label.matches(name) && wanted.as_ref().is_none_or(|wanted| wanted.matches(value))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerFacts, ContainerFilter, ContainerPattern};

    fn filter(include: Option<&str>, exclude: &str) -> ContainerFilter {
        let list = |text: &str| match text {
            "" => Vec::new(),
            text => ContainerPattern::parse_list(text).unwrap(),
        };
        ContainerFilter::new(include.map(list), list(exclude))
    }

    fn wants(filter: &ContainerFilter, name: &str, image: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().filter(|(name, _)| filter.looks_at(name));
        filter.wants(&ContainerFacts {
            name,
            image,
            labels: labels
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        })
    }

    #[test]
    fn containers_are_left_out_by_name_image_and_label() {
        let all = filter(None, "");
        assert!(wants(&all, "web", "nginx:1", &[("a", "b")]));
        assert!(!wants(
            &all,
            "web",
            "nginx:1",
            &[("system-agent.exclude", "true")]
        ));
        assert!(wants(
            &all,
            "web",
            "nginx:1",
            &[("system-agent.exclude", "false")]
        ));

        let some = filter(
            None,
            "ci-*, image=*/runner:*,label=job, label=com.example.tier=dev?",
        );
        for (name, image, label, wanted) in [
            ("ci-5", "a", ("x", "y"), false),
            ("my-ci-5", "a", ("x", "y"), true),
            ("web", "example.org/runner:3", ("x", "y"), false),
            ("web", "example.org/runner", ("x", "y"), true),
            ("web", "a", ("job", ""), false),
            ("web", "a", ("jobs", ""), true),
            ("web", "a", ("com.example.tier", "dev1"), false),
            ("web", "a", ("com.example.tier", "dev"), true),
        ] {
            assert_eq!(
                wants(&some, name, image, &[label]),
                wanted,
                "{name} {image} {label:?}"
            );
        }

        let included = filter(Some("name=web-*,label=monitored=yes"), "web-test");
        assert!(wants(&included, "web-1", "a", &[]));
        assert!(!wants(&included, "web-test", "a", &[]));
        assert!(!wants(&included, "db", "a", &[("monitored", "no")]));
        assert!(wants(&included, "db", "a", &[("monitored", "yes")]));
        assert!(!wants(
            &included,
            "web-1",
            "a",
            &[("system-agent.exclude", "true")]
        ));
        assert_eq!(included.counts(), (2, 1));
    }

    #[test]
    fn an_error_names_the_place_of_the_bad_entry() {
        for (text, place) in [
            ("", 1),
            ("web,,db", 2),
            ("web, a b", 2),
            ("image=", 1),
            ("label=,x", 1),
            ("label==v", 1),
            ("state=running", 1),
            ("web,/", 2),
        ] {
            let error = ContainerPattern::parse_list(text).unwrap_err();
            let expected = format!("entry {place} is not a pattern; accepted: names, ");
            assert!(error.starts_with(&expected), "{text:?}: {error}");
        }
        let many = vec!["a"; 65].join(",");
        let error = ContainerPattern::parse_list(&many).unwrap_err();
        assert!(
            error.starts_with("more than 64 entries; accepted: "),
            "{error}"
        );
    }
}
