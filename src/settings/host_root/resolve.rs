//! Opens files below another root directory. Symbolic links and `..` never lead out of that directory, as with `chroot`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Maximum number of symbolic links in one path. The kernel has the same limit.
const MAX_LINKS: usize = 40;
/// Maximum number of directories in a path.
const MAX_PARTS: usize = 256;

/// Opens a file for reading. `path` is relative to `root`, even if it begins with `/`. Neither `..` nor a symbolic link leads
/// out of `root`.
pub(super) fn open_below(root: &Path, path: &Path) -> Result<OwnedFd, io::Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if root == Path::new("/") {
        return Ok(open(path, flags, Mode::empty())?);
    }
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, directory, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, path, flags, Mode::empty(), resolve) {
        // Kernels older than 5.6 do not have `openat2`. Old lists of allowed system calls refuse `openat2` with `EPERM`. It also
        // fails with `EAGAIN` if another process renames a file at the same time.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => Ok(walk(root.as_fd(), path, flags)?),
        opened => Ok(opened?),
    }
}

/// Opens a file as `openat2` does, for a kernel that does not allow `openat2`. Opens the parts of the path one by one.
fn walk(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut pending: Vec<OsString> = parts(path).collect();
    let mut parents: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            parents.pop();
            continue;
        }
        let parent = parents.last().map_or(root, AsFd::as_fd);
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = openat(parent, &part, look, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&entry)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&entry, OsStr::new(""), Vec::new())?;
                let target = OsString::from_vec(target.into_bytes());
                let target = Path::new(&target);
                if target.is_absolute() {
                    parents.clear();
                }
                pending.extend(parts(target));
            }
            FileType::Directory => parents.push(entry),
            _ if !pending.is_empty() => return Err(Errno::NOTDIR),
            _ => return openat(parent, &part, flags | OFlags::NOFOLLOW, Mode::empty()),
        }
        if pending.len() > MAX_PARTS || parents.len() > MAX_PARTS {
            return Err(Errno::NAMETOOLONG);
        }
    }
    Err(Errno::ISDIR)
}

/// The parts of a path in reverse order.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::OFlags;
    use rustix::io::Errno;

    use super::{open_below, walk};

    #[test]
    fn openat2_and_walk_follow_symbolic_links_only_below_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = outside.path().join("host");
        for folder in ["etc/static", "nix/store", "deep/er"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("nix/store/os"), "inside").unwrap();
        let link = |target: &str, at: &str| symlink(target, root.join(at)).unwrap();
        link("/nix/store/os", "etc/static/os-release");
        link("/etc/static/os-release", "etc/os-release");
        link("../../../../nix/./store/os", "deep/er/up");
        link("/nix", "deep/nix");
        link("../secret", "etc/out");
        link("loop", "loop");
        link("nowhere", "dangling");
        let secret = outside.path().join("secret");
        link(secret.to_str().unwrap(), "etc/absolute-out");
        assert!(!root.join("secret").exists());
        let directory = File::open(&root).unwrap();
        let both = |path: &str| {
            let path = Path::new(path);
            let read = |file: File| {
                let mut text = String::new();
                (&file).read_to_string(&mut text).map(|_| text)
            };
            let by_kernel = open_below(&root, path).map(File::from);
            let by_kernel = by_kernel
                .and_then(read)
                .map_err(|error| error.raw_os_error());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let by_walk = walk(directory.as_fd(), path, flags).map(File::from);
            let by_walk = by_walk.map_err(|error| Some(error.raw_os_error()));
            let by_walk = by_walk.and_then(|file| read(file).map_err(|error| error.raw_os_error()));
            assert_eq!(by_kernel, by_walk, "{}", path.display());
            by_kernel
        };
        for path in [
            "/nix/store/os",
            "etc/os-release",
            "/etc/static/os-release",
            "/../etc/os-release",
            "/deep/er/up",
            "/deep/nix/store/os",
            "/deep/er/../../etc/static/../os-release",
        ] {
            assert_eq!(both(path).as_deref(), Ok("inside"), "{path}");
        }
        let code = |error: Errno| Some(error.raw_os_error());
        for (path, error) in [
            ("/etc/out", Errno::NOENT),
            ("/etc/absolute-out", Errno::NOENT),
            ("/dangling", Errno::NOENT),
            ("/none", Errno::NOENT),
            ("/loop", Errno::LOOP),
            ("/nix/store/os/more", Errno::NOTDIR),
        ] {
            assert_eq!(both(path), Err(code(error)), "{path}");
        }
    }
}
