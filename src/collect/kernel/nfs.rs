//! Reads the requests of the kernel's NFS client and NFS server.

use std::collections::HashMap;
use std::path::Path;

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The requests of a version of NFS, in the order of the kernel. An empty name is not published.
type Requests = &'static [&'static str];

const VERSION_2: Requests = &[
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write",
    "Create", "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

const VERSION_3: Requests = &[
    "Null",
    "GetAttr",
    "SetAttr",
    "Lookup",
    "Access",
    "ReadLink",
    "Read",
    "Write",
    "Create",
    "MkDir",
    "SymLink",
    "MkNod",
    "Remove",
    "RmDir",
    "Rename",
    "Link",
    "ReadDir",
    "ReadDirPlus",
    "FsStat",
    "FsInfo",
    "PathConf",
    "Commit",
];

const CLIENT_VERSION_4: Requests = &[
    "Null",
    "Read",
    "Write",
    "Commit",
    "Open",
    "OpenConfirm",
    "OpenNoattr",
    "OpenDowngrade",
    "Close",
    "Setattr",
    "FsInfo",
    "Renew",
    "SetClientID",
    "SetClientIDConfirm",
    "Lock",
    "Lockt",
    "Locku",
    "Access",
    "Getattr",
    "Lookup",
    "LookupRoot",
    "Remove",
    "Rename",
    "Link",
    "Symlink",
    "Create",
    "Pathconf",
    "StatFs",
    "ReadLink",
    "ReadDir",
    "ServerCaps",
    "DelegReturn",
    "GetACL",
    "SetACL",
    "FsLocations",
    "ReleaseLockowner",
    "Secinfo",
    "FsidPresent",
    "ExchangeID",
    "CreateSession",
    "DestroySession",
    "Sequence",
    "GetLeaseTime",
    "ReclaimComplete",
    "GetDeviceInfo",
    "LayoutGet",
    "LayoutCommit",
    "LayoutReturn",
    "SecinfoNoName",
    "TestStateID",
    "FreeStateID",
    "GetDeviceList",
    "BindConnToSession",
    "DestroyClientID",
    "Seek",
    "Allocate",
    "DeAllocate",
    "LayoutStats",
    "Clone",
];

const SERVER_VERSION_4: Requests = &[
    "",
    "",
    "",
    "Access",
    "Close",
    "Commit",
    "Create",
    "DelegPurge",
    "DelegReturn",
    "GetAttr",
    "GetFH",
    "Link",
    "Lock",
    "Lockt",
    "Locku",
    "Lookup",
    "LookupRoot",
    "Nverify",
    "Open",
    "OpenAttr",
    "OpenConfirm",
    "OpenDgrd",
    "PutFH",
    "",
    "",
    "Read",
    "ReadDir",
    "ReadLink",
    "Remove",
    "Rename",
    "Renew",
    "RestoreFH",
    "SaveFH",
    "SecInfo",
    "SetAttr",
    "SetClientID",
    "SetClientIDConfirm",
    "Verify",
    "Write",
    "RelLockOwner",
];

/// The client. Source: `/proc/net/rpc/nfs`.
pub(super) struct Nfs(pub(super) Roots);

/// The server. Source: `/proc/net/rpc/nfsd`.
pub(super) struct Nfsd(pub(super) Roots);

impl Family for Nfs {
    fn name(&self) -> &'static str {
        "nfs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let lines = Lines::read(&self.0.proc.join("net/rpc/nfs"))?;
        for (protocol, place) in [("udp", 1), ("tcp", 2)] {
            rows.add([("protocol", protocol)])
                .figure("packets", lines.number("net", place));
        }
        let row = rows.add([]);
        row.figure("connections", lines.number("net", 3));
        row.figure("rpcs", lines.number("rpc", 0));
        row.figure("rpc_retransmissions", lines.number("rpc", 1));
        row.figure("rpc_authentication_refreshes", lines.number("rpc", 2));
        lines.add_requests(rows, "2", "proc2", VERSION_2);
        lines.add_requests(rows, "3", "proc3", VERSION_3);
        lines.add_requests(rows, "4", "proc4", CLIENT_VERSION_4);
        Ok(())
    }
}

impl Family for Nfsd {
    fn name(&self) -> &'static str {
        "nfsd"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        const FIGURES: [(&str, &str, usize); 11] = [
            ("reply_cache_hits", "rc", 0),
            ("reply_cache_misses", "rc", 1),
            ("reply_cache_nocache", "rc", 2),
            ("file_handles_stale", "fh", 0),
            ("disk_bytes_read", "io", 0),
            ("disk_bytes_written", "io", 1),
            ("server_threads", "th", 0),
            ("read_ahead_cache_size_blocks", "ra", 0),
            ("read_ahead_cache_not_found", "ra", 11),
            ("connections", "net", 3),
            ("server_rpcs", "rpc", 0),
        ];
        let lines = Lines::read(&self.0.proc.join("net/rpc/nfsd"))?;
        let row = rows.add([]);
        for (name, line, place) in FIGURES {
            row.figure(name, lines.number(line, place));
        }
        for (protocol, place) in [("udp", 1), ("tcp", 2)] {
            rows.add([("proto", protocol)])
                .figure("packets", lines.number("net", place));
        }
        for (error, place) in [("fmt", 2), ("auth", 3), ("cInt", 4)] {
            rows.add([("error", error)])
                .figure("rpc_errors", lines.number("rpc", place));
        }
        // node_exporter does not publish the server's empty requests.
        lines.add_requests(rows, "2", "proc2", &without_null(VERSION_2));
        lines.add_requests(rows, "3", "proc3", &without_null(VERSION_3));
        lines.add_requests(rows, "4", "proc4ops", SERVER_VERSION_4);
        rows.add([("proto", "4"), ("method", "WdelegGetattr")])
            .figure("requests", lines.number("wdeleg_getattr", 0));
        Ok(())
    }
}

fn without_null(requests: Requests) -> Vec<&'static str> {
    let kept = |name: &&'static str| if *name == "Null" { "" } else { *name };
    requests.iter().map(kept).collect()
}

/// The lines of a file, by their first word. A line that the kernel does not have counts as zeros.
struct Lines(HashMap<String, Vec<f64>>);

impl Lines {
    fn read(path: &Path) -> Result<Self, FamilyError> {
        let mut lines = HashMap::new();
        for line in read_file(path)?.lines() {
            let mut words = line.split_ascii_whitespace();
            if let Some(name) = words.next() {
                let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok()).collect();
                let numbers = numbers.ok_or_else(|| FamilyError::parse(path))?;
                lines.insert(name.to_owned(), numbers);
            }
        }
        Ok(Self(lines))
    }

    fn number(&self, line: &str, place: usize) -> f64 {
        let number = self.0.get(line).and_then(|numbers| numbers.get(place));
        number.copied().unwrap_or_default()
    }

    /// Adds a row for each kind of request. The first number of the line is the number of kinds.
    fn add_requests(&self, rows: &mut Rows, version: &str, line: &str, requests: &[&str]) {
        for (place, request) in requests.iter().enumerate() {
            if !request.is_empty() {
                rows.add([("proto", version), ("method", request)])
                    .figure("requests", self.number(line, place + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Nfs, Nfsd, Roots};

    const CLIENT: &str = "net 70 70 69 45\nrpc 1218785755 374636 1218815394\n\
proc2 18 16 57 74 52 71 73 45 86 0 52 83 61 17 53 50 23 70 82\n\
proc3 22 0 1061909262 48906 4077635 117661341 5 29391916 2570425 2993289 590 0 0 7815 15 1130 0 3983 92385 13332 2 1 23729\n\
proc4 48 98 51 54 83 85 23 24 1 28 73 68 83 12 84 39 68 59 58 88 29 74 69 96 21 84 15 53 86 54 66 56 97 36 49 32 85 81 11 58 32 67 13 28 35 1 90 26 0\n";

    const SERVER: &str = "rc 0 6 18622\nfh 0 0 0 0 0\nio 157286400 72864\n\
th 8 0 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000\nra 32 0 0 0 0 0 0 0 0 0 0 0\n\
net 972 55 917 1\nrpc 18628 3 1 2 0\nproc2 18 2 69 0 0 4410 0 0 0 0 0 0 0 0 0 0 0 99 2\n\
proc3 22 2 112 0 2719 111 0 0 0 0 0 0 0 0 0 0 0 27 216 0 2 1 0\nproc4 2 2 10853\n\
proc4ops 72 0 0 0 1098 2 0 0 0 0 8179 5896 0 0 0 0 5900 0 0 2 0 2 0 9609 0 2 150 1272 0 0 0 1236 0 0 0 0 3 3 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
wdeleg_getattr 15\n";

    /// Returns the sum of the requests of one version, and the number of their kinds.
    fn requests(lines: &[String], version: &str) -> (f64, usize) {
        let start = format!("proto={version} method=");
        let numbers = lines.iter().filter_map(|line| {
            let line = line.strip_prefix(&start)?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        });
        let numbers: Vec<f64> = numbers.collect();
        (numbers.iter().sum(), numbers.len())
    }

    #[test]
    fn requests_have_the_names_of_the_kernel() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[("net/rpc/nfs", CLIENT), ("net/rpc/nfsd", SERVER)],
        );
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let client = lines_of(&mut Nfs(roots.clone()));
        for expected in [
            "protocol=tcp packets 69",
            "connections 45",
            "rpc_authentication_refreshes 1218815394",
            "proto=2 method=FsStat requests 82",
            "proto=3 method=Commit requests 23729",
            "proto=4 method=LayoutGet requests 90",
            "proto=4 method=Clone requests 0",
        ] {
            assert!(client.iter().any(|line| line == expected), "{expected}");
        }
        let count = |version| requests(&client, version).1;
        assert_eq!([count("2"), count("3"), count("4")], [18, 22, 59]);
        let server = lines_of(&mut Nfsd(roots));
        for expected in [
            "reply_cache_nocache 18622",
            "read_ahead_cache_size_blocks 32",
            "proto=tcp packets 917",
            "error=auth rpc_errors 2",
            "server_threads 8",
            "proto=2 method=GetAttr requests 69",
            "proto=4 method=PutFH requests 9609",
            "proto=4 method=SetClientIDConfirm requests 3",
            "proto=4 method=WdelegGetattr requests 15",
        ] {
            assert!(server.iter().any(|line| line == expected), "{expected}");
        }
        assert!(!server.iter().any(|line| line.contains("Null")));
        let count = |version| requests(&server, version).1;
        assert_eq!([count("2"), count("3"), count("4")], [17, 21, 36]);
        assert_eq!(requests(&server, "2").0, 69.0 + 4410.0 + 99.0 + 2.0);
    }
}
