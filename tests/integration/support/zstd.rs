//! The `zstd` command as a decoder that is independent of the agent's library.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

/// Decompresses a stream with `zstd -dc` and returns its lines.
pub(crate) fn unpack(stream: &[u8]) -> Vec<String> {
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot start zstd (Debian package zstd)");
    let mut input = zstd.stdin.take().unwrap();
    let stream = stream.to_vec();
    let writer = thread::spawn(move || input.write_all(&stream).unwrap());
    let output = zstd.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}
