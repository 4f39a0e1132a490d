//! Adds the sizes of logs and the volumes to the section `docker_meta`.

use std::sync::Arc;

use foldhash::HashMap;

use crate::messages::ContainerVolumes;
use crate::model::ContainerMeta;

/// Length of an id in the section `docker_meta`, in characters.
const SHORT_ID: usize = 12;

/// Adds the sizes of logs and the volumes to the metadata of containers. The keys of `log_bytes` and `volumes` are full ids.
///
/// The source `docker` reads the metadata, the source `logs` the sizes, and the source `system` the file systems. Therefore, only
/// the aggregator has all of them.
pub(super) fn with_disk_use(
    mut all: Arc<Vec<Arc<ContainerMeta>>>,
    log_bytes: &HashMap<Arc<str>, u64>,
    volumes: &ContainerVolumes,
) -> Arc<Vec<Arc<ContainerMeta>>> {
    if log_bytes.is_empty() && volumes.is_empty() {
        return all;
    }
    let log_bytes: HashMap<&str, u64> = log_bytes
        .iter()
        .filter_map(|(id, bytes)| Some((id.get(..SHORT_ID)?, *bytes)))
        .collect();
    let volumes: HashMap<&str, _> = volumes
        .iter()
        .filter_map(|(id, volumes)| Some((id.get(..SHORT_ID)?, volumes)))
        .collect();
    for meta in Arc::make_mut(&mut all) {
        let (log_bytes, volumes) = (log_bytes.get(&*meta.id), volumes.get(&*meta.id));
        if log_bytes.is_none() && volumes.is_none() {
            continue;
        }
        let meta = Arc::make_mut(meta);
        meta.log_bytes = log_bytes.copied();
        meta.volumes = volumes.map_or_else(Vec::new, |volumes| (*volumes).clone());
    }
    all
}

/// Keeps the section of the previous snapshot if the new section is equal. The encoded section is then used again, too.
pub(super) fn keep_if_equal(
    section: &mut Arc<Vec<Arc<ContainerMeta>>>,
    previous: &Arc<Vec<Arc<ContainerMeta>>>,
) {
    if section == previous {
        *section = Arc::clone(previous);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use foldhash::HashMap;

    use super::{keep_if_equal, with_disk_use};
    use crate::messages::ContainerVolumes;
    use crate::model::{ContainerMeta, Snapshot, Volume};

    #[test]
    fn each_container_gets_its_own_sizes_and_volumes() {
        let one = Snapshot::recorded().docker_meta[0].clone();
        let meta = |id: &str| {
            Arc::new(ContainerMeta {
                id: id.into(),
                log_bytes: None,
                volumes: Vec::new(),
                ..(*one).clone()
            })
        };
        let ids = ["000000000001", "000000000002", "000000000003"];
        let all = Arc::new(ids.map(meta).to_vec());
        let id = |short: &str| format!("{short}{}", "f".repeat(52));
        let log_bytes = [(id(ids[0]).into(), 7), ("short".into(), 8)];
        let log_bytes = log_bytes.into_iter().collect();
        let volume = Volume {
            mount: "/mnt".to_owned(),
            ..Volume::default()
        };
        let volumes = ContainerVolumes::from([(id(ids[2]), vec![volume.clone()])]);
        let with = with_disk_use(Arc::clone(&all), &log_bytes, &volumes);
        assert_eq!(
            [0, 1, 2].map(|number| with[number].log_bytes),
            [Some(7), None, None]
        );
        assert_eq!(with[2].volumes, [volume]);
        assert!(with[0].volumes.is_empty());
        assert!(Arc::ptr_eq(&with[1], &all[1]));
        // An equal section is replaced by the previous one, and another section is not.
        let mut again = with_disk_use(Arc::clone(&all), &log_bytes, &volumes);
        assert!(!Arc::ptr_eq(&again, &with));
        keep_if_equal(&mut again, &with);
        assert!(Arc::ptr_eq(&again, &with));
        let mut other = Arc::clone(&all);
        keep_if_equal(&mut other, &with);
        assert!(Arc::ptr_eq(&other, &all));
        let without = with_disk_use(
            Arc::clone(&all),
            &HashMap::default(),
            &ContainerVolumes::default(),
        );
        assert!(Arc::ptr_eq(&without, &all));
    }
}
