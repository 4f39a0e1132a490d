//! A real Prometheus server that scrapes one agent, and a minimal HTTP client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Agent, DEADLINE, net, wait};

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request without TLS and returns the response.
pub(crate) fn request(address: SocketAddr, request_line: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("cannot connect");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let headers: String = headers.iter().map(|one| format!("{one}\r\n")).collect();
    let head =
        format!("{request_line} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .expect("the response has no header");
    Answer {
        status: head[9..12].parse().expect("the response has no status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Sends a `GET` request without TLS and returns the response.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    request(address, &format!("GET {path}"), headers)
}

/// A target that Prometheus scrapes every second.
pub(crate) struct Job<'j> {
    pub(crate) name: &'j str,
    pub(crate) target: SocketAddr,
    /// The other lines of the job's configuration.
    pub(crate) how: &'j [String],
}

/// A Prometheus server. Ended on drop.
pub(crate) struct Prometheus {
    process: Child,
    address: SocketAddr,
    /// The directory of the server's configuration and data.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes `target`, as the job `system-agent`. `how` has the other lines of the job's configuration.
    pub(crate) fn scraping(target: SocketAddr, how: &[String]) -> Self {
        let name = "system-agent";
        Self::with_jobs(&[Job { name, target, how }])
    }

    /// Starts a server that scrapes all jobs.
    pub(crate) fn with_jobs(jobs: &[Job<'_>]) -> Self {
        Self::with_rules(jobs, &[])
    }

    /// Starts a server that scrapes all jobs and evaluates the rules in these files.
    pub(crate) fn with_rules(jobs: &[Job<'_>], rules: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jobs = jobs.iter().map(|Job { name, target, how }| {
            let how: String = how.iter().map(|line| format!("    {line}\n")).collect();
            format!(
                "  - job_name: {name}\n{how}    static_configs: [{{ targets: ['{target}'], labels: {{ instance: here }} }}]\n"
            )
        });
        let jobs: String = jobs.collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: {rules:?}\nscrape_configs:\n{jobs}"
        );
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("cannot start prometheus (Debian package prometheus)");
        let prometheus = Self {
            process,
            address,
            _folder: folder,
        };
        wait::until("prometheus", DEADLINE, || {
            let listens = net::listens(address.port());
            (listens && get(address, "/-/ready", &[]).status == 200).then_some(())
        });
        prometheus
    }

    /// Runs an instant query. Returns the labels and the value of each series.
    pub(crate) fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let answer = get(self.address, &path, &[]);
        let body = unchunked(&answer);
        let answer: Value = serde_json::from_str(&body).expect("the response is not JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"]
            .as_array()
            .expect("the result is not a vector");
        let value = |one: &Value| one["value"][1].as_str()?.parse().ok();
        series
            .iter()
            .map(|one| {
                (
                    one["metric"].clone(),
                    value(one).expect("the value is not a number"),
                )
            })
            .collect()
    }

    /// Runs an instant query that must return one series. Returns its value.
    pub(crate) fn value(&self, query: &str) -> f64 {
        let all = self.query(query);
        assert_eq!(all.len(), 1, "{query}: {all:?}");
        all[0].1
    }

    /// Repeats a query until `fits` returns true for its result.
    pub(crate) fn until(&self, query: &str, fits: impl Fn(&[(Value, f64)]) -> bool) {
        let fitting = || fits(&self.query(query)).then_some(());
        if wait::within(DEADLINE, fitting).is_none() {
            panic!(
                "{query}: {:?}; targets: {}",
                self.query(query),
                self.targets()
            );
        }
    }

    /// Waits until Prometheus has scraped the agent `times` times.
    pub(crate) fn scraped(&self, times: f64) {
        self.until("sum_over_time(up[1h])", |up| {
            up.iter().any(|(_, count)| *count >= times)
        });
    }

    /// The report of Prometheus on its target, in JSON.
    pub(crate) fn targets(&self) -> String {
        unchunked(&get(self.address, "/api/v1/targets", &[]))
    }
}

/// The body of a response, joined if the server sent it in chunks.
pub(crate) fn unchunked(answer: &Answer) -> String {
    if !answer.head.contains("transfer-encoding: chunked") {
        return answer.body.clone();
    }
    let (mut whole, mut rest) = (String::new(), answer.body.as_str());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the chunk has no length");
        if length == 0 {
            break;
        }
        whole.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    whole
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address on which an agent serves its metrics.
pub(crate) fn metrics_of(agent: &Agent) -> SocketAddr {
    let event = agent.event("metrics at /metrics");
    event
        .text("address")
        .parse()
        .expect("the event has no address")
}

/// The complaints of `promtool` about metrics. Allows node_exporter's names, such as `node_netstat_Tcp_InSegs`, and the gauge
/// `container_fs_inodes_total` of cAdvisor.
pub(crate) fn complaints(figures: &str) -> Vec<String> {
    let checked = promtool(&["check", "metrics"], figures);
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    let ours =
        |line: &&str| !line.starts_with("node_") && !line.starts_with("container_fs_inodes_total ");
    complaints.lines().filter(ours).map(str::to_owned).collect()
}

/// Runs `promtool` with this text as its input.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot start promtool (Debian package prometheus)");
    let mut stdin = tool.stdin.take().unwrap();
    let input = input.to_owned();
    let written = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = tool.wait_with_output().unwrap();
    // Writing fails if promtool ends before it has read all of its input, which is not an error.
    let _ = written.join();
    output
}
