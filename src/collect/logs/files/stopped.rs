//! Finds the log files of a container that does not run, and whose log the agent has not read before.

use std::fs;
use std::path::Path;

use super::open;
use super::reader::LogReader;
use crate::model::ReadLog;
use crate::settings::Redaction;

/// Returns what reads the log of a container. `containers` is the folder in which the engine has a folder for each container, and
/// `id` the beginning of the container's id. None if there is no log file, or if the agent cannot open it. Blocks the thread.
pub(in crate::collect::logs) fn reader_of(
    containers: &Path,
    id: &str,
    redaction: &Redaction,
) -> Option<impl ReadLog + use<>> {
    let entries = fs::read_dir(containers).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids = names.filter(|name| name.starts_with(id));
    let id = ids.next()?;
    let folder = containers.join(&id);
    if !open::is_folder_of(&folder, &id) {
        return None;
    }
    let mut paths = open::paths(&folder, &id).into_iter();
    let path = paths.find(|path| open::open(path).is_ok())?;
    let tty = open::has_terminal(&folder);
    Some(LogReader::new(path, tty, redaction))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::reader_of;
    use crate::model::{LogRange, ReadLog as _};
    use crate::settings::Redaction;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_log_file_of_a_container_is_found_by_the_beginning_of_its_id() {
        let containers = tempfile::tempdir().unwrap();
        let reader = |id: &str| reader_of(containers.path(), id, &Redaction::default());
        let folder = containers.path().join(ID);
        fs::create_dir(&folder).unwrap();
        assert!(reader(&ID[..12]).is_none(), "there is no file yet");
        let entry =
            r#"{"log":"last words\n","stream":"stderr","time":"2026-01-02T03:04:05.123456789Z"}"#;
        let path = folder.join(format!("{ID}-json.log"));
        fs::write(&path, format!("{entry}\n")).unwrap();
        for id in [&ID[..12], ID] {
            let read = reader(id).unwrap().range(&LogRange::of("web")).unwrap();
            assert_eq!(
                *read.lines[0],
                *r#""2026-01-02T03:04:05.123456789Z last words""#
            );
            assert_eq!(read.lines.len(), 1);
        }
        assert!(reader("1123456789ab").is_none());
        // The engine writes neither links nor folders with other names.
        fs::create_dir(containers.path().join("other")).unwrap();
        assert!(reader("other").is_none());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(reader(ID).is_none());
    }
}
