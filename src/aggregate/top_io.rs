//! Makes the list `top_io` from control groups, if the agent may not read the I/O of other users' processes.

use std::sync::Arc;

use crate::model::{Container, SystemMetrics, TopIo};

/// Adds the list `top_io` of control groups if the source `system` could not read the processes. The source `system` does not know
/// the figures of containers. Therefore, only the aggregator can make this list.
pub(super) fn with_top_io(
    mut system: Arc<SystemMetrics>,
    containers: &[Container],
) -> Arc<SystemMetrics> {
    if let Some(listed) = system.top_io_of_groups {
        let top_io = of_groups(containers, listed);
        if !top_io.is_empty() {
            Arc::make_mut(&mut system).top_io = top_io;
        }
    }
    system
}

/// Returns the `listed` containers with the highest I/O, highest first. Leaves out containers without I/O.
fn of_groups(containers: &[Container], listed: usize) -> Vec<TopIo> {
    let mut groups: Vec<TopIo> = containers.iter().filter_map(of_container).collect();
    groups.retain(|one| total(one) > 0.0);
    groups.sort_by(|one, other| total(other).total_cmp(&total(one)));
    groups.truncate(listed);
    groups
}

fn of_container(container: &Container) -> Option<TopIo> {
    let io = container.block_io?;
    let name = container.name.trim_start_matches('/').to_owned();
    Some(TopIo {
        name: name.clone(),
        container: Some(name),
        read_bytes_per_second: io.read_bytes_per_second?,
        write_bytes_per_second: io.write_bytes_per_second?,
        ..TopIo::default()
    })
}

fn total(one: &TopIo) -> f64 {
    one.read_bytes_per_second + one.write_bytes_per_second
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::with_top_io;
    use crate::model::{BlockIo, Container, Snapshot, SystemMetrics};

    fn containers(rates: &[(&str, Option<(f64, f64)>)]) -> Vec<Container> {
        let snapshot = Snapshot::recorded();
        let container = |(name, rates): &(&str, Option<(f64, f64)>)| Container {
            name: format!("/{name}"),
            block_io: Some(BlockIo {
                read_bytes_per_second: rates.map(|rates| rates.0),
                write_bytes_per_second: rates.map(|rates| rates.1),
                ..BlockIo::default()
            }),
            ..snapshot.containers[0].clone()
        };
        rates.iter().map(container).collect()
    }

    fn system(top_io_of_groups: Option<usize>) -> Arc<SystemMetrics> {
        Arc::new(SystemMetrics {
            top_io_of_groups,
            ..SystemMetrics::default()
        })
    }

    #[test]
    fn containers_with_io_are_sorted_by_the_sum_of_reading_and_writing() {
        let containers = containers(&[
            ("idle", Some((0.0, 0.0))),
            ("small", Some((1.0, 2.0))),
            ("new", None),
            ("large", Some((9.0, 0.5))),
            ("middle", Some((0.0, 4.0))),
        ]);
        let names = |listed| {
            let system = with_top_io(system(Some(listed)), &containers);
            for one in &system.top_io {
                assert_eq!(one.container.as_deref(), Some(&*one.name));
                assert_eq!((one.pid, &one.unit), (None, &None));
            }
            let names = system.top_io.iter().map(|one| one.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(10), ["large", "middle", "small"]);
        assert_eq!(names(1), ["large"]);
        assert!(names(0).is_empty());
    }

    #[test]
    fn a_list_of_processes_is_not_replaced() {
        let before = system(None);
        let after = with_top_io(Arc::clone(&before), &containers(&[("a", Some((1.0, 1.0)))]));
        assert!(Arc::ptr_eq(&before, &after));
    }
}
