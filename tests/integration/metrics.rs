//! What Prometheus gets: the snapshot's figures, in both formats, by TLS and with a token; and who gets nothing.

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

use crate::support::prometheus::{Prometheus, complaints, get, metrics_of, promtool, request};
use crate::support::{Agent, Authority, Launch, PATIENCE, wait};

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

/// Once there is a first snapshot.
fn ready(agent: &Agent) -> SocketAddr {
    let address = metrics_of(agent);
    wait::until("a snapshot", PATIENCE, || {
        (get(address, "/readyz", &[]).status == 200).then_some(())
    });
    address
}

/// The value of a series, as it is written.
fn sample(body: &str, series: &str) -> f64 {
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series} in {body}"));
    value.parse().expect("a number")
}

#[test]
#[parallel]
fn off_by_default() {
    let agent = Launch::new().start();
    agent.login().snapshot();
    assert!(agent.events("metrics at /metrics").is_empty());
}

#[test]
#[parallel]
fn figures_are_those_of_the_snapshot() {
    let agent = launch().var("SYSTEM_INTERVAL", "1h").start();
    let address = ready(&agent);
    let body = get(address, "/metrics", &[]).body;
    // The same reading of the host.
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
    // Of the same reading; the snapshot has them to a hundredth of a MiB.
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
            "{{device=\"{}\",fstype=\"{}\",mountpoint=\"{}\"}}",
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
            gib / 10_000.0,
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
    for disk in system["disk_io"].as_array().unwrap() {
        let device = format!("{{device=\"{}\"}}", disk["device"].as_str().unwrap());
        close(
            &format!("node_disk_read_bytes_total{device}"),
            number(&disk["read_bytes"]),
        );
        close(
            &format!("node_disk_io_time_seconds_total{device}"),
            number(&disk["busy_ms"]) / 1000.0,
        );
    }
    let interfaces = system["network"].as_array().unwrap();
    for interface in interfaces {
        let device = format!("{{device=\"{}\"}}", interface["name"].as_str().unwrap());
        let series = format!("node_network_receive_bytes_total{device}");
        if interface["kind"] == "veth" {
            // They come and go with containers.
            assert!(!body.contains(&series));
        } else {
            close(&series, number(&interface["bytes_recv"]));
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

/// The size of a file system in bytes, as `stat` has it.
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
fn the_counters_of_cores_are_the_kernels() {
    let agent = launch().start();
    let address = ready(&agent);
    let body = get(address, "/metrics", &[]).body;
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu0 "));
    let user: f64 = line.unwrap().split(' ').next().unwrap().parse().unwrap();
    let ours = sample(&body, "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"}");
    // A hundred ticks a second; read half a second ago at most, and a little.
    assert!((ours - user / 100.0).abs() < 2.0, "{ours}, {user}");
}

#[test]
#[parallel]
fn either_format_is_what_its_own_tools_read() {
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
fn prometheus_scrapes_by_tls_with_a_certificate_and_a_token() {
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

    // Whoever has no certificate, or another token, gets nothing.
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
fn without_the_token_there_are_no_figures_but_health() {
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
    // The socket's key is none here.
    assert_eq!(status(crate::support::KEY), 401);
    assert_eq!(get(address, "/healthz", &[]).status, 200);

    // Another one is taken over, as keys are.
    fs::write(&file, "scraper-another-5501").unwrap();
    agent.signal(Signal::SIGHUP);
    agent.event("credentials read anew");
    assert_eq!(status("scraper-another-5501"), 200);
    assert_eq!(status(TOKEN), 401);

    // Whoever guesses is not listened to; clients of the socket come in all the same. A right one forgives.
    for _ in 0..3 {
        status("scraper-guess-0000");
    }
    assert_eq!(status("scraper-another-5501"), 200);
    for _ in 0..5 {
        status("scraper-guess-0000");
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    agent.login().snapshot();
}

#[test]
#[parallel]
fn who_is_not_on_the_whitelist_sees_nothing() {
    let agent = launch().var("WHITELISTED_CLIENTS", "192.0.2.7").start();
    let mut stream = TcpStream::connect(metrics_of(&agent)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

#[test]
#[parallel]
fn other_requests_are_told_what_there_is() {
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
    // A key of the socket's protocol is no request.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"kQ7zX2vLp9Rt4WmB8sNd\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains("200"), "{answer}");
}

/// A crowd that says nothing keeps no scraper out, and no client's snapshot waits.
#[test]
#[serial]
fn a_silent_crowd_keeps_no_scraper_out() {
    let agent = launch().start();
    let address = ready(&agent);
    let mut client = agent.login();
    client.snapshot();
    let crowd: Vec<_> = (0..300)
        .filter_map(|_| TcpStream::connect(address).ok())
        .collect();
    assert!(crowd.len() > 200);
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

/// Nor does one that asks for more than it reads, from several addresses.
#[test]
#[serial]
fn a_crowd_that_reads_little_keeps_no_scraper_out() {
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
        // As many as the kernel takes.
        while stream.write(requests.as_bytes()).is_ok() {}
        stream
    };
    let froms = [[127, 0, 0, 2], [127, 0, 0, 3]];
    let crowd: Vec<_> = froms
        .iter()
        .flat_map(|&from| std::iter::repeat_n(from, 40))
        .map(greedy)
        .collect();
    // Until each of them has what it does not read.
    thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(get(address, "/metrics", &[]).status, 200);
        let passed = began.elapsed();
        assert!(passed < Duration::from_secs(2), "{passed:?}");
    }
    drop(crowd);
}

/// Prometheus keeps its connection; the agent ends all the same when it is told to.
#[test]
#[parallel]
fn a_connection_is_kept_and_ends_with_the_agent() {
    let mut agent = launch().start();
    let address = ready(&agent);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
    // The end, and no error.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert!(agent.exit(PATIENCE).success());
}

#[test]
#[parallel]
fn what_is_wrong_with_its_settings_is_told() {
    let told = |variables: &[(&str, &str)]| {
        let finished = Launch::new().vars(variables).run();
        assert_eq!(finished.code(), 78);
        finished.stderr.join("\n")
    };
    let text = told(&[("METRICS_PORT", "http")]);
    assert!(
        text.contains("METRICS_PORT") && text.contains("0 to 65535"),
        "{text}"
    );
    let text = told(&[("METRICS_PORT", "9000"), ("SOCKET_PORT", "9000")]);
    assert!(text.contains("the same as SOCKET_PORT"), "{text}");
    let text = told(&[("METRICS_BEARER_TOKEN_FILE", "/nonexistent")]);
    assert!(text.contains("METRICS_BEARER_TOKEN_FILE"), "{text}");
    assert!(text.contains("METRICS_PORT is not"), "{text}");
}

#[test]
#[parallel]
fn a_port_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished = Launch::new().var("METRICS_PORT", port).run();
    assert_ne!(finished.code(), 0);
    let text = finished.stderr.join("\n");
    assert!(text.contains("set METRICS_PORT to a free one"), "{text}");
}

#[test]
#[parallel]
fn the_rules_fire_when_they_should_and_not_before() {
    for arguments in [
        ["check", "rules", "config/prometheus-rules.yml"],
        ["test", "rules", "tests/fixtures/prometheus-rules-test.yml"],
    ] {
        let output = promtool(&arguments, "");
        assert!(output.status.success(), "{output:?}");
    }
}

/// A request that is never whole, and one that reads nothing of its answers, end; others are not held up.
#[test]
#[parallel]
fn who_reads_nothing_is_cut_off() {
    let agent = launch().var("WRITE_TIMEOUT", "1s").start();
    let address = ready(&agent);
    let mut stream = TcpStream::connect(address).unwrap();
    // More answers than the kernel keeps for somebody who does not read them.
    let requests = "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n".repeat(200);
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let ended = wait::within(PATIENCE, || {
        // It is reset.
        stream.write_all(requests.as_bytes()).is_err().then_some(())
    });
    assert!(ended.is_some(), "it goes on");
    assert_eq!(get(address, "/metrics", &[]).status, 200);
}

#[test]
#[parallel]
fn that_anybody_may_read_them_is_told() {
    let told = |launch: Launch| {
        let agent = launch.var("SOCKET_ADDRESS", "0.0.0.0").start();
        metrics_of(&agent);
        agent.login().snapshot();
        let log = agent.log().all();
        log.iter()
            .any(|line| line.contains("whoever reaches METRICS_PORT"))
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    assert!(told(launch()));
    assert!(!told(launch().var("METRICS_BEARER_TOKEN_FILE", &file)));
    assert!(!told(launch().var("WHITELISTED_CLIENTS", "127.0.0.1")));
}
