//! FUSE file systems whose figures a test chooses.

use std::fs;
use std::path::Path;

use super::Namespace;

/// A FUSE file system with chosen figures.
pub(crate) struct Fuse<'f> {
    /// The mount point. `\xNN` stands for a byte that is not ASCII.
    pub(crate) point: String,
    pub(crate) kind: &'f str,
    pub(crate) source: &'f str,
    /// The number of all blocks and of free blocks. A block has 4 KiB.
    pub(crate) blocks: (u32, u32),
    /// The delay of each answer in seconds.
    pub(crate) delay: f64,
}

/// The number of blocks in one GiB.
pub(crate) const GIB: u32 = 262_144;

/// Mounts these file systems in a new mount namespace and then runs `script` there. Temporary files go into `folder`.
pub(crate) fn mounted(folder: &Path, all: &[Fuse<'_>], script: &str) -> Namespace {
    let line = |one: &Fuse<'_>| {
        let Fuse {
            point,
            kind,
            source,
            blocks: (all, free),
            delay,
        } = one;
        format!("{point}\t{kind}\t{source}\t{all}\t{free}\t{delay}\tallow_other\n")
    };
    let specification = folder.join("fuse.tsv");
    fs::write(&specification, all.iter().map(line).collect::<String>()).unwrap();
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuse.py");
    let pipe = folder.join("fuse.pipe");
    let start = format!(
        "mkfifo {pipe}
         python3 {server} {specification} >{pipe} &
         read line <{pipe}
         test \"$line\" = ready
         {script}",
        pipe = pipe.display(),
        server = server.display(),
        specification = specification.display(),
    );
    Namespace::start(&["mount"], &start)
}
