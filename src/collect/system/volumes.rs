//! Finds the file systems of the volumes and bind mounts of containers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::collect::docker::{RunningContainer, VolumeMount};
use crate::messages::ContainerVolumes;
use crate::model::Volume;

/// The volumes and bind mounts of the running containers.
#[derive(Default)]
pub(super) struct Volumes {
    /// The containers of the newest call of [`Self::update`].
    running: Arc<Vec<RunningContainer>>,
    mounts: Vec<ContainerMounts>,
    found: Arc<ContainerVolumes>,
}

/// The volumes and bind mounts of one container.
#[derive(Debug, PartialEq, Eq)]
struct ContainerMounts {
    /// The container's id.
    id: String,
    data_root: Option<PathBuf>,
    mounts: Vec<VolumeMount>,
}

impl Volumes {
    /// Takes the newest list of running containers. Returns whether their mounts have changed.
    pub(super) fn update(&mut self, running: &Arc<Vec<RunningContainer>>) -> bool {
        if Arc::ptr_eq(&self.running, running) {
            return false;
        }
        self.running = Arc::clone(running);
        let mounts = running.iter().filter_map(|one| {
            let inspected = one.inspection.done()?;
            (!inspected.mounts.is_empty()).then(|| ContainerMounts {
                id: one.listed.id.clone(),
                data_root: inspected.data_root().map(Path::to_owned),
                mounts: inspected.mounts.clone(),
            })
        });
        let mounts: Vec<_> = mounts.collect();
        let has_changed = mounts != self.mounts;
        self.mounts = mounts;
        has_changed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Finds the file systems. `points` has the file system of each mount point of the host. `listed` has the mount point with
    /// which a file system is published.
    pub(super) fn find(&mut self, points: &HashMap<PathBuf, String>, listed: &HashMap<&str, &str>) {
        // The file system of a path is that of the longest mount point above it.
        let file_system = |path: &Path| path.ancestors().find_map(|above| points.get(above));
        let root = file_system(Path::new("/"));
        let mut found = ContainerVolumes::new();
        for one in &self.mounts {
            let data_root = one.data_root.as_deref().and_then(file_system);
            let volumes = one.mounts.iter().filter_map(|mount| {
                let own = Some(file_system(&mount.source)?);
                let mount_point = listed.get(own?.as_str())?;
                (own != root && own != data_root).then(|| Volume {
                    name: mount.name.clone(),
                    source: mount.source.to_string_lossy().into_owned(),
                    destination: mount.destination.clone(),
                    mount: (*mount_point).to_owned(),
                })
            });
            let volumes: Vec<_> = volumes.collect();
            if !volumes.is_empty() {
                found.insert(one.id.clone(), volumes);
            }
        }
        self.found = Arc::new(found);
    }

    /// Returns the volumes with a file system of their own.
    pub(super) fn found(&self) -> &Arc<ContainerVolumes> {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{ContainerMounts, VolumeMount, Volumes};

    fn mount(name: Option<&str>, source: &str) -> VolumeMount {
        VolumeMount {
            name: name.map(str::to_owned),
            source: source.into(),
            destination: format!("/in{source}"),
        }
    }

    /// Returns the sources with the mount points that are found for them.
    fn found(data_root: &str, mounts: Vec<VolumeMount>) -> Vec<(String, String)> {
        let points = [
            ("/", "8:1"),
            ("/boot", "8:2"),
            ("/mnt", "8:3"),
            ("/mnt/inner", "0:50"),
            ("/mnt/inner/again", "8:3"),
            ("/docker", "8:4"),
            ("/docker/volumes/own/_data", "7:0"),
        ];
        let points = points.map(|(point, number)| (point.into(), number.to_owned()));
        let listed = [
            ("8:1", "/"),
            ("8:2", "/boot"),
            ("8:3", "/mnt"),
            ("8:4", "/docker"),
            ("7:0", "/docker/volumes/own/_data"),
        ];
        let mut volumes = Volumes {
            mounts: vec![ContainerMounts {
                id: "01".to_owned(),
                data_root: Some(data_root.into()),
                mounts,
            }],
            ..Volumes::default()
        };
        volumes.find(&HashMap::from(points), &HashMap::from(listed));
        let found = volumes.found().get("01").cloned().unwrap_or_default();
        let found = found.into_iter();
        found.map(|one| (one.source, one.mount)).collect()
    }

    #[test]
    fn only_volumes_with_a_file_system_of_their_own_are_found() {
        let mounts = vec![
            mount(Some("plain"), "/docker/volumes/plain/_data"),
            mount(Some("own"), "/docker/volumes/own/_data"),
            mount(None, "/srv/on-root"),
            mount(None, "/mnt/data"),
            mount(None, "/mnt/innermost"),
            // A file system that is not listed, for example in memory.
            mount(None, "/mnt/inner/x"),
            mount(None, "/mnt/inner/again/x"),
            mount(None, "relative"),
        ];
        let expected = [
            ("/docker/volumes/own/_data", "/docker/volumes/own/_data"),
            ("/mnt/data", "/mnt"),
            ("/mnt/innermost", "/mnt"),
            ("/mnt/inner/again/x", "/mnt"),
        ];
        let expected = expected.map(|(source, mount)| (source.to_owned(), mount.to_owned()));
        assert_eq!(found("/docker", mounts.clone()), expected);
        // The data root of another engine.
        let elsewhere = found("/mnt/engine", mounts);
        assert!(!elsewhere.iter().any(|(_, mount)| mount == "/mnt"));
        assert_eq!(elsewhere.len(), 2, "{elsewhere:?}");
    }
}
