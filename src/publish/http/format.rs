//! The formats of the text for Prometheus.

/// The format of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Classic,
    /// The format of OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format for an `Accept` header. Returns OpenMetrics if the scraper accepts OpenMetrics and does not prefer the
    /// text format of Prometheus.
    pub(super) fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let of = |range: &str| {
                let mut parts = range.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |text| text.parse::<f64>().unwrap_or(0.0)))
            };
            accept.split(',').filter_map(of).reduce(f64::max)
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) => {
                Self::OpenMetrics
            }
            _ => Self::Classic,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}
