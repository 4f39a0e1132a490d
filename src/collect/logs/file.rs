//! A container's log where the engine keeps it: the files of its `json-file` driver.
//!
//! Read from the last position. After anything but growth (rotation, truncation, a jump beyond
//! what is kept) the newest lines are looked up anew, through rotated files and compressed ones:
//! they are all that is published, so that nothing that fits the caps is lost that way.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::tail::{Channel, Tail};

/// The most that is read of a log at a time, in bytes: the text that is kept of a container, six
/// times as long where every byte of it is escaped.
const MOST_READ: u64 = 6 * 1024 * 1024;
/// The first look at the end of a log, in bytes; later ones are four times as long each.
const FIRST_LOOK: u64 = 32 * 1024;
/// How much is kept to tell growth from a file that was emptied and has grown again.
const SEAM: u64 = 64;
/// How often the newest lines are looked up where the file is rotated meanwhile.
const LOOKS: u32 = 3;
/// The most rotated files that are looked through.
const MOST_ROTATED: u32 = 100;

/// The log of one container, followed.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    tty: bool,
    wanted: usize,
    at: Option<Position>,
    tail: Tail,
}

/// How far the newest file has been read. It is opened anew when it has grown: a container that
/// logs nothing costs one system call a round, and none costs a descriptor.
#[derive(Debug)]
struct Position {
    inode: u64,
    offset: u64,
    /// What stands before the offset, and when the file was written to last: a file that was
    /// emptied and has grown again has other contents there.
    seam: Vec<u8>,
    written: (i64, i64),
    /// An entry whose end was not written yet.
    rest: Vec<u8>,
}

/// One entry of a log.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl LogFile {
    /// The newest `wanted` lines of the log at `path`; nothing is read yet.
    pub(super) fn new(path: PathBuf, tty: bool, wanted: usize) -> Self {
        Self {
            path,
            tty,
            wanted,
            at: None,
            tail: Tail::new(wanted, usize::MAX),
        }
    }

    /// Reads what is new; whether anything was.
    pub(super) fn update(&mut self) -> io::Result<bool> {
        let now = std::fs::metadata(&self.path)?;
        if self.at.as_ref().is_some_and(|at| at.is_at(&now)) {
            return Ok(false);
        }
        let file = File::open(&self.path)?;
        let now = file.metadata()?;
        // Out of the way while it is read; put back unless the newest lines are looked up anew.
        match self.at.take() {
            Some(mut at) if at.has_grown(&file, &now)? => {
                let mut grown = std::mem::take(&mut at.rest);
                at.offset += read_range(&file, at.offset, now.len(), &mut grown)?;
                at.seam = seam(&file, at.offset)?;
                at.written = written(&now);
                at.rest = self.take_in(&grown);
                self.at = Some(at);
            }
            _ => self.start(file, now)?,
        }
        Ok(true)
    }

    /// The lines as they are now, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// Looks up the newest lines, wherever they are.
    fn start(&mut self, mut file: File, mut newest: Metadata) -> io::Result<()> {
        for _ in 0..LOOKS {
            let chunks = self.newest_entries(&file, newest.len())?;
            if std::fs::metadata(&self.path)?.ino() == newest.ino() {
                self.tail = Tail::new(self.wanted, usize::MAX);
                let mut rest = Vec::new();
                for chunk in chunks.iter().rev() {
                    rest = self.take_in(chunk);
                }
                self.at = Some(Position {
                    inode: newest.ino(),
                    offset: newest.len(),
                    seam: seam(&file, newest.len())?,
                    written: written(&newest),
                    rest,
                });
                return Ok(());
            }
            // Rotated meanwhile: a file may have been looked through twice, or not at all.
            file = File::open(&self.path)?;
            newest = file.metadata()?;
        }
        Err(io::Error::other("rotated faster than it can be read"))
    }

    /// The entries of the newest lines, the newest file's first, whose size is given.
    fn newest_entries(&self, file: &File, size: u64) -> io::Result<Vec<Vec<u8>>> {
        // One more than wanted: what the first of them follows is known to be whole.
        let mut wanted = self.wanted + 1;
        let (chunk, ends) = last_entries(file, size, wanted)?;
        let mut read = chunk.len() as u64;
        wanted = wanted.saturating_sub(ends);
        let mut chunks = vec![chunk];
        for number in 1..=MOST_ROTATED {
            if wanted == 0 || read >= MOST_READ {
                break;
            }
            let Some((chunk, ends)) = rotated(&self.path, number, wanted)? else {
                break;
            };
            read += chunk.len() as u64;
            wanted = wanted.saturating_sub(ends);
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Takes in whole entries; returns what follows the last of them.
    fn take_in(&mut self, entries: &[u8]) -> Vec<u8> {
        let mut rest = entries;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.take_in_entry(&rest[..end]);
            rest = &rest[end + 1..];
        }
        rest.to_vec()
    }

    /// One that is no entry is left out: the engine that wrote it cannot read it either.
    fn take_in_entry(&mut self, entry: &[u8]) {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(entry) else {
            return;
        };
        let channel = match &*entry.stream {
            _ if self.tty => Channel::Terminal,
            "stderr" => Channel::Stderr,
            _ => Channel::Stdout,
        };
        let mut message = Vec::with_capacity(entry.log.len() + 36);
        push_timestamp(&mut message, &entry.time);
        message.push(b' ');
        message.extend_from_slice(entry.log.as_bytes());
        self.tail.push(channel, &message);
    }
}

impl Position {
    /// Whether a file is as it was when it was read last.
    fn is_at(&self, now: &Metadata) -> bool {
        (self.inode, self.offset, self.written) == (now.ino(), now.len(), written(now))
    }

    /// Whether a file is the one that was read last, and has grown by no more than is read.
    fn has_grown(&self, file: &File, now: &Metadata) -> io::Result<bool> {
        Ok(self.inode == now.ino()
            && self.offset < now.len()
            && now.len() - self.offset <= MOST_READ
            && self.seam == seam(file, self.offset)?)
    }
}

/// The engine prints nine digits of a second's fraction, and writes them without zeros at the end.
fn push_timestamp(message: &mut Vec<u8>, time: &str) {
    let (seconds, zone) = match time.find(['Z', '+']) {
        Some(zone) => time.split_at(zone),
        None => (time, ""),
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    message.extend_from_slice(seconds.as_bytes());
    message.push(b'.');
    message.extend_from_slice(fraction.as_bytes());
    message.resize(message.len() + 9_usize.saturating_sub(fraction.len()), b'0');
    message.extend_from_slice(zone.as_bytes());
}

/// The last bytes before an offset: an entry's end, whose timestamp is like no other's.
fn seam(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut seam = Vec::with_capacity(SEAM as usize);
    read_range(file, offset.saturating_sub(SEAM), offset, &mut seam)?;
    Ok(seam)
}

fn written(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// How many entries end a line, as far as can be told without reading them: the text's line feed
/// stands before the quote that ends it.
fn line_ends(entries: &[u8]) -> usize {
    let end = br#"\n","stream""#;
    entries
        .windows(end.len())
        .filter(|window| window == end)
        .count()
}

/// The end of a file with whole entries: `wanted` ends of lines, or all that there are, or as
/// many as fit [`MOST_READ`]; and how many it has.
fn last_entries(file: &File, size: u64, wanted: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut look = FIRST_LOOK;
    loop {
        let from = size.saturating_sub(look);
        let mut chunk = Vec::new();
        read_range(file, from, size, &mut chunk)?;
        if from > 0 {
            // It begins in the middle of an entry.
            let begin = chunk.iter().position(|byte| *byte == b'\n');
            chunk.drain(..begin.map_or(chunk.len(), |end| end + 1));
        }
        let ends = line_ends(&chunk);
        if ends >= wanted || from == 0 || look >= MOST_READ {
            return Ok((chunk, ends));
        }
        look = (look * 4).min(MOST_READ);
    }
}

/// The end of a rotated file, `PATH.1` being the youngest, or of its compressed form; none where
/// there is no such file.
fn rotated(path: &Path, number: u32, wanted: usize) -> io::Result<Option<(Vec<u8>, usize)>> {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}{suffix}"));
        PathBuf::from(name)
    };
    match File::open(name("")) {
        Ok(file) => {
            let size = file.metadata()?.len();
            return last_entries(&file, size, wanted).map(Some);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match File::open(name(".gz")) {
        Ok(file) => {
            let entries = end_of(GzDecoder::new(file))?;
            let ends = line_ends(&entries);
            Ok(Some((entries, ends)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last [`MOST_READ`] bytes of a stream, from the first whole entry on.
fn end_of(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let most = usize::try_from(MOST_READ).unwrap_or(usize::MAX);
    let mut end = Vec::new();
    let mut cut = false;
    while (&mut stream).take(MOST_READ).read_to_end(&mut end)? > 0 {
        if end.len() > most {
            end.drain(..end.len() - most);
            cut = true;
        }
    }
    if cut {
        let begin = end.iter().position(|byte| *byte == b'\n');
        end.drain(..begin.map_or(end.len(), |at| at + 1));
    }
    Ok(end)
}

/// Appends the bytes between two offsets; returns how many there were.
fn read_range(file: &File, from: u64, to: u64, into: &mut Vec<u8>) -> io::Result<u64> {
    let before = into.len();
    let wanted = usize::try_from(to - from).unwrap_or(usize::MAX);
    into.resize(before + wanted, 0);
    let mut read = 0;
    while read < wanted {
        match file.read_at(&mut into[before + read..], from + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                into.truncate(before);
                return Err(error);
            }
        }
    }
    into.truncate(before + read);
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    use super::{LogFile, push_timestamp};

    /// An entry as the engine writes it.
    fn entry(text: &str) -> String {
        let log = serde_json::to_string(text).unwrap();
        format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2024-01-01T12:00:00.25Z\"}}\n")
    }

    fn append(path: &Path, entries: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(entries.as_ref()).unwrap();
    }

    fn numbered(numbers: std::ops::Range<u32>) -> String {
        numbers
            .map(|number| entry(&format!("line {number}\n")))
            .collect()
    }

    /// The texts of the lines, without their timestamp.
    fn texts(log: &LogFile) -> Vec<String> {
        let lines = log.lines();
        let text = |line: &String| {
            line.strip_prefix("2024-01-01T12:00:00.250000000Z ")
                .unwrap()
                .to_owned()
        };
        lines.iter().map(text).collect()
    }

    fn expected(numbers: std::ops::Range<u32>) -> Vec<String> {
        numbers.map(|number| format!("line {number}")).collect()
    }

    #[test]
    fn reads_the_newest_lines_then_only_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-json.log");
        append(&path, numbered(0..10_000));
        let mut log = LogFile::new(path.clone(), false, 50);
        assert!(log.update().unwrap());
        assert_eq!(texts(&log), expected(9950..10_000));
        assert!(!log.update().unwrap());
        append(&path, numbered(10_000..10_003));
        assert!(log.update().unwrap());
        assert_eq!(texts(&log), expected(9953..10_003));
    }

    #[test]
    fn an_entry_may_be_written_in_two_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let entry = entry("one line\n");
        append(&path, &entry[..20]);
        let mut log = LogFile::new(path.clone(), false, 5);
        log.update().unwrap();
        assert!(texts(&log).is_empty());
        append(&path, &entry[20..]);
        log.update().unwrap();
        assert_eq!(texts(&log), ["one line"]);
    }

    #[test]
    fn follows_through_rotation_truncation_and_compressed_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (first, second) = (folder.path().join("log.1"), folder.path().join("log.2"));
        append(&path, numbered(0..30));
        let mut log = LogFile::new(path.clone(), false, 50);
        log.update().unwrap();
        // Written, rotated, written, rotated, between two readings.
        append(&path, numbered(30..40));
        fs::rename(&path, &second).unwrap();
        append(&first, numbered(40..60));
        append(&path, numbered(60..65));
        log.update().unwrap();
        assert_eq!(texts(&log), expected(15..65));
        assert!(
            Command::new("gzip")
                .arg(&second)
                .status()
                .unwrap()
                .success()
        );
        fs::rename(&first, folder.path().join("log.1.tmp")).unwrap();
        fs::rename(folder.path().join("log.1.tmp"), &first).unwrap();
        let mut anew = LogFile::new(path.clone(), false, 50);
        anew.update().unwrap();
        assert_eq!(texts(&anew), expected(15..65));
        // Emptied and grown beyond where it was, between two readings.
        fs::write(&path, numbered(100..200)).unwrap();
        log.update().unwrap();
        assert_eq!(texts(&log), expected(150..200));
        // A single file is emptied instead of being rotated.
        fs::write(&path, numbered(65..66)).unwrap();
        fs::remove_file(&first).unwrap();
        fs::remove_file(folder.path().join("log.2.gz")).unwrap();
        log.update().unwrap();
        assert_eq!(texts(&log), expected(65..66));
    }

    #[test]
    fn fragments_make_one_line_also_across_the_first_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for _ in 0..5 {
            for _ in 0..6 {
                append(&path, entry(&"x".repeat(16 * 1024)));
            }
            append(&path, entry("end\n"));
        }
        let mut log = LogFile::new(path, false, 5);
        log.update().unwrap();
        assert_eq!(log.lines().len(), 5);
        assert!(
            log.lines()
                .iter()
                .all(|line| line.ends_with("[line cut at 16 KiB]"))
        );
    }

    #[test]
    fn a_terminals_line_ends_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, entry("a\r\n"));
        let long = "y".repeat(16 * 1024 - 1);
        append(&path, entry(&format!("{long}\r")));
        append(&path, entry("\n"));
        for (tty, text) in [(true, "a"), (false, "a\r")] {
            let mut log = LogFile::new(path.clone(), tty, 5);
            log.update().unwrap();
            assert_eq!(texts(&log)[0], text);
            assert_eq!(
                texts(&log)[1],
                format!("{long}{}", if tty { "" } else { "\r" })
            );
        }
    }

    #[test]
    fn a_log_that_is_none_yields_nothing_and_breaks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::new(path.clone(), false, 5);
        assert!(log.update().is_err());
        append(&path, b"\xff\x00nonsense\n{}\n[]\n{\"log\":1}\n");
        log.update().unwrap();
        assert!(log.lines().is_empty());
    }

    #[test]
    fn timestamps_have_nine_digits() {
        for (written, printed) in [
            ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00.000000000Z"),
            ("2024-01-01T12:00:00.5Z", "2024-01-01T12:00:00.500000000Z"),
            (
                "2024-01-01T12:00:00.123456789+01:00",
                "2024-01-01T12:00:00.123456789+01:00",
            ),
        ] {
            let mut message = Vec::new();
            push_timestamp(&mut message, written);
            assert_eq!(String::from_utf8(message).unwrap(), printed);
        }
    }
}
