//! What the `zstd` command makes of a stream: a decoder that is not the agent's library.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

/// What `zstd -dc` makes of a stream, as lines.
pub(crate) fn unpack(stream: &[u8]) -> Vec<String> {
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("zstd (Debian: zstd) starts");
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
