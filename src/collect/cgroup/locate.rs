//! Finds a container's control group from `/proc/<pid>/cgroup` of the container's first process, and the control group of a unit
//! of systemd from its path.
//!
//! For a container, this module does not guess a path from the container's name. Therefore it works with the cgroupfs and systemd drivers,
//! rootless engines, custom parent groups and nested engines. All of these have their control groups in different places.

use std::path::{Path, PathBuf};

use crate::collect::mountinfo;
use crate::model::GroupDirectories;

/// The mounted file systems with control groups, from `/proc/self/mountinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts(Vec<Mount>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// The controllers of a v1 hierarchy. None for v2.
    controllers: Option<Vec<String>>,
    /// The group of the hierarchy that is visible at the mount point. It is `/`, except for bind mounts.
    root: String,
    point: PathBuf,
}

impl Mounts {
    /// Parses the text of `mountinfo`. Ignores other file systems.
    pub(crate) fn parse(mountinfo: &str) -> Self {
        Self(
            mountinfo::parse(mountinfo.as_bytes())
                .filter_map(|mount| cgroup_mount(&mount))
                .collect(),
        )
    }

    /// Returns the directory of the hierarchy in which systemd has a group for each unit, and whether it is a hierarchy of v1.
    /// Returns none if the host's root group is not visible.
    pub(crate) fn systemd(&self) -> Option<(&Path, bool)> {
        let whole = || self.0.iter().filter(|mount| mount.root == "/");
        let is_systemd = |mount: &&Mount| {
            let controllers = mount.controllers.iter().flatten();
            controllers.into_iter().any(|one| one == "name=systemd")
        };
        if let Some(mount) = whole().find(is_systemd) {
            return Some((&mount.point, true));
        }
        let unified = whole().find(|mount| mount.controllers.is_none())?;
        Some((&unified.point, false))
    }

    /// Returns the groups of the unit with this path, for example `/system.slice/ssh.service`. `is_v1` is the result of
    /// [`Mounts::systemd`]. With v1, a unit has a group of its own only in hierarchies whose accounting is enabled for the unit.
    pub(crate) fn unit_groups(&self, path: &str, is_v1: bool) -> Option<Groups> {
        if !is_v1 {
            return self.directory(None, path).map(Groups::V2);
        }
        let own = |controller| {
            let directory = self.directory(Some(controller), path);
            directory.filter(|directory| directory.is_dir())
        };
        Some(Groups::V1 {
            cpuacct: own("cpuacct"),
            memory: own("memory"),
            cpu: own("cpu"),
            pids: own("pids"),
            blkio: own("blkio"),
        })
    }

    /// Returns the directory of the group `path` in the hierarchy of a v1 controller. `controller` is none for v2.
    fn directory(&self, controller: Option<&str>, path: &str) -> Option<PathBuf> {
        self.0
            .iter()
            .filter(|mount| match (controller, &mount.controllers) {
                (None, None) => true,
                (Some(wanted), Some(has)) => has.iter().any(|one| one == wanted),
                _ => false,
            })
            .find_map(|mount| {
                let below = match mount.root.as_str() {
                    "/" => path,
                    root => path.strip_prefix(root)?,
                };
                Some(mount.point.join(below.trim_start_matches('/')))
            })
    }
}

fn cgroup_mount(mount: &mountinfo::Mount<'_>) -> Option<Mount> {
    let controllers = match &*mount.kind {
        "cgroup2" => None,
        "cgroup" => Some(mount.options.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount {
        controllers,
        root: mount.root.to_str()?.to_owned(),
        point: mount.point.clone(),
    })
}

/// The directories of the control groups of a container or a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Groups {
    /// Cgroup v1 has a directory for each controller. A container always has `cpuacct` and `memory`.
    V1 {
        cpuacct: Option<PathBuf>,
        memory: Option<PathBuf>,
        cpu: Option<PathBuf>,
        pids: Option<PathBuf>,
        blkio: Option<PathBuf>,
    },
    /// Cgroup v2 has one directory.
    V2(PathBuf),
}

impl Groups {
    /// Returns the directories from which figures are read on request.
    pub(crate) fn directories(&self) -> GroupDirectories {
        match self {
            Self::V1 {
                cpuacct, memory, ..
            } => GroupDirectories::V1 {
                cpuacct: cpuacct.clone(),
                memory: memory.clone(),
            },
            Self::V2(group) => GroupDirectories::V2(group.clone()),
        }
    }
}

/// Returns the path of the group of the container `id`, below the root of its hierarchy. The arguments are those of [`locate`].
pub(crate) fn group_path(cgroup: &str, id: &str) -> Option<String> {
    let path = path_of(cgroup, Some("cpuacct")).or_else(|| path_of(cgroup, None))?;
    container_group(path, id)
}

/// Finds the group of the container `id`. `cgroup` is the text of `/proc/<pid>/cgroup` of the container's first process. Returns
/// `None` if the host does not have the controllers, or if the group is not below a mount point.
pub(crate) fn locate(mounts: &Mounts, cgroup: &str, id: &str) -> Option<Groups> {
    let v1 = |controller: &str| {
        let path = path_of(cgroup, Some(controller))?;
        mounts.directory(Some(controller), &container_group(path, id)?)
    };
    if let (Some(cpuacct), Some(memory)) = (v1("cpuacct"), v1("memory")) {
        return Some(Groups::V1 {
            cpuacct: Some(cpuacct),
            memory: Some(memory),
            cpu: v1("cpu"),
            pids: v1("pids"),
            blkio: v1("blkio"),
        });
    }
    let path = path_of(cgroup, None)?;
    mounts
        .directory(None, &container_group(path, id)?)
        .map(Groups::V2)
}

/// Returns the path of a process in the hierarchy of a v1 controller. `controller` is none for v2. The text has lines such as
/// `4:cpu,cpuacct:/docker/0123` (v1) and `0::/docker/0123` (v2).
pub(crate) fn path_of<'a>(cgroup: &'a str, controller: Option<&str>) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let found = match controller {
            Some(wanted) => controllers.split(',').any(|one| one == wanted),
            None => controllers.is_empty(),
        };
        found.then_some(path)
    })
}

/// Returns the path of the container's own group. The first process can be in a group below it, for example if the container runs
/// systemd. The figures of the lower group are only a part of the container's figures.
///
/// Returns `None` for the root, and for paths with `..`. These paths are outside of the groups that the agent can see.
fn container_group(path: &str, id: &str) -> Option<String> {
    if path == "/" || path.split('/').any(|part| part == "..") {
        return None;
    }
    let mut own = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        own.push('/');
        own.push_str(part);
        if !id.is_empty() && part.contains(id) {
            break;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::{Groups, Mounts, group_path, locate};

    const ID: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";
    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V2: &str = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn v2(path: &str) -> Option<PathBuf> {
        match locate(&Mounts::parse(V2), &format!("0::{path}\n"), ID)? {
            Groups::V2(path) => Some(path),
            Groups::V1 { .. } => None,
        }
    }

    #[test]
    fn the_controllers_of_v1_are_found_at_any_mount_point() {
        let cgroup = format!(
            "9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n"
        );
        let Some(Groups::V1 {
            cpuacct,
            memory,
            cpu,
            pids,
            blkio,
        }) = locate(&Mounts::parse(V1), &cgroup, ID)
        else {
            panic!("the groups of v1 are not found");
        };
        let own = |mount: &str| PathBuf::from(format!("/sys/fs/cgroup/{mount}/docker/{ID}"));
        assert_eq!(cpuacct, Some(own("cpu,cpuacct")));
        assert_eq!(memory, Some(own("memory")));
        assert_eq!(cpu, Some(own("cpu,cpuacct")));
        assert_eq!((pids, blkio), (None, None));
    }

    #[test]
    fn the_group_of_v2_is_found_with_every_driver_and_parent() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            format!("/my.slice/my-parent.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
        ] {
            let own = path.trim_end_matches("/container");
            assert_eq!(
                group_path(&format!("0::{path}\n"), ID).as_deref(),
                Some(own)
            );
            assert_eq!(
                v2(&path),
                Some(PathBuf::from(format!("/sys/fs/cgroup{own}")))
            );
        }
    }

    #[test]
    fn a_container_that_runs_systemd_is_measured_as_a_whole() {
        assert_eq!(
            v2(&format!("/system.slice/docker-{ID}.scope/init.scope")),
            Some(PathBuf::from(format!(
                "/sys/fs/cgroup/system.slice/docker-{ID}.scope"
            )))
        );
    }

    #[test]
    fn a_group_is_found_below_a_bind_mount_of_a_part_of_the_hierarchy() {
        let mounts = Mounts::parse("35 24 0:30 /docker /host/cgroup rw - cgroup2 cgroup2 rw\n");
        let found = locate(&mounts, &format!("0::/docker/{ID}\n"), ID);
        assert_eq!(
            found,
            Some(Groups::V2(PathBuf::from(format!("/host/cgroup/{ID}"))))
        );
        assert_eq!(locate(&mounts, &format!("0::/other/{ID}\n"), ID), None);
    }

    #[test]
    fn the_hierarchy_of_systemd_is_found() {
        let find = |mounts: &str| {
            let mounts = Mounts::parse(mounts);
            let found = mounts.systemd();
            found.map(|(point, is_v1)| (point.to_owned(), is_v1))
        };
        assert_eq!(find(V1), Some(("/sys/fs/cgroup/systemd".into(), true)));
        assert_eq!(find(V2), Some(("/sys/fs/cgroup".into(), false)));
        let part = "35 24 0:30 /docker /host/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find(part), None);
        let groups = Mounts::parse(V2).unit_groups("/system.slice/ssh.service", false);
        let own = PathBuf::from("/sys/fs/cgroup/system.slice/ssh.service");
        assert_eq!(groups, Some(Groups::V2(own)));
    }

    #[test]
    fn a_group_that_is_not_visible_is_not_found() {
        assert_eq!(v2("/"), None);
        assert_eq!(v2(&format!("/../../docker/{ID}")), None);
        assert_eq!(
            locate(&Mounts::default(), &format!("0::/docker/{ID}\n"), ID),
            None
        );
        assert_eq!(locate(&Mounts::parse(V1), "", ID), None);
        assert_eq!(
            locate(&Mounts::parse("nonsense\n - cgroup\n"), "x\n1:\n", ID),
            None
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(mounts in "(\\PC|\n|/| |[0-9:])*", cgroup in "(\\PC|\n|/|:|[0-9])*", id in "[0-9a-f]{0,64}") {
            for mounts in [&mounts, V1, V2] {
                let mounts = Mounts::parse(mounts);
                let _ = locate(&mounts, &cgroup, &id);
                let _ = locate(&mounts, &format!("0::{cgroup}{id}\n1:memory:/{id}\n2:cpuacct:{cgroup}"), &id);
            }
        }
    }

    #[test]
    fn fuzz_cgroup_of_a_process() {
        let own = format!(
            "12:pids:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n5:memory:/docker/{ID}\n0::/docker/{ID}\n"
        );
        let seeds = [
            V1.as_bytes(),
            V2.as_bytes(),
            own.as_bytes(),
            b"0::/../../init.scope\n",
        ];
        let (v1, v2) = (Mounts::parse(V1), Mounts::parse(V2));
        crate::fuzzing::run("cgroup_of_a_process", &seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for mounts in [&v1, &v2, &Mounts::parse(&text)] {
                for cgroup in [&*text, &own] {
                    let _ = locate(mounts, cgroup, ID);
                }
            }
        });
    }
}
