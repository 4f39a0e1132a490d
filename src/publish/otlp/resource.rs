//! The resources: the host, and each container.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::{text, texts};
use crate::model::{Compose, Container, HostInfo, Snapshot};
use crate::settings::OtlpSettings;

/// The service name of the agent.
const SERVICE: &str = "system-agent";

/// The attributes that all resources of the host have.
pub(super) struct HostResource {
    service_name: String,
    /// The host's id, from `/etc/machine-id`. None if it is not known.
    host_id: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    given: Vec<(String, String)>,
}

impl HostResource {
    pub(super) fn new(settings: &OtlpSettings, host_id: Option<String>) -> Self {
        let service_name = settings.service_name.clone();
        Self {
            service_name: service_name.unwrap_or_else(|| SERVICE.to_owned()),
            host_id,
            given: settings.resource.clone(),
        }
    }

    /// Returns the resource of the host. The service is the agent.
    pub(super) fn of_host(&self, host: &HostInfo) -> Resource {
        let mut attributes = vec![text("service.version", env!("CARGO_PKG_VERSION"))];
        self.add_service(&mut attributes, host);
        self.resource(attributes, host)
    }

    /// Returns the resource of a container's figures. The service is the agent, which has read them.
    pub(super) fn of_figures(&self, host: &HostInfo, container: &Container) -> Resource {
        let mut attributes = describe(container);
        self.add_service(&mut attributes, host);
        self.resource(attributes, host)
    }

    /// Returns the resource of a container's log lines. The service is that of `docker compose`, or else the container. `id` is the full
    /// id of the container.
    pub(super) fn of_lines(&self, snapshot: &Snapshot, name: &str, id: &str) -> Resource {
        let is_this = |short: &str| !short.is_empty() && id.starts_with(short);
        let running = snapshot.containers.iter().find(|one| is_this(&one.id));
        let stopped = snapshot.stopped.iter().find(|one| is_this(&one.id));
        let mut attributes = match (running, stopped) {
            (Some(container), _) => describe(container),
            (None, Some(stopped)) => image_attributes(&stopped.image),
            (None, None) => Vec::new(),
        };
        attributes.retain(|one| !matches!(&*one.key, "container.id" | "container.name"));
        attributes.push(text("container.id", id));
        attributes.push(text("container.name", name));
        let compose = running
            .and_then(|one| one.compose.as_ref())
            .or_else(|| stopped?.compose.as_ref());
        let service = compose.and_then(|compose| compose.service.as_deref());
        attributes.push(text("service.name", service.unwrap_or(name)));
        if let Some(compose) = compose {
            attributes.push(text("service.namespace", &*compose.project));
        }
        self.resource(attributes, &snapshot.host)
    }

    fn add_service(&self, attributes: &mut Vec<KeyValue>, host: &HostInfo) {
        attributes.push(text("service.name", &*self.service_name));
        attributes.push(text("service.instance.id", &*host.hostname));
    }

    /// Adds the attributes of the host. An attribute in `OTEL_RESOURCE_ATTRIBUTES` replaces the agent's own attribute.
    fn resource(&self, mut attributes: Vec<KeyValue>, host: &HostInfo) -> Resource {
        attributes.push(text("host.name", &*host.hostname));
        attributes.extend(self.host_id.iter().map(|id| text("host.id", &**id)));
        attributes.push(text("host.arch", architecture(&host.arch)));
        attributes.push(text("os.type", "linux"));
        attributes.push(text("os.description", &*host.os));
        attributes.push(text("os.version", &*host.kernel));
        for (name, value) in &self.given {
            attributes.retain(|one| one.key != *name);
            attributes.push(text(name, &**value));
        }
        Resource {
            attributes,
            ..Resource::default()
        }
    }
}

/// Returns the name of an architecture in the semantic conventions.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" | "i586" | "i386" => "x86",
        "armv7l" | "armv6l" => "arm32",
        "ppc64le" | "ppc64" => "ppc64",
        other => other,
    }
}

/// Returns the attributes of a running container.
fn describe(container: &Container) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("container.id", full_id(container)),
        text("container.name", container.name.trim_start_matches('/')),
        text("container.runtime.name", "docker"),
    ];
    attributes.extend(image_attributes(&container.image));
    if let Some(digest) = &container.image_digest {
        attributes.push(text("container.image.id", &**digest));
    }
    if let Some(Compose { project, service }) = &container.compose {
        let label = |name: &str, value: &str| {
            text(&format!("container.label.com.docker.compose.{name}"), value)
        };
        attributes.push(label("project", project));
        attributes.extend(service.iter().map(|service| label("service", service)));
    }
    for (name, value) in &container.labels {
        let key = format!("container.label.{name}");
        if attributes.iter().all(|one| one.key != key) {
            attributes.push(text(&key, &**value));
        }
    }
    attributes
}

/// Returns the full id of a container if its control group has it, and else the short id.
fn full_id(container: &Container) -> &str {
    let path = &container.group.path;
    let last = path.rsplit(['/', '-']).next().unwrap_or_default();
    let last = last.strip_suffix(".scope").unwrap_or(last);
    match last.len() == 64 && last.starts_with(&*container.id) {
        true => last,
        false => &container.id,
    }
}

/// Returns the attributes of an image such as `registry:5000/nginx:1.27@sha256:…`.
fn image_attributes(image: &str) -> Vec<KeyValue> {
    let (named, digest) = match image.split_once('@') {
        Some((named, _)) => (named, Some(image)),
        None => (image, None),
    };
    // A colon before a slash belongs to the port of a registry.
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let mut attributes = vec![text("container.image.name", name)];
    attributes.extend(tag.map(|tag| texts("container.image.tags", [tag.to_owned()])));
    attributes
        .extend(digest.map(|digest| texts("container.image.repo_digests", [digest.to_owned()])));
    attributes
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    use super::{architecture, image_attributes};

    #[test]
    fn an_image_has_a_name_tags_and_digests() {
        let shown = |image: &str| {
            let shown = image_attributes(image).into_iter().map(|one| {
                let value = one.value.unwrap().value.unwrap();
                let value = match value {
                    Value::StringValue(text) => text,
                    other => format!("{other:?}"),
                };
                (one.key, value)
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown("nginx")[0].1, "nginx");
        assert_eq!(shown("nginx").len(), 1);
        let tagged = shown("registry:5000/a/nginx:1.27");
        assert_eq!(tagged[0].1, "registry:5000/a/nginx");
        assert!(tagged[1].0 == "container.image.tags" && tagged[1].1.contains("\"1.27\""));
        assert_eq!(shown("registry:5000/nginx").len(), 1);
        let digest = shown("nginx@sha256:0123");
        assert_eq!(digest[0].1, "nginx");
        assert!(
            digest[1].0 == "container.image.repo_digests"
                && digest[1].1.contains("nginx@sha256:0123")
        );
    }

    #[test]
    fn architectures_have_the_names_of_the_conventions() {
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("riscv64"), "riscv64");
    }
}
