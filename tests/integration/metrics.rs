//! Tests of the metrics for Prometheus: the figures, both formats, TLS, the bearer token and refused requests.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::{parallel, serial};
use socket2::{Domain, Socket, Type};

use crate::support::prometheus::{
    Prometheus, complaints, get, metrics_of, promtool, request, unchunked,
};
use crate::support::{Agent, Authority, DEADLINE, Launch, wait};

const TOKEN: &str = "scraper-71c0a9be44f2";

fn launch() -> Launch {
    scraped(Launch::new())
}

fn scraped(launch: Launch) -> Launch {
    launch.vars(&[
        ("METRICS_PORT", "0"),
        ("PUBLISH_INTERVAL", "500ms"),
        ("SYSTEM_INTERVAL", "500ms"),
    ])
}

/// Waits until the agent has a first snapshot. Returns the address of the metrics.
fn ready(agent: &Agent) -> SocketAddr {
    let address = metrics_of(agent);
    wait::until("a snapshot", DEADLINE, || {
        (get(address, "/readyz", &[]).status == 200).then_some(())
    });
    address
}

/// The value of a series in a scrape.
fn sample(body: &str, series: &str) -> f64 {
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series} in {body}"));
    value.parse().expect("the value is not a number")
}

#[test]
#[parallel]
fn metrics_are_off_by_default() {
    let agent = Launch::new().start();
    agent.login().snapshot();
    assert!(agent.events("metrics at /metrics").is_empty());
}

#[test]
#[parallel]
fn metrics_match_the_snapshot() {
    let agent = launch().var("SYSTEM_INTERVAL", "1h").start();
    let address = ready(&agent);
    let body = get(address, "/metrics", &[]).body;
    // This snapshot is from the same round of the system collector as the scrape.
    let snapshot = agent.login().snapshot();
    let system = &snapshot["system"];
    let number = |value: &Value| value.as_f64().unwrap();
    let mib = 1024.0 * 1024.0;
    let close = |series: &str, expected: f64| {
        let value = sample(&body, series);
        let off = (value - expected).abs();
        assert!(
            off <= expected.abs() * 1e-9,
            "{series}: {value}, {expected}"
        );
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.unwrap().parse().unwrap();
    assert_eq!(sample(&body, "node_memory_MemTotal_bytes"), kib * 1024.0);
    let near = |series: &str, expected: f64, rounded: f64| {
        let value = sample(&body, series);
        let off = (value - expected).abs();
        assert!(off <= rounded, "{series}: {value}, {expected}");
    };
    // The snapshot rounds this figure to 0.01 MiB.
    near(
        "node_memory_MemAvailable_bytes",
        number(&system["memory_available"]) * mib,
        mib / 100.0,
    );
    close("node_load1", number(&system["load_avg"]["1m"]));
    close(
        "node_boot_time_seconds",
        number(&snapshot["host"]["boot_time"]),
    );
    for disk in system["disks"].as_array().unwrap() {
        let text = |field: &str| disk[field].as_str().unwrap();
        let labels = format!(
            "{{device=\"{}\",device_error=\"\",fstype=\"{}\",mountpoint=\"{}\"}}",
            text("device"),
            text("type"),
            text("mount")
        );
        let gib = 1024.0 * mib;
        let size = size_by_stat(text("mount"));
        assert_eq!(
            sample(&body, &format!("node_filesystem_size_bytes{labels}")),
            size
        );
        near(
            &format!("node_filesystem_avail_bytes{labels}"),
            number(&disk["available"]) * gib,
            // Other tests write to the disk between the snapshot and the scrape.
            gib,
        );
        assert_eq!(
            sample(&body, &format!("node_filesystem_device_error{labels}")),
            0.0
        );
        assert_eq!(
            sample(&body, &format!("node_filesystem_readonly{labels}")),
            0.0
        );
    }
    // The kernel's own counters are read for a scrape, later than the snapshot.
    let after = get(address, "/metrics", &[]).body;
    let later = |series: &str, expected: f64| {
        let (value, after) = (sample(&body, series), sample(&after, series));
        assert!(
            (expected..=after).contains(&value),
            "{series}: {value}, {expected} to {after}"
        );
    };
    for disk in system["disk_io"].as_array().unwrap() {
        let device = format!("{{device=\"{}\"}}", disk["device"].as_str().unwrap());
        later(
            &format!("node_disk_read_bytes_total{device}"),
            number(&disk["read_bytes"]),
        );
        later(
            &format!("node_disk_io_time_seconds_total{device}"),
            number(&disk["busy_ms"]) / 1000.0,
        );
    }
    let interfaces = system["network"].as_array().unwrap();
    for interface in interfaces {
        let device = format!("{{device=\"{}\"}}", interface["name"].as_str().unwrap());
        let series = format!("node_network_receive_bytes_total{device}");
        // A veth interface can disappear with its container.
        if interface["kind"] != "veth" {
            later(&series, number(&interface["bytes_recv"]));
        }
    }
    let cores = body
        .lines()
        .filter(|line| line.starts_with("node_cpu_seconds_total{"));
    assert_eq!(
        cores.count() as f64,
        number(&snapshot["host"]["cpus"]) * 8.0
    );
    assert_eq!(
        sample(&body, "system_agent_source_up{source=\"system\"}"),
        1.0
    );
    assert!(!body.contains("source=\"docker\""));
}

/// The size of a file system in bytes, from `stat`.
fn size_by_stat(mount: &str) -> f64 {
    let output = std::process::Command::new("stat")
        .args(["--file-system", "--format", "%b %S", mount])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (blocks, size) = text.trim().split_once(' ').unwrap();
    blocks.parse::<f64>().unwrap() * size.parse::<f64>().unwrap()
}

#[test]
#[parallel]
fn cpu_counters_match_the_kernel() {
    let agent = launch().start();
    let address = ready(&agent);
    let body = get(address, "/metrics", &[]).body;
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu0 "));
    let user: f64 = line.unwrap().split(' ').next().unwrap().parse().unwrap();
    let ours = sample(&body, "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"}");
    // A clock tick is 0.01 s. The agent's figure is up to half a second older, or slightly more.
    assert!((ours - user / 100.0).abs() < 2.0, "{ours}, {user}");
}

#[test]
#[parallel]
fn both_formats_are_valid() {
    let agent = launch().start();
    let address = ready(&agent);
    let classic = get(address, "/metrics", &[]);
    assert!(
        classic
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert_eq!(complaints(&classic.body), [""; 0]);

    let open = get(
        address,
        "/metrics",
        &["Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"],
    );
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(open.body.ends_with("# EOF\n"));
    assert!(open.body.contains("# TYPE node_cpu_seconds counter\n"));
    assert!(
        classic
            .body
            .contains("# TYPE node_cpu_seconds_total counter\n")
    );
}

#[test]
#[parallel]
fn prometheus_scrapes_over_tls_with_a_certificate_and_a_token() {
    let authority = Authority::new();
    let (server, scraper) = (authority.issue("server"), authority.issue("scraper"));
    let token = authority.file("token", TOKEN);
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let agent = scraped(server.launch())
        .var("TLS_CLIENT_CA_FILE", &authority.certificate)
        .var("METRICS_BEARER_TOKEN_FILE", &token)
        .secret(TOKEN)
        .start();
    let address = metrics_of(&agent);
    let how = |token: &Path, certificate: bool| {
        let identity = format!(
            ", cert_file: {}, key_file: {}",
            scraper.certificate.display(),
            scraper.key.display()
        );
        [
            "scheme: https".to_owned(),
            format!(
                "tls_config: {{ ca_file: {}{} }}",
                authority.certificate.display(),
                if certificate { identity } else { String::new() }
            ),
            format!("authorization: {{ credentials_file: {} }}", token.display()),
        ]
    };
    let prometheus = Prometheus::scraping(address, &how(&token, true));
    prometheus.scraped(3.0);
    let snapshot_age = "time() - system_agent_snapshot_timestamp_seconds";
    assert!(prometheus.value(snapshot_age) < 5.0);
    assert_eq!(prometheus.value("system_agent_up"), 1.0);

    // A scraper without a certificate, or with a wrong token, gets nothing.
    let stranger = Prometheus::scraping(address, &how(&token, false));
    stranger.until("up", |up| up.iter().any(|(_, up)| *up == 0.0));
    let why = stranger.targets();
    assert!(why.contains("tls:") && why.contains("certificate"), "{why}");
    let wrong = authority.file("wrong", "another-token-0000");
    let guesser = Prometheus::scraping(address, &how(&wrong, true));
    guesser.until("up", |up| up.iter().any(|(_, up)| *up == 0.0));
    assert!(guesser.targets().contains("401"), "{}", guesser.targets());
}

#[test]
#[parallel]
fn without_the_token_only_health_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let agent = launch()
        .var("METRICS_BEARER_TOKEN_FILE", &file)
        .secret(TOKEN)
        .start();
    let address = ready(&agent);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let status = |token: &str| get(address, "/metrics", &[&bearer(token)]).status;
    let asked = get(address, "/metrics", &[]);
    assert_eq!(asked.status, 401);
    assert!(asked.head.contains("www-authenticate: bearer"));
    assert!(!asked.body.contains("node_"));
    assert_eq!(status(TOKEN), 200);
    // The API key of the socket is not accepted as a token.
    assert_eq!(status(crate::support::KEY), 401);
    assert_eq!(get(address, "/healthz", &[]).status, 200);

    // The token is reloaded, like keys.
    fs::write(&file, "scraper-another-5501").unwrap();
    agent.signal(Signal::SIGHUP);
    agent.event("credentials reloaded");
    assert_eq!(status("scraper-another-5501"), 200);
    assert_eq!(status(TOKEN), 401);

    // Five wrong tokens block the address, but only for metrics. A right token resets the count of wrong tokens.
    for _ in 0..3 {
        status("scraper-guess-0000");
    }
    assert_eq!(status("scraper-another-5501"), 200);
    for _ in 0..5 {
        status("scraper-guess-0000");
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    agent.login().snapshot();
}

#[test]
#[parallel]
fn an_address_outside_the_whitelist_gets_no_answer() {
    let agent = launch().var("WHITELISTED_CLIENTS", "192.0.2.7").start();
    let mut stream = TcpStream::connect(metrics_of(&agent)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

/// Which of the collectors that cost much have figures in a scrape.
fn expensive(target: SocketAddr, path: &str) -> Vec<&'static str> {
    let answer = get(target, path, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = unchunked(&answer);
    let series = [
        ("interrupts", "node_interrupts_total{cpu=\"0\""),
        (
            "processes",
            "node_processes_threads_state{thread_state=\"S\"",
        ),
        ("softirqs", "node_softirqs_functions_total{cpu=\"0\""),
        ("tcpstat", "node_tcp_connection_states{state=\"listen\""),
    ];
    let has = |start: &str| text.lines().any(|line| line.starts_with(start));
    let found = series.into_iter().filter(|(name, start)| {
        let success = format!("node_scrape_collector_success{{collector=\"{name}\"}} 1.0");
        has(start) && has(&success)
    });
    found.map(|(name, _)| name).collect()
}

#[test]
#[parallel]
fn expensive_collectors_are_read_only_by_name() {
    let agent = launch().start();
    let target = ready(&agent);
    assert_eq!(expensive(target, "/metrics"), [""; 0]);
    assert_eq!(expensive(target, "/metrics?exclude[]=cpu"), [""; 0]);
    let all = ["interrupts", "processes", "softirqs", "tcpstat"];
    for name in all {
        assert_eq!(
            expensive(target, &format!("/metrics?collect[]={name}")),
            [name]
        );
    }

    let launch = launch().var("METRICS_COLLECTORS", "tcpstat, softirqs");
    let agent = launch.start();
    let target = ready(&agent);
    assert_eq!(expensive(target, "/metrics"), ["softirqs", "tcpstat"]);
    let without = "/metrics?exclude[]=tcpstat";
    assert_eq!(expensive(target, without), ["softirqs"]);
}

#[test]
#[parallel]
fn other_requests_get_a_helpful_error() {
    let agent = launch().start();
    let address = ready(&agent);
    let answer = get(address, "/", &[]);
    assert_eq!(
        (answer.status, answer.body.contains("/metrics")),
        (404, true)
    );
    let answer = request(address, "POST /metrics", &["Content-Length: 0"]);
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: get, head"));
    let head = request(address, "HEAD /metrics", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    // An API key is not an HTTP request.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"kQ7zX2vLp9Rt4WmB8sNd\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains("200"), "{answer}");
}

/// Many silent connections neither keep a scraper out nor delay the snapshots of a client.
#[test]
#[serial]
fn many_silent_connections_do_not_keep_scrapers_out() {
    let agent = launch().start();
    let address = ready(&agent);
    let mut client = agent.login();
    client.snapshot();
    let connections: Vec<_> = (0..300)
        .filter_map(|_| TcpStream::connect(address).ok())
        .collect();
    assert!(connections.len() > 200);
    let began = Instant::now();
    let answer = get(address, "/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    client.snapshot();
}

/// Connections from two addresses that send many requests and do not read the responses do not keep a scraper out.
#[test]
#[serial]
fn many_connections_that_do_not_read_do_not_keep_scrapers_out() {
    let agent = launch().start();
    let address = ready(&agent);
    let requests = "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n".repeat(500);
    let greedy = |from: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        // Write until the kernel's buffer is full.
        while stream.write(requests.as_bytes()).is_ok() {}
        stream
    };
    let sources = [[127, 0, 0, 2], [127, 0, 0, 3]];
    let connections: Vec<_> = sources
        .iter()
        .flat_map(|&from| std::iter::repeat_n(from, 40))
        .map(greedy)
        .collect();
    // Wait until each connection has unread responses.
    thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(get(address, "/metrics", &[]).status, 200);
        let passed = began.elapsed();
        assert!(passed < Duration::from_secs(2), "{passed:?}");
    }
    drop(connections);
}

/// Prometheus keeps its connection open. The agent must still stop on a signal.
#[test]
#[parallel]
fn a_connection_stays_open_until_the_agent_stops() {
    let mut agent = launch().start();
    let address = ready(&agent);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for _ in 0..200 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n")
            .unwrap();
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    }
    let asked = Instant::now();
    agent.signal(Signal::SIGTERM);
    // The connection ends without an error.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert!(agent.exit(DEADLINE).success());
}

#[test]
#[parallel]
fn invalid_settings_are_refused_with_a_reason() {
    let reported = |variables: &[(&str, &str)]| {
        let finished = Launch::new().vars(variables).run();
        assert_eq!(finished.code(), 78);
        finished.stderr.join("\n")
    };
    let text = reported(&[("METRICS_PORT", "http")]);
    assert!(
        text.contains("METRICS_PORT") && text.contains("0 to 65535"),
        "{text}"
    );
    let text = reported(&[("METRICS_PORT", "9000"), ("SOCKET_PORT", "9000")]);
    assert!(text.contains("the same as SOCKET_PORT"), "{text}");
    let text = reported(&[("METRICS_BEARER_TOKEN_FILE", "/nonexistent")]);
    assert!(text.contains("METRICS_BEARER_TOKEN_FILE"), "{text}");
    assert!(text.contains("METRICS_PORT is not"), "{text}");
}

#[test]
#[parallel]
fn a_port_in_use_is_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished = Launch::new().var("METRICS_PORT", port).run();
    assert_ne!(finished.code(), 0);
    let text = finished.stderr.join("\n");
    assert!(text.contains("set METRICS_PORT to a free port"), "{text}");
}

#[test]
#[parallel]
fn the_alert_rules_pass_their_tests() {
    for arguments in [
        ["check", "rules", "config/prometheus-rules.yml"],
        ["test", "rules", "tests/fixtures/prometheus-rules-test.yml"],
    ] {
        let output = promtool(&arguments, "");
        assert!(output.status.success(), "{output:?}");
    }
}

/// The agent closes a connection whose peer does not read the responses. Other requests are not delayed.
#[test]
#[parallel]
fn a_peer_that_does_not_read_is_disconnected() {
    let agent = launch().var("WRITE_TIMEOUT", "1s").start();
    let address = ready(&agent);
    let mut stream = TcpStream::connect(address).unwrap();
    // These responses need more space than the kernel's buffers have.
    let requests = "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n".repeat(200);
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let ended = wait::within(DEADLINE, || {
        // Writing fails after the agent has reset the connection.
        stream.write_all(requests.as_bytes()).is_err().then_some(())
    });
    assert!(ended.is_some(), "the connection is still open");
    assert_eq!(get(address, "/metrics", &[]).status, 200);
}

#[test]
#[parallel]
fn the_start_warns_of_unprotected_metrics() {
    let reported = |launch: Launch| {
        let agent = launch.var("SOCKET_ADDRESS", "0.0.0.0").start();
        metrics_of(&agent);
        agent.login().snapshot();
        let log = agent.log().all();
        log.iter()
            .any(|line| line.contains("everybody who can connect to METRICS_PORT"))
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    assert!(reported(launch()));
    assert!(!reported(launch().var("METRICS_BEARER_TOKEN_FILE", &file)));
    assert!(!reported(launch().var("WHITELISTED_CLIENTS", "127.0.0.1")));
}
