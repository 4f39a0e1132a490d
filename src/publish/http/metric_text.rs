//! Writes metrics as text, in the text format of Prometheus or in the format of OpenMetrics.

use std::collections::HashSet;

use super::format::Format;

/// The end of a text in the format of OpenMetrics.
const END: &str = "# EOF\n";

/// A text with metrics.
pub(super) struct MetricText {
    text: String,
    format: Format,
}

/// The name of a sample: the name of the metric, and the suffix.
pub(super) type SampleName<'n> = (&'n str, &'static str);

impl MetricText {
    pub(super) fn new(format: Format) -> Self {
        Self {
            text: String::new(),
            format,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes the lines before the samples of a family.
    pub(super) fn head(&mut self, (name, suffix): SampleName<'_>, kind: &str, help: &str) {
        for part in ["# HELP ", name, suffix, " "] {
            self.text.push_str(part);
        }
        // In the text format of Prometheus, a help text can have quotes.
        self.escaped(help, self.format == Format::OpenMetrics);
        for part in ["\n# TYPE ", name, suffix, " ", kind, "\n"] {
            self.text.push_str(part);
        }
    }

    /// Writes a sample. Each label is a name and a value.
    pub(super) fn sample<'l>(
        &mut self,
        (name, suffix): SampleName<'_>,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        value: &str,
    ) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut before = "{";
        for (name, value) in labels {
            for part in [before, name, "=\""] {
                self.text.push_str(part);
            }
            self.escaped(value, true);
            self.text.push('"');
            before = ",";
        }
        if before == "," {
            self.text.push('}');
        }
        for part in [" ", value, "\n"] {
            self.text.push_str(part);
        }
    }

    /// Removes repeated series. The first of several equal series stays.
    ///
    /// Different names in a snapshot can become the same label. Prometheus refuses the whole text if a series occurs twice.
    pub(super) fn remove_repeats(&mut self) {
        let mut known = HashSet::new();
        let mut repeats = Vec::new();
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            if line.starts_with('#') {
                // This line begins a family. A series belongs to only one family, so compare only the series of one family.
                known.clear();
            } else if !known.insert(line.rsplit_once(' ').map_or(line, |(series, _)| series)) {
                repeats.push(start..start + line.len());
            }
            start += line.len();
        }
        for repeat in repeats.into_iter().rev() {
            self.text.replace_range(repeat, "");
        }
    }

    /// Ends the text.
    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str(END);
        }
        self.text
    }

    fn escaped(&mut self, text: &str, escapes_quotes: bool) {
        if memchr::memchr3(b'\\', b'\n', b'"', text.as_bytes()).is_none() {
            self.text.push_str(text);
            return;
        }
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if escapes_quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
    }
}
