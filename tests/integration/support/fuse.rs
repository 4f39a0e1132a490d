//! File systems in a program, whose figures a test makes up.

use std::fs;
use std::path::Path;

use super::Namespace;

/// One of them.
pub(crate) struct Fuse<'f> {
    /// With `\xNN` for a byte that is not ASCII.
    pub(crate) point: String,
    pub(crate) kind: &'f str,
    pub(crate) source: &'f str,
    /// All blocks and free ones, of 4 KiB.
    pub(crate) blocks: (u32, u32),
    /// How long an answer takes, in seconds.
    pub(crate) delay: f64,
}

/// The blocks of one GiB.
pub(crate) const GIB: u32 = 262_144;

/// A mount namespace in which these are mounted, after which `script` is run. `folder` is room for files.
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
