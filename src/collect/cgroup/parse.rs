//! Parses numbers from the texts of control-group files. Does no I/O. If a text cannot be parsed, the result is none or zeros.

use crate::model::BlockIo;

/// Parses a file with one number. None for `max`, which means no limit.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// Returns the value of `key` in a text with lines of the form `key value`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| number(value)).flatten()
    })
}

/// Returns the values of several keys. Goes through the text only once.
pub(super) fn keyed_all<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut values = [None; N];
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(place) = keys.iter().position(|key| *key == name) {
            values[place] = number(value);
        }
    }
    values
}

/// Returns the sums over all devices: the read figure, and then the written figure. Parses the files
/// `blkio.*.io_service_bytes_recursive` and `io_serviced_recursive`, with lines such as `MAJOR:MINOR Read 4096`.
pub(super) fn blkio(text: &str) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for line in text.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(kind), Some(value)) = (fields.next(), fields.next().and_then(number)) else {
            continue;
        };
        match kind {
            "Read" => sums.0 = sums.0.saturating_add(value),
            "Write" => sums.1 = sums.1.saturating_add(value),
            _ => {}
        }
    }
    sums
}

/// Returns the sums over all devices in `io.stat` of v2. Its lines are such as `MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4 …`.
pub(super) fn io_stat(text: &str) -> BlockIo {
    let mut sums = BlockIo {
        read_ops: Some(0),
        write_ops: Some(0),
        ..BlockIo::default()
    };
    for pair in text.split_ascii_whitespace() {
        let Some((key, Some(value))) = pair.split_once('=').map(|(key, text)| (key, number(text)))
        else {
            continue;
        };
        let sum = match key {
            "rbytes" => &mut sums.read_bytes,
            "wbytes" => &mut sums.write_bytes,
            "rios" => sums.read_ops.get_or_insert_default(),
            "wios" => sums.write_ops.get_or_insert_default(),
            _ => continue,
        };
        *sum = sum.saturating_add(value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{blkio, io_stat, keyed, keyed_all, number};
    use crate::model::BlockIo;

    #[test]
    fn numbers_and_the_values_of_keys_are_read() {
        assert_eq!(number("26462367\n"), Some(26_462_367));
        assert_eq!(number("max\n"), None);
        assert_eq!(number("18446744073709551616\n"), None);
        let stat = "cache 0\ninactive_file 7\ntotal_inactive_file 4096\n";
        assert_eq!(keyed(stat, "total_inactive_file"), Some(4096));
        assert_eq!(keyed(stat, "inactive_file"), Some(7));
        assert_eq!(keyed(stat, "file"), None);
        assert_eq!(keyed("nonsense\ncache x\n", "cache"), None);
        let keys = ["inactive_file", "file", "cache"];
        assert_eq!(keyed_all(stat, keys), [Some(7), None, Some(0)]);
        assert_eq!(keyed_all("nonsense\ncache x\n", keys), [None; 3]);
    }

    #[test]
    fn block_io_is_summed_over_devices() {
        let v1 = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\n\
                  253:0 Read 1\n253:0 Write 2\nTotal 24582\n";
        assert_eq!(blkio(v1), (4097, 8194));
        assert_eq!(blkio("Total 0\n"), (0, 0));
        let v2 = "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n\
                  253:0 rbytes=1 wbytes=x rios=1\n7:0\n";
        let expected = BlockIo {
            read_bytes: 4097,
            write_bytes: 8192,
            read_ops: Some(2),
            write_ops: Some(2),
            ..BlockIo::default()
        };
        assert_eq!(io_stat(v2), expected);
        let nothing = BlockIo {
            read_ops: Some(0),
            write_ops: Some(0),
            ..BlockIo::default()
        };
        assert_eq!(io_stat(""), nothing);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n| |[0-9]|Read |Write |rbytes=|wios=)*", value: u64) {
            let _ = (number(&text), keyed(&text, "0"), keyed_all(&text, ["0", "1"]));
            let (read, written) = blkio(&text);
            let more = format!("{text}\n8:0 Read {value}\n8:0 Write {value}\n8:0 Write {}\n", u64::MAX);
            prop_assert_eq!(blkio(&more), (read.saturating_add(value), u64::MAX));
            let _ = written;
            let before = io_stat(&text);
            let more = io_stat(&format!("{text}\n8:0 rios={value} wbytes={}", u64::MAX));
            let expected = before.read_ops.map(|ops| ops.saturating_add(value));
            prop_assert_eq!(more.read_ops, expected);
            prop_assert_eq!(more.write_bytes, u64::MAX);
        }
    }

    #[test]
    fn fuzz_cgroup_files() {
        let seeds: [&[u8]; 5] = [
            include_bytes!("../../../tests/fixtures/cgroup-v1.txt"),
            include_bytes!("../../../tests/fixtures/cgroup-v2.txt"),
            b"8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\nTotal 12288\n",
            b"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            b"cache 1\nrss 2\ntotal_inactive_file 4096\n",
        ];
        crate::fuzzing::run("cgroup_files", &seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let keys = ["cache", "rss", "nr_throttled", "total_inactive_file"];
            let _ = (number(&text), keyed(&text, keys[0]), keyed_all(&text, keys));
            let _ = (blkio(&text), io_stat(&text));
        });
    }
}
