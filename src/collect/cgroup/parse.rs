//! Parses numbers from the texts of control-group files. Does no I/O. If a text cannot be parsed, the result is none or zeros.

use crate::model::{BlockIo, DeviceIo};

/// Maximum number of devices whose block I/O is kept separately.
const MAX_DEVICES: usize = 256;

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

/// Returns the name and the value of each line of a text with lines of the form `name value`. Uses `memchr` instead of `str::lines`,
/// because the memory statistics of each container have 40 lines and more.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    ends.filter_map(move |end| {
        let line = &text[begin..end];
        begin = end + 1;
        let space = memchr::memchr(b' ', line.as_bytes())?;
        Some((&line[..space], &line[space + 1..]))
    })
}

/// Reads the values of several keys. Goes through the text only once. For each key, the macro has the place for the value.
macro_rules! keyed_all {
    ($text:expr, { $($($key:literal)|+ => $place:expr,)+ }) => {
        for (name, value) in parse::pairs($text) {
            match name {
                $($($key)|+ => $place = parse::number(value),)+
                _ => {}
            }
        }
    };
}
pub(super) use keyed_all;

/// The figures of a device's block I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoFigure {
    ReadBytes,
    WriteBytes,
    ReadOps,
    WriteOps,
}

/// Block I/O by device.
#[derive(Debug, Default)]
pub(super) struct Devices(pub(super) Vec<DeviceIo>);

impl Devices {
    /// Stores a figure of the device `MAJOR:MINOR`. Ignores other texts.
    pub(super) fn set(&mut self, device: &str, figure: IoFigure, value: u64) {
        let Some((major, minor)) = device.split_once(':') else {
            return;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            return;
        };
        let number = (major, minor);
        let known = self.0.iter().rposition(|one| one.number == number);
        let index = match known {
            Some(index) => index,
            None if self.0.len() == MAX_DEVICES => return,
            None => {
                self.0.push(DeviceIo {
                    number,
                    ..DeviceIo::default()
                });
                self.0.len() - 1
            }
        };
        let device = &mut self.0[index];
        let place = match figure {
            IoFigure::ReadBytes => &mut device.read_bytes,
            IoFigure::WriteBytes => &mut device.write_bytes,
            IoFigure::ReadOps => &mut device.read_ops,
            IoFigure::WriteOps => &mut device.write_ops,
        };
        *place = value;
    }
}

/// Returns the sums over all devices: the read figure, and then the written figure. Parses the files
/// `blkio.*.io_service_bytes_recursive` and `io_serviced_recursive`, with lines such as `MAJOR:MINOR Read 4096`. Calls `each` with the
/// device and the figure of each line. `figures` are the names of the two figures.
pub(super) fn blkio(
    text: &str,
    figures: [IoFigure; 2],
    mut each: impl FnMut(&str, IoFigure, u64),
) -> (u64, u64) {
    let [read, write] = figures;
    let mut sums = (0_u64, 0_u64);
    for line in text.lines() {
        let mut fields = line.split(' ');
        let device = fields.next().unwrap_or_default();
        let (Some(kind), Some(value)) = (fields.next(), fields.next().and_then(number)) else {
            continue;
        };
        match kind {
            "Read" => {
                sums.0 = sums.0.saturating_add(value);
                each(device, read, value);
            }
            "Write" => {
                sums.1 = sums.1.saturating_add(value);
                each(device, write, value);
            }
            _ => {}
        }
    }
    sums
}

/// Returns the sums over all devices in `io.stat` of v2. Its lines are such as `MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4 …`. Calls
/// `each` with the device and each figure.
pub(super) fn io_stat(text: &str, mut each: impl FnMut(&str, IoFigure, u64)) -> BlockIo {
    let mut sums = BlockIo {
        read_ops: Some(0),
        write_ops: Some(0),
        ..BlockIo::default()
    };
    let mut device = "";
    for pair in text.split_ascii_whitespace() {
        let Some((key, value)) = pair.split_once('=') else {
            device = pair;
            continue;
        };
        let Some(value) = number(value) else {
            continue;
        };
        let (sum, figure) = match key {
            "rbytes" => (&mut sums.read_bytes, IoFigure::ReadBytes),
            "wbytes" => (&mut sums.write_bytes, IoFigure::WriteBytes),
            "rios" => (sums.read_ops.get_or_insert_default(), IoFigure::ReadOps),
            "wios" => (sums.write_ops.get_or_insert_default(), IoFigure::WriteOps),
            _ => continue,
        };
        *sum = sum.saturating_add(value);
        each(device, figure, value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Devices, IoFigure, MAX_DEVICES, keyed, number, pairs};
    use crate::model::{BlockIo, DeviceIo};

    const BYTES: [IoFigure; 2] = [IoFigure::ReadBytes, IoFigure::WriteBytes];
    const OPS: [IoFigure; 2] = [IoFigure::ReadOps, IoFigure::WriteOps];

    fn blkio(text: &str) -> (u64, u64) {
        super::blkio(text, BYTES, |_, _, _| {})
    }

    fn io_stat(text: &str) -> BlockIo {
        super::io_stat(text, |_, _, _| {})
    }

    fn check_pairs(text: &str) {
        let lines = text.split('\n').filter_map(|line| line.split_once(' '));
        assert!(pairs(text).eq(lines), "{text:?}");
    }

    #[test]
    fn each_line_with_a_space_is_a_pair() {
        let all = |text: &'static str| pairs(text).collect::<Vec<_>>();
        assert_eq!(all(""), []);
        assert_eq!(all("a 1"), [("a", "1")]);
        assert_eq!(all("a 1\nb 2 3\n"), [("a", "1"), ("b", "2 3")]);
        assert_eq!(all("\n\nnonsense\n 4\nä \n"), [("", "4"), ("ä", "")]);
    }

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

    #[test]
    fn block_io_is_known_for_each_device() {
        let mut devices = Devices::default();
        let bytes = "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\n253:0 Read 1\nTotal 12289\n";
        super::blkio(bytes, BYTES, |device, figure, value| {
            devices.set(device, figure, value);
        });
        super::blkio("253:0 Write 7\nx Read 5\n", OPS, |device, figure, value| {
            devices.set(device, figure, value);
        });
        let first = DeviceIo {
            number: (8, 0),
            read_bytes: 4096,
            write_bytes: 8192,
            ..DeviceIo::default()
        };
        let second = DeviceIo {
            number: (253, 0),
            read_bytes: 1,
            write_ops: 7,
            ..DeviceIo::default()
        };
        assert_eq!(devices.0, [first, second]);
        let mut of_v2 = Devices::default();
        let text =
            "8:0 rbytes=4096 wbytes=8192 rios=0 wios=0 dbytes=0\n7:0\n253:0 rbytes=1 wios=7\n";
        super::io_stat(text, |device, figure, value| {
            of_v2.set(device, figure, value);
        });
        assert_eq!(of_v2.0, devices.0);
        for minor in 0..2 * MAX_DEVICES {
            devices.set(&format!("9:{minor}"), IoFigure::ReadOps, 1);
        }
        assert_eq!(devices.0.len(), MAX_DEVICES);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n| |[0-9]|Read |Write |rbytes=|wios=)*", value: u64) {
            let _ = (number(&text), keyed(&text, "0"));
            check_pairs(&text);
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
            let _ = (number(&text), keyed(&text, "cache"));
            check_pairs(&text);
            let _ = (blkio(&text), io_stat(&text));
        });
    }
}
