//! Namespaces of the tests' own, in which mounts and interfaces are nobody else's. They take no privilege, where the kernel
//! gives user namespaces to all.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What keeps the namespaces: a process that sleeps in them. Dropping it ends them.
pub(crate) struct Namespace {
    holder: Child,
    kinds: Vec<String>,
}

impl Namespace {
    /// New ones of these kinds (`mount`, `net`), made ready by a script that is root in them.
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
            .expect("unshare");
        let mut said = String::new();
        let mut output = BufReader::new(holder.stdout.take().expect("piped"));
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the script failed");
        Self { holder, kinds }
    }

    /// The command that runs another in them.
    pub(crate) fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.holder.id());
        let fixed = ["nsenter", "--preserve-credentials", "--user", &target];
        let fixed = fixed.iter().map(|&word| word.to_owned());
        fixed.chain(self.kinds.iter().cloned()).collect()
    }

    /// Ends what keeps them: whatever it has open is closed.
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
