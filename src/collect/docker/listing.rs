//! A container as the engine lists it.

use std::sync::Arc;

use bollard::models::{ContainerSummary, PortSummary, PortSummaryTypeEnum};

use crate::model::{ContainerMeta, Port, PortProtocol};

/// How much of an id is published, as Docker's own tools do.
pub(super) const SHORT_ID: usize = 12;

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    /// The whole id, for calls.
    pub(crate) id: String,
    /// Its name, with the leading `/`.
    pub(crate) name: String,
    /// What is published of it.
    pub(crate) meta: Arc<ContainerMeta>,
}

impl Listed {
    /// `None` for an entry without an id, which no call could name.
    pub(crate) fn from_summary(summary: ContainerSummary) -> Option<Self> {
        let id = summary.id?;
        let short: String = id.chars().take(SHORT_ID).collect();
        let meta = ContainerMeta {
            id: short,
            names: summary.names.unwrap_or_default(),
            image: summary.image.unwrap_or_default(),
            status: summary.status.unwrap_or_default(),
            state: summary
                .state
                .map(|state| state.to_string())
                .unwrap_or_default(),
            ports: summary
                .ports
                .unwrap_or_default()
                .into_iter()
                .map(port)
                .collect(),
            created: summary.created.unwrap_or_default(),
        };
        Some(Self {
            id,
            name: format!("/{}", meta.own_name().unwrap_or(&meta.id)),
            meta: Arc::new(meta),
        })
    }

    /// Whether an id or a name, without its slash, is this one's.
    pub(super) fn is(&self, id_or_name: &str) -> bool {
        self.id == id_or_name || self.bare_name() == id_or_name
    }

    /// The name without its slash, as logs are keyed.
    pub(crate) fn bare_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

fn port(port: PortSummary) -> Port {
    Port {
        ip: port.ip.filter(|ip| !ip.is_empty()),
        private_port: port.private_port,
        public_port: port.public_port.filter(|port| *port > 0),
        protocol: match port.typ {
            Some(PortSummaryTypeEnum::UDP) => PortProtocol::Udp,
            Some(PortSummaryTypeEnum::SCTP) => PortProtocol::Sctp,
            Some(PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY) | None => PortProtocol::Tcp,
        },
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerSummary;

    use super::Listed;

    fn listed(json: &str) -> Option<Listed> {
        Listed::from_summary(serde_json::from_str::<ContainerSummary>(json).unwrap())
    }

    #[test]
    fn keeps_the_engines_words() {
        let listed = listed(
            r#"{"Id":"0123456789abcdef0123456789abcdef","Names":["/db/cache","/cache"],
                "Image":"redis:7","Created":1640995200,"State":"running",
                "Status":"Up 2 hours (healthy)",
                "Ports":[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},
                         {"PrivatePort":53,"Type":"udp"}]}"#,
        )
        .unwrap();
        assert_eq!(listed.name, "/cache");
        assert_eq!(listed.bare_name(), "cache");
        assert_eq!(listed.meta.id, "0123456789ab");
        assert_eq!(listed.meta.status, "Up 2 hours (healthy)");
        assert_eq!(
            serde_json::to_string(&listed.meta.ports).unwrap(),
            r#"[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"},{"PrivatePort":53,"Type":"udp"}]"#
        );
    }

    #[test]
    fn does_without_what_is_missing() {
        assert_eq!(listed("{}"), None);
        let listed = listed(r#"{"Id":"0123456789abcdef"}"#).unwrap();
        assert_eq!(listed.name, "/0123456789ab");
        assert!(listed.meta.ports.is_empty());
    }
}
