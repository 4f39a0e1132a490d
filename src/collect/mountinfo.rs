//! The table of what is mounted: `/proc/self/mountinfo`.

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount<'t> {
    /// The file system's number, e.g. `254:0`.
    pub(super) id: &'t str,
    /// Which of its directories is mounted: `/`, but for bind mounts.
    pub(super) root: String,
    pub(super) point: String,
    /// The file system's type.
    pub(super) kind: &'t str,
    /// What is mounted: a device, or whatever the file system calls it.
    pub(super) source: String,
    /// The file system's own options.
    pub(super) options: &'t str,
}

/// The mounts in a table, in their order; lines that are none are left out.
pub(super) fn parse(table: &str) -> impl Iterator<Item = Mount<'_>> {
    table.lines().filter_map(parse_line)
}

/// `36 35 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory`
fn parse_line(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let (id, root, point) = (before.next()?, before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, source) = (after.next()?, after.next()?);
    Some(Mount {
        id,
        root: unescape(root),
        point: unescape(point),
        kind,
        source: unescape(source),
        options: after.next().unwrap_or_default(),
    })
}

/// The kernel writes white space and backslashes as three octal digits.
fn unescape(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, escaped)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = escaped
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &escaped[3..];
            }
            None => {
                plain.push('\\');
                rest = escaped;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Mount, parse};

    #[test]
    fn fields_are_found_however_many_tags_there_are() {
        let table = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 35 0:31 /sub\\134dir /mnt/with\\040a\\011space\\0123 rw shared:9 master:1 - fuse.sshfs me@host:/a\\040b rw,user_id=0
nonsense
1 2 3 4 5 rw - ext4
";
        let mounts: Vec<_> = parse(table).collect();
        let root = Mount {
            id: "254:0",
            root: "/".to_owned(),
            point: "/".to_owned(),
            kind: "ext4",
            source: "/dev/vda".to_owned(),
            options: "rw,discard",
        };
        let odd = Mount {
            id: "0:31",
            root: "/sub\\dir".to_owned(),
            point: "/mnt/with a\tspace\n3".to_owned(),
            kind: "fuse.sshfs",
            source: "me@host:/a b".to_owned(),
            options: "rw,user_id=0",
        };
        assert_eq!(mounts, [root, odd]);
    }

    proptest! {
        #[test]
        fn no_table_panics(table in "(\\PC|\n| - |\\\\| )*") {
            parse(&table).count();
        }
    }

    #[test]
    fn fuzz_mountinfo() {
        let seed = include_bytes!("../../tests/fixtures/mountinfo-odd.txt");
        crate::fuzzing::run("mountinfo", &[seed], |bytes| {
            parse(&String::from_utf8_lossy(bytes)).count();
        });
    }
}
