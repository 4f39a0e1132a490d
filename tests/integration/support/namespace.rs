//! Linux namespaces, in which a test mounts file systems and creates interfaces without a change to the host. Such namespaces
//! need no privilege if the kernel allows user namespaces for all users.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The start of a command line that runs a program in the namespaces of a container of an unprivileged user.
pub(crate) const CONTAINER: [&str; 9] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--cgroup",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// A set of namespaces, which exist as long as a sleeping process in them. On drop this process and the namespaces end.
pub(crate) struct Namespace {
    holder: Child,
    kinds: Vec<String>,
}

impl Namespace {
    /// Creates namespaces of these kinds (`mount`, `net`) and runs `script` as root in them.
    pub(crate) fn start(kinds: &[&str], script: &str) -> Self {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("--{kind}")).collect();
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .args(&kinds)
            .args(["sh", "-ec"])
            .arg(format!("{script}\necho ready\nexec sleep 3600"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start unshare");
        let mut line = String::new();
        let mut output = BufReader::new(holder.stdout.take().expect("the output is not piped"));
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the script in the namespace failed");
        Self { holder, kinds }
    }

    /// The start of a command line that runs a program in these namespaces.
    pub(crate) fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.holder.id());
        let fixed = ["nsenter", "--preserve-credentials", "--user", &target];
        let fixed = fixed.iter().map(|&word| word.to_owned());
        fixed.chain(self.kinds.iter().cloned()).collect()
    }

    /// Kills the sleeping process in the namespaces. The kernel closes the files of this process.
    pub(crate) fn end(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.end();
    }
}
