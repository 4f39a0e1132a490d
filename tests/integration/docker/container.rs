//! Containers that a test starts. Each container is removed when its Rust value is dropped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::engine::{Engine, IMAGE, LABEL};
use crate::support::{DEADLINE, wait};

/// A container. Removed on drop.
pub(crate) struct Container<'e> {
    engine: &'e Engine,
    id: String,
    name: String,
}

impl Container<'static> {
    /// Starts `sh -c script` on the machine's own engine with these options of `docker run`.
    pub(crate) fn run(topic: &str, options: &[&str], script: &str) -> Self {
        Self::run_on(Engine::local(), topic, options, script)
    }

    /// Does the same as [`Container::run`], with a given name, for example the name of a removed container.
    pub(crate) fn run_as(name: &str, script: &str) -> Self {
        let run = ["run", "--detach"];
        Self::make_as(Engine::local(), &run, name.to_owned(), &[], script)
    }

    /// Does the same as [`Container::run`], but creates the container without starting it.
    pub(crate) fn create(topic: &str) -> Self {
        Self::create_with(topic, &[])
    }

    /// Does the same as [`Container::create`], with these options of `docker create`.
    pub(crate) fn create_with(topic: &str, options: &[&str]) -> Self {
        Self::make(Engine::local(), &["create"], topic, options, "sleep 1000")
    }
}

impl<'e> Container<'e> {
    /// Starts `sh -c script` on an engine that has the image.
    pub(crate) fn run_on(engine: &'e Engine, topic: &str, options: &[&str], script: &str) -> Self {
        Self::make(engine, &["run", "--detach"], topic, options, script)
    }

    fn make(
        engine: &'e Engine,
        verb: &[&str],
        topic: &str,
        options: &[&str],
        script: &str,
    ) -> Self {
        Self::make_as(engine, verb, unique_name(topic), options, script)
    }

    fn make_as(
        engine: &'e Engine,
        verb: &[&str],
        name: String,
        options: &[&str],
        script: &str,
    ) -> Self {
        let label = format!("{LABEL}={}", std::process::id());
        let common = ["--name", &name, "--label", &label];
        let command = [IMAGE, "sh", "-c", script];
        let id = engine.docker([verb, &common, options, &command].concat());
        Self { engine, id, name }
    }

    /// Returns the container's name. The container is not removed on drop. The private engine removes its containers when it is
    /// dropped.
    pub(crate) fn keep(mut self) -> String {
        self.id.clear();
        std::mem::take(&mut self.name)
    }

    /// The container's name without the slash.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The container's id as in snapshots.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// The output of `docker inspect` for this container.
    pub(crate) fn inspect(&self) -> Value {
        self.engine.inspect(&self.id)
    }

    /// Runs `docker <verb> [options] <this container>`.
    pub(crate) fn docker(&self, verb: &str, options: &[&str]) -> String {
        let mut arguments = vec![verb];
        arguments.extend(options);
        arguments.push(&self.id);
        self.engine.docker(arguments)
    }

    /// Starts the container. Returns whether that succeeded.
    pub(crate) fn try_start(&self) -> bool {
        self.engine.try_docker(["start", &self.id]).status.success()
    }

    /// Runs a shell command inside the container. Returns its output.
    pub(crate) fn exec(&self, script: &str) -> String {
        self.engine.docker(["exec", &self.id, "sh", "-c", script])
    }

    /// Renames the container. The new name is unique, too.
    pub(crate) fn rename(&mut self, topic: &str) {
        let name = unique_name(topic);
        self.engine.docker(["rename", &self.id, &name]);
        self.name = name;
    }

    /// Waits until the container has printed a log line that ends with `text`.
    pub(crate) fn wait_for_line(&self, text: &str) {
        self.wait_for(text, |line| line.ends_with(text));
    }

    /// Waits until the container has printed a log line that contains `text`.
    pub(crate) fn wait_for_line_with(&self, text: &str) {
        self.wait_for(text, |line| line.contains(text));
    }

    fn wait_for(&self, text: &str, fits: impl Fn(&str) -> bool) {
        let printed = || {
            let lines = self.logs();
            lines.iter().any(|line| fits(line)).then_some(())
        };
        wait::until(&format!("{text:?} in docker logs"), DEADLINE, printed);
    }

    /// The output of `docker logs --timestamps`: lines `TIMESTAMP text` of both streams, sorted by timestamp.
    /// Replaces bytes that are not UTF-8. Removes the carriage return that a terminal writes before each line feed.
    pub(crate) fn logs(&self) -> Vec<String> {
        let terminal = self.inspect()["Config"]["Tty"] == true;
        let output = self.engine.try_docker(["logs", "--timestamps", &self.id]);
        assert!(output.status.success(), "docker logs: {output:?}");
        let mut lines = Vec::new();
        for stream in [output.stdout, output.stderr] {
            let text = String::from_utf8_lossy(&stream);
            let split = text.split_terminator('\n');
            lines.extend(split.map(|line| {
                let whole = if terminal {
                    line.strip_suffix('\r')
                } else {
                    None
                };
                whole.unwrap_or(line).to_owned()
            }));
        }
        lines.sort_by(|a, b| timestamp(a).cmp(timestamp(b)));
        lines
    }

    /// The output of `docker stats --no-stream` for this container. Takes about two seconds.
    pub(crate) fn stats(&self) -> Stats {
        let text = self.docker("stats", &["--no-stream", "--format", "{{json .}}"]);
        let stats: Value =
            serde_json::from_str(&text).expect("the output of docker stats is not JSON");
        let field = |name: &str| stats[name].as_str().expect("expected a text").to_owned();
        let percent = |name: &str| {
            let text = field(name);
            let number = text.strip_suffix('%').expect("expected a percentage");
            number.parse().expect("expected a number")
        };
        let pair = |name: &str| {
            let text = field(name);
            let (left, right) = text.split_once(" / ").expect("expected a pair");
            (size(left), size(right))
        };
        let (memory_usage, memory_limit) = pair("MemUsage");
        let (received, sent) = pair("NetIO");
        Stats {
            cpu_percent: percent("CPUPerc"),
            memory_percent: percent("MemPerc"),
            memory_usage,
            memory_limit,
            received,
            sent,
        }
    }

    /// Waits until the main process of the container ends.
    pub(crate) fn wait_for_end(&self) {
        let state = || (self.inspect()["State"]["Status"] == "exited").then_some(());
        wait::until("the container's end", Duration::from_secs(30), state);
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            // A test can have removed the container already.
            let _ = self.engine.try_docker(["rm", "-f", "-v", &self.id]);
        }
    }
}

/// The values of `docker stats`, in bytes and percent.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) cpu_percent: f64,
    pub(crate) memory_percent: f64,
    pub(crate) memory_usage: f64,
    pub(crate) memory_limit: f64,
    pub(crate) received: f64,
    pub(crate) sent: f64,
}

/// A name that no other container has, in this or any other test run.
pub(super) fn unique_name(topic: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("system-agent-test-{}-{number}-{topic}", std::process::id())
}

/// The timestamp of a line of `docker logs --timestamps`, for sorting.
fn timestamp(line: &str) -> &str {
    line.split_once(' ')
        .map_or(line, |(timestamp, _)| timestamp)
}

/// A size in the format of Docker's client, such as `40.5MiB`, `8.66MB` or `0B`.
pub(super) fn size(text: &str) -> f64 {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(unit_at.expect("expected a unit"));
    let factor = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("unknown unit {other:?}"),
    };
    number.parse::<f64>().expect("expected a number") * factor
}
