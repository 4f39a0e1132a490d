//! Lists the files of the page for `src/web/page/mod.rs`, so that the program contains them.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    const FOLDER: &str = "src/web/page/dist";
    println!("cargo::rerun-if-changed={FOLDER}");
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let folder = Path::new(&root).join(FOLDER);
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let mut list = String::from(
        "/// The name and the content of each file.\nconst FILES: &[(&str, &[u8])] = &[\n",
    );
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // Without the path of the source: compiled code contains positions, which would move with the length of the path.
        let path = format!("/{FOLDER}/{name}");
        let _ = writeln!(
            list,
            "    ({name:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),"
        );
    }
    list.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("page_files.rs"), list)
}
