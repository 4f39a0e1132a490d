//! Parses the table of mounts, `/proc/self/mountinfo`. Does not open or read the file.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount. A path is not always valid UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount<'t> {
    /// The number of this mount.
    pub(super) id: u64,
    /// The number of the mount on which this mount is mounted.
    pub(super) parent: u64,
    /// The file system's number, for example `254:0`.
    pub(super) number: Cow<'t, str>,
    /// The directory of the file system that is mounted. It is `/`, except for bind mounts and subvolumes.
    pub(super) root: PathBuf,
    /// The mount point.
    pub(super) point: PathBuf,
    /// The file system's type.
    pub(super) kind: Cow<'t, str>,
    /// The device, or the name that the file system gives to its source.
    pub(super) source: String,
    /// The options of the file system, not those of the mount.
    pub(super) options: Cow<'t, str>,
}

/// Parses a table. The mounts have the order of the table. Skips invalid lines.
pub(super) fn parse(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line)
}

/// Parses a line such as `36 35 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory`.
fn parse_line(line: &[u8]) -> Option<Mount<'_>> {
    let separator = memchr::memmem::find(line, b" - ")?;
    let mut before = line[..separator].split(|byte| *byte == b' ');
    let mut after = line[separator + 3..].split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(before.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    Some(Mount {
        id,
        parent,
        number: String::from_utf8_lossy(before.next()?),
        root: unescape(before.next()?).into(),
        point: unescape(before.next()?).into(),
        kind: String::from_utf8_lossy(after.next()?),
        source: unescape(after.next()?).to_string_lossy().into_owned(),
        options: String::from_utf8_lossy(after.next().unwrap_or_default()),
    })
}

/// Decodes a path. The kernel writes white space and a backslash as a backslash and three octal digits.
fn unescape(path: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        let (before, escaped) = (&rest[..backslash], &rest[backslash + 1..]);
        plain.extend_from_slice(before);
        let digits = escaped
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &escaped[3..];
            }
            None => {
                plain.push(b'\\');
                rest = escaped;
            }
        }
    }
    plain.extend_from_slice(rest);
    OsString::from_vec(plain)
}

/// Removes the mounts that cannot be reached by their paths. A later mount hides an earlier mount if it has the same mount point,
/// or a mount point above it.
pub(super) fn visible<'t>(mounts: Vec<Mount<'t>>) -> Vec<Mount<'t>> {
    let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
    // The mounts by the mount below them and their mount points.
    let mut children: HashMap<(u64, &[u8]), u64> = HashMap::new();
    for mount in mounts.iter().filter(|mount| mount.id != mount.parent) {
        let place = (mount.parent, mount.point.as_os_str().as_bytes());
        children.entry(place).or_insert(mount.id);
    }
    // The table does not list the parent of the root mount.
    let is_root = |mount: &&Mount<'_>| {
        mount.point == Path::new("/") && (!ids.contains(&mount.parent) || mount.parent == mount.id)
    };
    let Some(root) = mounts.iter().find(is_root).map(|mount| mount.id) else {
        return mounts;
    };
    let leads_to = |path: &Path| {
        let path = path.as_os_str().as_bytes();
        let slashes = memchr::memchr_iter(b'/', path).skip(1);
        let ends = [1].into_iter().chain(slashes).chain([path.len()]);
        let mut at = root;
        let mut steps = 0;
        for directory in ends.filter_map(|end| path.get(..end)) {
            while let Some(next) = children.get(&(at, directory)) {
                at = *next;
                // Each step goes to another mount. The limit prevents an endless loop in an invalid table.
                steps += 1;
                if steps > mounts.len() {
                    return at;
                }
            }
        }
        at
    };
    let seen: Vec<bool> = mounts
        .iter()
        .map(|mount| leads_to(&mount.point) == mount.id)
        .collect();
    let mut seen = seen.into_iter();
    let mut mounts = mounts;
    mounts.retain(|_| seen.next() == Some(true));
    mounts
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::{Mount, parse, visible};

    #[test]
    fn fields_are_found_with_any_number_of_optional_fields() {
        let table = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 35 0:31 /sub\\134dir /mnt/with\\040a\\011space\\0123 rw shared:9 master:1 - fuse.sshfs me@host:/a\\040b rw,user_id=0
nonsense
1 2 3 4 5 rw - ext4
";
        let mounts: Vec<_> = parse(table.as_bytes()).collect();
        let root = Mount {
            id: 27,
            parent: 1,
            number: "254:0".into(),
            root: "/".into(),
            point: "/".into(),
            kind: "ext4".into(),
            source: "/dev/vda".to_owned(),
            options: "rw,discard".into(),
        };
        let odd = Mount {
            id: 36,
            parent: 35,
            number: "0:31".into(),
            root: "/sub\\dir".into(),
            point: "/mnt/with a\tspace\n3".into(),
            kind: "fuse.sshfs".into(),
            source: "me@host:/a b".to_owned(),
            options: "rw,user_id=0".into(),
        };
        assert_eq!(mounts, [root, odd]);
    }

    #[test]
    fn a_path_that_is_not_utf_8_keeps_its_bytes() {
        let table = b"1 0 8:1 / /mnt/cass\xe9 rw - ext4 /dev/sd\xff rw\n";
        let mounts: Vec<_> = parse(table).collect();
        assert_eq!(mounts[0].point.as_os_str().as_bytes(), b"/mnt/cass\xe9");
        assert_eq!(mounts[0].source, "/dev/sd\u{fffd}");
    }

    #[test]
    fn a_mount_below_a_later_mount_is_hidden() {
        let table = "\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /top/a rw - ext4 /dev/sdb rw
22 20 8:3 / /top/b rw - ext4 /dev/sdc rw
23 20 8:4 / /topmost rw - ext4 /dev/sdd rw
24 20 8:5 / /top rw - ext4 /dev/sde rw
25 24 8:6 / /top/a rw - ext4 /dev/sdf rw
26 20 8:7 / /home rw - ext4 /dev/sdg rw
27 26 0:30 / /home rw - tmpfs tmpfs rw
28 20 8:8 / /same rw - ext4 /dev/sdh rw
29 28 8:9 / /same rw - ext4 /dev/sdi rw
30 29 8:10 / /same/below rw - ext4 /dev/sdj rw
";
        let seen: Vec<u64> = visible(parse(table.as_bytes()).collect())
            .iter()
            .map(|mount| mount.id)
            .collect();
        assert_eq!(seen, [20, 23, 24, 25, 27, 29, 30]);
        // Neither table must cause a panic. The first table has no root. In the second table, two mounts are each the parent of
        // the other.
        for table in [
            "2 9 8:1 / /a rw - ext4 a rw\n",
            "1 0 8:1 / / rw - ext4 a rw\n2 3 8:2 / /a rw - x b rw\n3 2 8:3 / /a rw - x c rw\n",
        ] {
            visible(parse(table.as_bytes()).collect());
        }
    }

    proptest! {
        #[test]
        fn only_mounts_below_later_mounts_are_hidden(points in proptest::collection::vec("(/[ab]){1,3}", 0..12)) {
            let points: Vec<PathBuf> = ["/".into()].into_iter().chain(points.into_iter().map(PathBuf::from)).collect();
            // A mount is hidden if a later mount is at the same place or above it.
            let is_visible = |place: usize, until: usize| {
                !points[place + 1..until].iter().any(|later| points[place].starts_with(later))
            };
            let mount = |place: usize| {
                let on = (0..place).rev().filter(|&below| {
                    is_visible(below, place) && points[place].starts_with(&points[below])
                });
                let on = on.max_by_key(|&below| points[below].as_os_str().len());
                let line = format!("{place} {} 0:1 / {} rw - tmpfs tmpfs rw\n", on.unwrap_or(999), points[place].display());
                line
            };
            let table: String = (0..points.len()).map(mount).collect();
            let seen: Vec<u64> = visible(parse(table.as_bytes()).collect()).iter().map(|mount| mount.id).collect();
            let expected: Vec<u64> = (0..points.len()).filter(|&place| is_visible(place, points.len())).map(|place| place as u64).collect();
            prop_assert_eq!(seen, expected, "{}", table);
        }

        #[test]
        fn no_table_panics(table in "(\\PC|\n| - |\\\\| )*") {
            parse(table.as_bytes()).count();
        }
    }

    #[test]
    fn fuzz_mountinfo() {
        let seed = include_bytes!("../../tests/fixtures/mountinfo-odd.txt");
        crate::fuzzing::run("mountinfo", &[seed], |bytes| {
            visible(parse(bytes).collect());
        });
    }
}
