//! Reads files of the kernel, which have a new text at each reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Size of the parts in which the kernel returns the text of a file, in bytes.
const PAGE: usize = 4096;
/// The first size of the buffer of a [`KernelFile`], in bytes. The buffer grows until the text fits.
const SMALL: usize = 512;

/// A file of the kernel that stays open between readings. A reading then needs one system call for a short text, in place of five.
#[derive(Debug)]
pub(super) struct KernelFile {
    path: PathBuf,
    /// None until the first reading, and after a failed reading.
    file: Option<File>,
    /// The text of the newest reading, and unused bytes.
    text: Vec<u8>,
}

impl KernelFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
            text: Vec::new(),
        }
    }

    /// Returns the current text of the file.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or read. If an open file cannot be read or is empty, it is opened again first: the file system
    /// of LXCFS can have been mounted again after an update, or can have no room for a text that has become longer.
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        if self.text.is_empty() {
            self.text.resize(SMALL, 0);
        }
        let kept = self.file.take();
        let (file, length) = match kept.map(|file| (read_into(&file, &mut self.text), file)) {
            Some((Ok(length), file)) if length > 0 => (file, length),
            _ => {
                let file = File::open(&self.path)?;
                let length = read_into(&file, &mut self.text)?;
                (file, length)
            }
        };
        self.file = Some(file);
        Ok(&self.text[..length])
    }
}

/// Reads the current text of a file into `buffer`. None if the file cannot be read, or if the text is not UTF-8.
pub(super) fn text<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    std::str::from_utf8(read_all(file, buffer)?).ok()
}

/// Reads the current bytes of a file into `buffer`. None if the file cannot be read.
pub(super) fn read_all<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if buffer.is_empty() {
        buffer.resize(4 * PAGE, 0);
    }
    let length = read_into(file, buffer).ok()?;
    Some(&buffer[..length])
}

/// Reads the current bytes of a file into `buffer`, which must not be empty and grows if necessary. Returns their number.
fn read_into(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => {
                length += read;
                // The kernel returns a file in pages. It fills each page except for at most one line. So a much shorter answer is
                // the end of the file, and one system call is saved.
                if read < PAGE * 3 / 4 && length < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::KernelFile;

    #[test]
    fn each_reading_has_the_current_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = KernelFile::new(&path);
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        for text in ["", "short\n", &"long\n".repeat(5000), "short again\n"] {
            // Does not replace the file.
            fs::write(&path, text).unwrap();
            assert_eq!(file.read().unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_any_more_is_opened_again() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // The file of a process cannot be read after the process has ended.
        std::os::unix::fs::symlink(format!("/proc/{}/stat", child.id()), &path).unwrap();
        let mut file = KernelFile::new(&path);
        let text = String::from_utf8(file.read().unwrap().to_vec()).unwrap();
        assert!(text.starts_with(&child.id().to_string()), "{text}");
        child.kill().unwrap();
        child.wait().unwrap();
        file.read().unwrap_err();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/stat", &path).unwrap();
        let text = String::from_utf8(file.read().unwrap().to_vec()).unwrap();
        assert!(text.starts_with(&std::process::id().to_string()), "{text}");
    }

    #[test]
    fn long_tables_of_the_kernel_are_complete() {
        for path in [
            "/proc/kallsyms",
            "/proc/stat",
            "/proc/meminfo",
            "/proc/self/maps",
        ] {
            let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count();
            let mut file = KernelFile::new(path);
            let read = lines(file.read().unwrap());
            let again = lines(file.read().unwrap());
            let whole = lines(&fs::read(path).unwrap());
            assert!(
                read.abs_diff(whole) <= 5 && again.abs_diff(whole) <= 5,
                "{path}"
            );
        }
    }
}
