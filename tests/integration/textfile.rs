//! Tests of the figures of other programs: the section `textfile`, `/metrics` and the source `textfile`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{Agent, Client, DEADLINE, KEY, Launch, Terminal, schema};
use crate::watching::LARGE;

const BACKUP: &str = r#"# HELP backup_bytes Size of the backup.
# TYPE backup_bytes gauge
backup_bytes{job="db",path="C:\\DIR\"\n"} 1.5e9
backup_bytes{job="web"} 0.25
# TYPE duration_seconds histogram
duration_seconds_bucket{le="0.5"} 1
duration_seconds_bucket{le="+Inf"} 3
duration_seconds_sum NaN
duration_seconds_count 3
# TYPE size summary
size{quantile="0.99"} -Inf
size_sum +Inf
size_count 2
"#;

fn launch(folder: &TempDir) -> Launch {
    Launch::new()
        .vars(&[
            ("METRICS_PORT", "0"),
            ("PUBLISH_INTERVAL", "200ms"),
            ("SYSTEM_INTERVAL", "1s"),
        ])
        .var("TEXTFILE_DIR", folder.path())
}

/// Replaces a file as a program does.
fn write(folder: &TempDir, name: &str, text: &str) {
    let unfinished = folder.path().join("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(&unfinished, folder.path().join(name)).unwrap();
}

fn asking(agent: &Agent) -> Client {
    let mut client = agent.connect();
    client.send(format!("{KEY} {{\"sections\":[\"textfile\"]}}\n"));
    client
}

/// Waits for a snapshot that fits.
fn until(client: &mut Client, fits: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let line = client.line().expect("no snapshot: the stream has ended");
        let snapshot: Value = serde_json::from_str(&line).unwrap();
        if fits(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < end, "last: {snapshot:#}");
    }
}

fn error(snapshot: &Value) -> Option<&str> {
    snapshot["sources"]["textfile"]["error"].as_str()
}

/// The number of a value in the text format or in the section.
fn number(text: &str) -> f64 {
    text.trim_start_matches('+').parse().unwrap()
}

type Series = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// The series in the section `textfile`, with the names that they have in the text format.
fn of_section(section: &Value) -> Series {
    let files = section.as_array().unwrap().iter();
    let metrics = files.flat_map(|file| file["metrics"].as_array().unwrap());
    let series = metrics.flat_map(|metric| {
        let samples = metric["samples"].as_array().unwrap().iter();
        samples.map(move |sample| {
            let part = sample.get("part").map(|part| part.as_str().unwrap());
            let name = metric["name"].as_str().unwrap();
            let name = part.map_or(name.to_owned(), |part| format!("{name}_{part}"));
            let labels = serde_json::from_value(sample["labels"].clone()).unwrap();
            let value = match &sample["value"] {
                Value::String(text) => number(text),
                value => value.as_f64().unwrap(),
            };
            ((name, labels), value)
        })
    });
    series.collect()
}

/// The series of the collector `textfile` in a scrape, without those about the files.
fn of_scrape(agent: &Agent) -> Series {
    let answer = get(metrics_of(agent), "/metrics?collect[]=textfile", &[]);
    let lines = answer.body.lines().filter(|line| {
        !line.starts_with('#') && !line.starts_with("node_") && !line.starts_with("system_agent_")
    });
    let series = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split_terminator("\",");
        let labels = labels.map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            let value = value.strip_suffix('"').unwrap_or(value);
            // The text format writes these characters as JSON does.
            let value = serde_json::from_str(&format!("\"{value}\"")).unwrap();
            (name.to_owned(), value)
        });
        ((name.to_owned(), labels.collect()), number(value))
    });
    series.collect()
}

fn has_error(agent: &Agent) -> bool {
    let scrape = get(metrics_of(agent), "/metrics", &[]).body;
    let line = scrape
        .lines()
        .find_map(|line| line.strip_prefix("node_textfile_scrape_error "));
    line.expect("the scrape does not tell of text files") == "1"
}

#[test]
#[parallel]
fn the_section_has_the_files_and_their_metrics_as_the_scrape_has_them() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "backup.prom", BACKUP);
    write(&folder, "other.prom", "backup_bytes_free 7\n");
    let agent = launch(&folder).start();
    let mut client = asking(&agent);
    let snapshot = until(&mut client, |snapshot| snapshot["textfile"].is_array());
    let section = &snapshot["textfile"];
    let path = folder.path().join("backup.prom");
    assert_eq!(section[0]["file"], path.display().to_string());
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    let mtime = humantime::format_rfc3339_millis(mtime).to_string();
    assert_eq!(section[0]["mtime"], mtime);
    let metric = &section[0]["metrics"][0];
    assert_eq!(metric["help"], "Size of the backup.");
    assert_eq!(metric["type"], "gauge");
    assert_eq!(section[0]["metrics"][1]["samples"][2]["value"], "NaN");
    assert_eq!(section[1]["metrics"][0]["type"], "untyped");
    let (ours, theirs) = (of_section(section), of_scrape(&agent));
    assert_eq!(ours.len(), 10, "{ours:?}");
    let names = |series: &Series| series.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (series, value) in &ours {
        let same = value == &theirs[series] || (value.is_nan() && theirs[series].is_nan());
        assert!(same, "{series:?}: {value}, not {}", theirs[series]);
    }
    // A client that does not ask for the section does not get it.
    let mut filled = agent.login().snapshot();
    assert!(filled.get("textfile").is_none());
    assert_eq!(filled["sources"]["textfile"]["status"], "ok");
    filled["textfile"] = section.clone();
    assert_eq!(schema::violations(&filled), Vec::<String>::new());
    // The section follows the files.
    fs::remove_file(&path).unwrap();
    write(&folder, "other.prom", "backup_bytes_free 8\n");
    until(&mut client, |snapshot| {
        let section = &snapshot["textfile"];
        let value = &section[0]["metrics"][0]["samples"][0]["value"];
        section.as_array().unwrap().len() == 1 && value == 8
    });
}

#[test]
#[parallel]
fn a_broken_file_costs_only_itself_and_is_a_failing_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write(&folder, "good.prom", "good 1\n");
    write(&folder, "broken.prom", "broken 1\nsecret\n");
    let agent = launch(&folder).start();
    let mut client = agent.login();
    // Neither a client nor a scrape has asked for these figures.
    let failing = client.snapshot_where("a broken file", DEADLINE, |one| error(one).is_some());
    let broken = format!("{}: line 2: invalid value", path("broken.prom"));
    assert_eq!(error(&failing), Some(&*broken));
    assert_eq!(failing["status"], "degraded");
    assert_eq!(failing["sources"]["textfile"]["status"], "failing");
    assert!(has_error(&agent));
    assert_eq!(of_scrape(&agent).len(), 1);
    let event = agent.event("figures of a text file left out");
    assert_eq!(event.text("file"), path("broken.prom"));
    assert_eq!(event.text("error"), "line 2: invalid value");
    assert_eq!(agent.event("source failing").text("source"), "textfile");
    let snapshot = until(&mut asking(&agent), |one| one["textfile"].is_array());
    assert_eq!(snapshot["textfile"][0]["error"], "line 2: invalid value");
    assert_eq!(of_section(&snapshot["textfile"]).len(), 1);

    write(&folder, "broken.prom", "mended 1\n");
    // Nobody wants the figures, so the next look is in a minute.
    let fine = client.snapshot_where("a mended file", DEADLINE, |one| {
        error(one).is_none() && one["sources"]["textfile"]["interval_ms"] == 60_000
    });
    assert_eq!(fine["status"], "ok");
    agent.event("source recovered");
    assert!(!has_error(&agent));
    assert_eq!(of_scrape(&agent).len(), 2);

    // A metric that is left out costs only this metric.
    write(&folder, "broken.prom", "node_load1 1\nmended 1\n");
    let mut asking = asking(&agent);
    let left_out = until(&mut asking, |one| error(one).is_some());
    let reason = "the metric node_load1 is a metric of the agent itself";
    let text = format!("{}: {reason}", path("broken.prom"));
    assert_eq!(error(&left_out), Some(&*text));
    assert_eq!(left_out["textfile"][0]["error"], reason);
    assert_eq!(of_section(&left_out["textfile"]).len(), 2);
    fs::remove_file(path("broken.prom")).unwrap();
    until(&mut asking, |one| error(one).is_none());

    fs::remove_dir_all(folder.path()).unwrap();
    let gone = until(&mut asking, |one| error(one).is_some());
    let text = format!(
        "{}: cannot be read: entity not found",
        path("").trim_end_matches('/')
    );
    assert_eq!(error(&gone), Some(&*text));
    fs::create_dir(folder.path()).unwrap();
    write(&folder, "good.prom", "good 1\n");
    until(&mut asking, |one| error(one).is_none());
}

#[test]
#[parallel]
fn without_a_directory_there_is_neither_a_source_nor_a_section() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms"), ("SYSTEM_INTERVAL", "200ms")]);
    let mut client = asking(&agent);
    let snapshot = until(&mut client, |one| one["agent"]["seq"].as_u64() >= Some(5));
    assert!(snapshot.get("textfile").is_none());
    assert!(snapshot["sources"].get("textfile").is_none());
}

#[test]
#[parallel]
fn a_broken_file_is_shown_by_watch_and_by_the_commands() {
    let folder = tempfile::Builder::new()
        .prefix("t")
        .tempdir_in("/tmp")
        .unwrap();
    let path = folder.path().join("b.prom");
    write(&folder, "b.prom", "b\n");
    let agent = launch(&folder).start();
    let address = agent.address().to_string();
    let terminal = Terminal::watch(LARGE, &[&address], &[("API_KEY", KEY)]);
    let problem = format!(
        "textfile is failing: {}: line 1: invalid value",
        path.display()
    );
    terminal.shows(&[&problem]);
    let run = |command: &str| {
        launch(&folder)
            .without("METRICS_PORT")
            .args([command])
            .run()
    };
    let check = run("check");
    assert_eq!(check.code(), 1, "{check:?}");
    let line = check.stdout.iter().find(|line| line.contains("text files"));
    let line = line.expect("check does not try the directory");
    assert!(line.starts_with("FAIL"), "{line}");
    assert!(line.contains("b.prom: line 1: invalid value"), "{line}");
    let taken = run("snapshot");
    let taken: Value = serde_json::from_str(&taken.stdout.join("\n")).unwrap();
    let expected = format!("{}: line 1: invalid value", path.display());
    assert_eq!(error(&taken), Some(&*expected));
    assert!(taken.get("textfile").is_none());

    write(&folder, "b.prom", "b 1\n");
    terminal.hides("textfile is failing");
    let check = run("check");
    let line = check.stdout.iter().find(|line| line.contains("text files"));
    let line = line.unwrap();
    assert!(
        line.starts_with("PASS") && line.contains("1 metrics in 1 files"),
        "{line}"
    );
    terminal.press(&["q"]);
    terminal.ends(0);
}
