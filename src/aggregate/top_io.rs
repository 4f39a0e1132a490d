//! Makes the list `top_io` from control groups, if the agent may not read the I/O of other users' processes.

use std::sync::Arc;

use crate::model::{BlockIo, Container, SystemMetrics, TopIo, Unit};

/// Adds the list `top_io` of control groups if the source `system` could not read the processes. The source `system` does not know
/// the figures of containers. Therefore, only the aggregator can make this list.
pub(super) fn with_top_io(
    mut system: Arc<SystemMetrics>,
    containers: &[Container],
) -> Arc<SystemMetrics> {
    if let Some(listed) = system.top_io_of_groups {
        let top_io = of_groups(&system.units, containers, listed);
        if !top_io.is_empty() {
            Arc::make_mut(&mut system).top_io = top_io;
        }
    }
    system
}

/// Returns the `listed` units and containers with the highest I/O, highest first. Leaves out those without I/O.
fn of_groups(units: &[Unit], containers: &[Container], listed: usize) -> Vec<TopIo> {
    let units = units.iter().filter_map(of_unit);
    let mut groups: Vec<TopIo> = units
        .chain(containers.iter().filter_map(of_container))
        .collect();
    groups.retain(|one| total(one) > 0.0);
    groups.sort_by(|one, other| total(other).total_cmp(&total(one)));
    groups.truncate(listed);
    groups
}

fn of_unit(unit: &Unit) -> Option<TopIo> {
    Some(TopIo {
        unit: Some(unit.name.clone()),
        ..with_rates(&unit.name, unit.block_io)?
    })
}

fn of_container(container: &Container) -> Option<TopIo> {
    let name = container.name.trim_start_matches('/');
    Some(TopIo {
        container: Some(name.to_owned()),
        ..with_rates(name, container.block_io)?
    })
}

fn with_rates(name: &str, io: Option<BlockIo>) -> Option<TopIo> {
    let io = io?;
    Some(TopIo {
        name: name.to_owned(),
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
    use crate::model::{BlockIo, Container, Snapshot, SystemMetrics, Unit};

    fn containers(rates: &[(&str, Option<(f64, f64)>)]) -> Vec<Container> {
        let snapshot = Snapshot::recorded();
        let container = |(name, rates): &(&str, Option<(f64, f64)>)| Container {
            name: format!("/{name}").into(),
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
    fn units_and_containers_are_in_one_list() {
        let containers = containers(&[("small", Some((1.0, 0.0))), ("large", Some((3.0, 0.0)))]);
        let mut system = system(Some(10));
        let unit = |name: &str, block_io| Unit {
            name: name.to_owned(),
            block_io,
            ..Unit::default()
        };
        let io = containers[0].block_io.map(|io| BlockIo {
            write_bytes_per_second: Some(1.0),
            ..io
        });
        Arc::make_mut(&mut system).units = vec![unit("idle.service", None), unit("db.service", io)];
        let system = with_top_io(system, &containers);
        let listed: Vec<_> = system
            .top_io
            .iter()
            .map(|one| (&*one.name, one.unit.as_deref(), one.container.as_deref()))
            .collect();
        let expected = [
            ("large", None, Some("large")),
            ("db.service", Some("db.service"), None),
            ("small", None, Some("small")),
        ];
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_list_of_processes_is_not_replaced() {
        let before = system(None);
        let after = with_top_io(Arc::clone(&before), &containers(&[("a", Some((1.0, 1.0)))]));
        assert!(Arc::ptr_eq(&before, &after));
    }
}
