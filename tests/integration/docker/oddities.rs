//! A fake engine with twenty good containers and an odd container. An oddity is an odd value in the list entry, the inspection or
//! the statistics of the odd container.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::stand_in::{Answer, StandIn};

/// The number of good containers.
pub(crate) const GOOD: usize = 20;
/// Placeholder for the id of the odd container in the texts of an [`Oddity`].
const ID: &str = "@ID@";
/// The pause between two checks, for event streams and for tests that wait.
const PAUSE: Duration = Duration::from_millis(10);

/// An odd value and the answer that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Oddity {
    pub(crate) name: String,
    /// The container's entry in the list.
    entry: Vec<u8>,
    inspection: Vec<u8>,
    statistics: Vec<u8>,
    /// Whether the agent can read the list entry. If it can, snapshots show the container.
    pub(crate) is_listed: bool,
}

/// A fake engine with one oddity at a time.
pub(crate) struct OddEngine {
    state: Arc<Mutex<State>>,
    _stand_in: StandIn,
}

struct State {
    oddity: Oddity,
    /// The number of the oddity. Each number has its own container id.
    number: u64,
    /// The number of requests for the list since the oddity changed.
    listed: usize,
}

fn good_id(number: usize) -> String {
    format!("a{number:063x}")
}

fn odd_id(number: u64) -> String {
    format!("b{number:011x}{}", "c".repeat(52))
}

fn entry(id: &str, name: &str) -> Value {
    json!({
        "Id": id, "Names": [name], "Image": "image", "ImageID": "sha256:00", "Command": "sh", "Created": 1_700_000_000,
        "Ports": [], "Labels": {}, "State": "running", "Status": "Up 2 hours", "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {}}, "Mounts": []
    })
}

fn inspection(id: &str) -> Value {
    json!({
        "Id": id, "Created": "2026-01-01T00:00:00Z", "Name": "/x", "RestartCount": 0, "LogPath": "",
        "Image": format!("sha256:{}", "1".repeat(64)),
        "State": {"Status": "running", "Running": true, "Pid": 0, "StartedAt": "2026-01-01T00:00:00Z", "Health": {"Status": "healthy"}},
        "Config": {"Tty": false, "Labels": {"a": "b"}, "Image": "image"},
        "HostConfig": {"LogConfig": {"Type": "local", "Config": {}}, "NetworkMode": "default", "PidsLimit": 9, "NanoCpus": 500_000_000},
        "NetworkSettings": {"Networks": {}}, "Mounts": []
    })
}

fn statistics() -> Value {
    let now = SystemTime::now();
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    json!({
        "read": humantime::format_rfc3339_nanos(now).to_string(), "preread": "0001-01-01T00:00:00Z",
        "cpu_stats": {
            "cpu_usage": {"total_usage": since_1970 / 10, "percpu_usage": [1, 2]}, "system_cpu_usage": since_1970 * 2, "online_cpus": 2,
            "throttling_data": {"periods": 1, "throttled_periods": 0, "throttled_time": 0}
        },
        "precpu_stats": {}, "memory_stats": {"usage": 1_000_000, "limit": 2_000_000, "stats": {"cache": 100}},
        "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2, "rx_packets": 3, "tx_packets": 4}}, "pids_stats": {"current": 3},
        "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 1}], "io_serviced_recursive": null}
    })
}

impl Oddity {
    fn none(name: String) -> Self {
        Self {
            name,
            entry: entry(ID, "/odd").to_string().into(),
            inspection: inspection(ID).to_string().into(),
            statistics: statistics().to_string().into(),
            is_listed: true,
        }
    }

    fn in_list(name: &str, entry: impl Into<Vec<u8>>, is_listed: bool) -> Self {
        Self {
            entry: entry.into(),
            is_listed,
            ..Self::none(format!("list: {name}"))
        }
    }

    fn in_inspection(name: &str, inspection: impl Into<Vec<u8>>) -> Self {
        Self {
            inspection: inspection.into(),
            ..Self::none(format!("inspection: {name}"))
        }
    }

    fn in_statistics(name: &str, statistics: impl Into<Vec<u8>>) -> Self {
        Self {
            statistics: statistics.into(),
            ..Self::none(format!("statistics: {name}"))
        }
    }
}

/// Values that are wrong in any field.
fn misfits() -> [Value; 5] {
    [
        json!(null),
        json!([]),
        json!({"a": {"b": null}}),
        json!("weird"),
        json!(1e300),
    ]
}

/// The value with `odd` at `place`, as JSON text.
fn with(mut value: Value, place: &str, odd: Value) -> String {
    match value.pointer_mut(place) {
        Some(at) => *at = odd,
        None => value[&place[1..]] = odd,
    }
    value.to_string()
}

pub(crate) fn of_lists() -> Vec<Oddity> {
    let usual = || entry(ID, "/odd");
    let mut all = Vec::new();
    let places = [
        "/Names",
        "/Image",
        "/Created",
        "/Ports",
        "/Labels",
        "/State",
        "/Status",
        "/HostConfig",
        "/NetworkSettings",
        "/Mounts",
        "/Health",
    ];
    for place in places {
        for odd in misfits() {
            all.push(Oddity::in_list(
                &format!("{place} {odd}"),
                with(usual(), place, odd),
                true,
            ));
        }
    }
    let port = |odd: &str, value: Value| {
        let mut port = json!({"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"});
        port[odd] = value;
        json!([port, null, 5, {}])
    };
    let many: Vec<Value> = (1..5000)
        .map(|number| json!({"PrivatePort": number, "PublicPort": number, "Type": "udp"}))
        .collect();
    for (place, odd) in [
        ("/State", json!("initialized")),
        ("/State", json!("stopped")),
        ("/State", json!("Running")),
        ("/State", json!("stopping")),
        ("/Names", json!(["/good-1"])),
        ("/Names", json!(["odd"])),
        ("/Names", json!([null, "", "/", 7])),
        ("/Created", json!("2024-01-01T00:00:00Z")),
        ("/Created", json!(-62_135_596_800_i64)),
        ("/Created", json!(1.7e9)),
        ("/Labels", json!({"a": 1, "b": null, "c": []})),
        ("/Labels", json!([["a", "b"]])),
        ("/NetworkSettings", json!({"Networks": {"n": null}})),
        (
            "/NetworkSettings",
            json!({"Networks": {"n": {"IPPrefixLen": 99.5, "GwPriority": "x"}}}),
        ),
        ("/Mounts", json!([{"Type": "glob", "Destination": "/x"}])),
        ("/Mounts", json!([{"Type": "cluster", "RW": null}, null])),
        ("/Health", json!({"Status": "weird", "FailingStreak": -1})),
        ("/Unknown", json!({"x": [1, null]})),
        (
            "/ImageManifestDescriptor",
            json!({"size": -1, "platform": null}),
        ),
        ("/Ports", port("Type", json!("quic"))),
        ("/Ports", port("Type", json!("TCP"))),
        ("/Ports", port("Type", json!(null))),
        ("/Ports", port("Type", json!(6))),
        ("/Ports", port("PrivatePort", json!(70_000))),
        ("/Ports", port("PrivatePort", json!(-1))),
        ("/Ports", port("PrivatePort", json!("80"))),
        ("/Ports", port("PublicPort", json!(0))),
        ("/Ports", port("PublicPort", json!(1e300))),
        ("/Ports", port("IP", json!(null))),
        ("/Ports", port("IP", json!("fe80::1%eth0"))),
        ("/Ports", Value::Array(many)),
        ("/Status", json!("x".repeat(300_000))),
        ("/Labels", json!({"long": "x".repeat(900_000)})),
        ("/Id", json!(odd_id(7).to_uppercase())),
    ] {
        let shown: String = odd.to_string().chars().take(60).collect();
        all.push(Oddity::in_list(
            &format!("{place} {shown}"),
            with(usual(), place, odd),
            true,
        ));
    }
    // Values that a strict JSON writer never writes.
    let raw = |name: &str, place: &str, odd: &[u8]| {
        let text = with(usual(), place, json!("@ODD@"));
        let (before, after) = text.split_once("\"@ODD@\"").unwrap();
        let entry = [before.as_bytes(), odd, after.as_bytes()].concat();
        Oddity::in_list(name, entry, true)
    };
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    all.extend([
        raw("half of a surrogate pair", "/Status", br#""\ud800""#),
        raw(
            "a name of half a surrogate pair",
            "/Names",
            br#"["/\udfff"]"#,
        ),
        raw("no UTF-8", "/Image", b"\"caf\xe9\""),
        raw("NUL", "/Status", b"\"a\0b\""),
        raw(
            "a number without end",
            "/Created",
            "9".repeat(5000).as_bytes(),
        ),
        raw("1e999", "/Created", b"1e999"),
        raw("NaN", "/Created", b"NaN"),
        raw("200,000 levels", "/Labels", deep.as_bytes()),
        raw(
            "the same key twice",
            "/Status",
            br#""x","Status":null,"Status":"Up""#,
        ),
    ]);
    for (name, entry) in [
        ("null", "null".to_owned()),
        ("a number", "5".to_owned()),
        ("a text", "\"text, ]\"".to_owned()),
        ("nothing", String::new()),
        ("a list", "[[],{}]".to_owned()),
        ("an empty object", "{}".to_owned()),
        ("no value", "{\"Id\":}".to_owned()),
        ("a short id", with(usual(), "/Id", json!("xyz"))),
        ("an empty id", with(usual(), "/Id", json!(""))),
        (
            "an id that leads elsewhere",
            with(usual(), "/Id", json!("../../../images/json")),
        ),
        ("no id", with(usual(), "/Id", json!(null))),
        (
            "5 MiB",
            with(usual(), "/Labels", json!({"long": "x".repeat(5 << 20)})),
        ),
    ] {
        all.push(Oddity::in_list(name, entry, false));
    }
    let long = json!({"long": "x".repeat(2 << 20)});
    let long = with(usual(), "/Labels", long);
    all.push(Oddity::in_list("2 MiB", long, true));
    // The agent must read the list also if an entry is in the list twice.
    let twice = format!("{},{}", usual(), usual());
    all.push(Oddity::in_list("the same entry twice", twice, true));
    all
}

pub(crate) fn of_inspections() -> Vec<Oddity> {
    let usual = || inspection(ID);
    let mut all = Vec::new();
    let places = [
        "/State",
        "/State/Pid",
        "/State/StartedAt",
        "/State/Health",
        "/State/Health/Status",
        "/Config",
        "/Config/Labels",
        "/Config/Labels/a",
        "/Config/Tty",
        "/HostConfig",
        "/HostConfig/LogConfig",
        "/HostConfig/LogConfig/Type",
        "/HostConfig/NetworkMode",
        "/HostConfig/PidsLimit",
        "/HostConfig/NanoCpus",
        "/RestartCount",
        "/Image",
        "/LogPath",
        "/NetworkSettings",
        "/Mounts",
    ];
    for place in places {
        for odd in misfits() {
            let name = format!("{place} {odd}");
            all.push(Oddity::in_inspection(&name, with(usual(), place, odd)));
        }
    }
    for (place, odd) in [
        ("/State/Status", json!("stopping")),
        ("/State/StartedAt", json!("2099-01-01T00:00:00Z")),
        ("/State/StartedAt", json!("0001-01-01T00:00:00Z")),
        ("/State/StartedAt", json!("1960-01-01T00:00:00Z")),
        (
            "/State/StartedAt",
            json!("2026-01-01T02:00:00.123456789+14:00"),
        ),
        ("/State/StartedAt", json!("9999-12-31T23:59:59-01:00")),
        (
            "/State/Health",
            json!({"Status": "healthy", "Log": [{"Start": "x", "End": null, "ExitCode": -1, "Output": "é"}]}),
        ),
        ("/HostConfig/NetworkMode", json!(format!("container:{ID}"))),
        ("/HostConfig/NetworkMode", json!("container:")),
        (
            "/HostConfig/NetworkMode",
            json!(format!("container:{}", "d".repeat(64))),
        ),
        ("/HostConfig/RestartPolicy", json!({"Name": "sometimes"})),
        ("/HostConfig/Isolation", json!("weird")),
        ("/HostConfig/LogConfig/Type", json!("weird-driver")),
        ("/Mounts", json!([{"Type": "glob"}])),
        ("/State/Pid", json!(4_294_967_297_u64)),
        ("/HostConfig/NanoCpus", json!(5)),
        (
            "/Config/Labels",
            json!({"com.docker.compose.project": "", "com.docker.compose.service": null}),
        ),
    ] {
        all.push(Oddity::in_inspection(
            &format!("{place} {odd}"),
            with(usual(), place, odd),
        ));
    }
    for (name, text) in [
        ("HTML", "<html>"),
        ("nothing", ""),
        ("null", "null"),
        ("a list", "[]"),
        ("cut short", "{\"State\":{\"Pid\":7"),
        ("a number", "7"),
        ("empty", "{}"),
    ] {
        all.push(Oddity::in_inspection(name, text));
    }
    all.push(Oddity::in_inspection("gzip", b"\x1f\x8b\x08\0".to_vec()));
    let marked = [b"\xef\xbb\xbf", usual().to_string().as_bytes()].concat();
    all.push(Oddity::in_inspection("a byte order mark", marked));
    all
}

pub(crate) fn of_statistics() -> Vec<Oddity> {
    let mut all = Vec::new();
    let places = [
        "/read",
        "/cpu_stats",
        "/cpu_stats/cpu_usage",
        "/cpu_stats/cpu_usage/total_usage",
        "/cpu_stats/system_cpu_usage",
        "/cpu_stats/online_cpus",
        "/cpu_stats/throttling_data",
        "/memory_stats",
        "/memory_stats/usage",
        "/memory_stats/limit",
        "/memory_stats/stats",
        "/networks",
        "/networks/eth0",
        "/networks/eth0/rx_bytes",
        "/pids_stats",
        "/pids_stats/current",
        "/blkio_stats",
        "/blkio_stats/io_service_bytes_recursive",
        "/blkio_stats/io_serviced_recursive",
    ];
    for place in places {
        for odd in misfits() {
            let name = format!("{place} {odd}");
            all.push(Oddity::in_statistics(&name, with(statistics(), place, odd)));
        }
    }
    for (name, text) in [
        ("HTML", "<html>"),
        ("nothing", ""),
        ("null", "null"),
        ("a list", "[]"),
    ] {
        all.push(Oddity::in_statistics(name, text));
    }
    all
}

impl OddEngine {
    pub(crate) fn at(socket: &Path) -> Self {
        let state = Arc::new(Mutex::new(State {
            oddity: Oddity::none("none".to_owned()),
            number: 0,
            listed: 0,
        }));
        let stand_in = StandIn::at(socket, {
            let state = Arc::clone(&state);
            move |path| answer(path, &state)
        });
        Self {
            state,
            _stand_in: stand_in,
        }
    }

    /// Changes to another oddity. After that, the engine's event stream announces the odd container.
    pub(crate) fn show(&self, oddity: &Oddity) {
        let mut state = self.state.lock().unwrap();
        state.oddity = oddity.clone();
        state.number += 1;
        state.listed = 0;
    }

    /// Whether the agent has requested the list since the oddity changed.
    pub(crate) fn was_listed(&self) -> bool {
        self.state.lock().unwrap().listed > 0
    }

    /// The odd container's id as in snapshots.
    pub(crate) fn odd_id(&self) -> String {
        odd_id(self.state.lock().unwrap().number)[..12].to_owned()
    }
}

fn body(bytes: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    let answer = [head.as_bytes(), bytes].concat();
    Answer::Stream(Arc::new(move |client| client.write_all(&answer)))
}

fn answer(path: &str, state: &Arc<Mutex<State>>) -> Answer {
    let mut now = state.lock().unwrap();
    let id = odd_id(now.number);
    let of_odd = |text: &[u8]| replaced(text, &id);
    let path = path.split('?').next().unwrap_or_default();
    let of_container = path.rsplit('/').nth(1).unwrap_or_default().to_owned();
    match path.rsplit('/').next().unwrap_or_default() {
        "_ping" => Answer::Bytes(
            b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK",
        ),
        "version" => body(br#"{"ApiVersion":"1.41","MinAPIVersion":"1.24"}"#),
        "events" => {
            let state = Arc::clone(state);
            Answer::Stream(Arc::new(move |client| send_events(client, &state)))
        }
        "json" if of_container == "containers" => {
            now.listed += 1;
            let good = |number| entry(&good_id(number), &format!("/good-{number}")).to_string();
            let good: Vec<String> = (0..GOOD).map(good).collect();
            // The odd entry is in the middle, so that good entries come before and after it.
            let (before, after) = good.split_at(GOOD / 2);
            let (before, after) = (before.join(","), after.join(","));
            let odd = of_odd(&now.oddity.entry);
            let entries = [before.as_bytes(), &odd, after.as_bytes()].join(&b',');
            body(&[b"[", &entries[..], b"]"].concat())
        }
        "json" if of_container.starts_with('a') => body(inspection(&of_container).to_string().as_bytes()),
        "json" => body(&of_odd(&now.oddity.inspection)),
        "stats" if of_container.starts_with('a') => body(statistics().to_string().as_bytes()),
        "stats" => body(&now.oddity.statistics),
        _ => body(b""),
    }
}

fn replaced(text: &[u8], id: &str) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = text;
    while let Some(at) = rest
        .windows(ID.len())
        .position(|part| part == ID.as_bytes())
    {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(id.as_bytes());
        rest = &rest[at + ID.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

fn send_events(
    client: &mut std::os::unix::net::UnixStream,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
    let mut announced = None;
    loop {
        let number = state.lock().unwrap().number;
        if announced.replace(number) != Some(number) {
            let event =
                json!({"Action": "update", "Actor": {"ID": odd_id(number), "Attributes": {}}});
            writeln!(client, "{event}")?;
        } else {
            thread::sleep(PAUSE);
            // Fails when the reader has closed the connection.
            client.write_all(b"\n")?;
        }
    }
}

/// Whether the snapshot shows all good containers with their figures.
pub(crate) fn shows_all_good(snapshot: &Value) -> bool {
    let containers = snapshot["containers"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let shown = |number| {
        let id = &good_id(number)[..12];
        containers
            .iter()
            .any(|one| one["id"] == id && one["memory_usage"] == 1_000_000)
    };
    (0..GOOD).all(shown)
}

/// Whether the source is ok, or its error names the odd container.
pub(crate) fn is_well_or_names_it(snapshot: &Value) -> bool {
    let docker = &snapshot["sources"]["docker"];
    docker["status"] == "ok"
        || docker["error"].as_str().is_some_and(|error| {
            error.contains("odd")
                || error.contains("entry cannot be read")
                || error.contains("/bbb")
                || error.contains("/b0")
        })
}

/// Whether the snapshot lists the odd container. A container with a state such as `stopped` counts as stopped.
pub(crate) fn lists(snapshot: &Value, id: &str) -> bool {
    let sections = ["docker_meta", "stopped"].into_iter();
    let mut listed = sections.filter_map(|section| snapshot[section].as_array());
    listed.any(|all| {
        all.iter().any(|one| {
            one["id"]
                .as_str()
                .is_some_and(|listed| listed == id || listed == &odd_id(7)[..12])
        })
    })
}

/// Waits until the agent has requested the list again.
pub(crate) fn wait_until_listed(engine: &OddEngine, timeout: Duration) {
    let end = Instant::now() + timeout;
    while !engine.was_listed() {
        assert!(Instant::now() < end, "the agent did not request the list");
        thread::sleep(PAUSE);
    }
}
