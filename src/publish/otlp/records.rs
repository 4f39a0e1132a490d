//! Log lines and events as log records, in batches of limited size.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::attributes::{any, number, scope, text};
use super::severity::LineFacts;
use crate::model::{ContainerEvent, EventAction, LogStream};

/// Approximate limit on the contents of a request, in bytes. Receivers accept at least 4 MiB.
const MAX_BATCH: usize = 1 << 20;
/// Limit on the log records of a request.
const MAX_RECORDS: u64 = 10_000;
/// Approximate size of a log record without its text, in bytes.
const OVERHEAD: usize = 128;

/// The contents of one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub(super) request: ExportLogsServiceRequest,
    /// Number of log records.
    pub(super) records: u64,
}

/// Fills batches with log records.
#[derive(Default)]
pub(super) struct Batches {
    full: VecDeque<Batch>,
    open: Vec<ResourceLogs>,
    records: u64,
    bytes: usize,
}

impl Batches {
    /// Adds the log lines of a container. `id` is its full id.
    pub(super) fn add_lines(
        &mut self,
        resource: &Resource,
        id: &str,
        lines: impl Iterator<Item = (String, LogStream)>,
        now: SystemTime,
    ) {
        let records = lines.map(|(line, stream)| of_line(id, line, stream, now));
        self.add(resource, records);
    }

    /// Adds events of containers. `resource` is the host.
    pub(super) fn add_events<'e>(
        &mut self,
        resource: &Resource,
        events: impl Iterator<Item = &'e ContainerEvent>,
        now: SystemTime,
    ) {
        self.add(resource, events.map(|event| of_event(event, now)));
    }

    fn add(&mut self, resource: &Resource, records: impl Iterator<Item = LogRecord>) {
        let mut is_open = false;
        for record in records {
            let size = size(&record);
            if self.records > 0 && (self.bytes + size > MAX_BATCH || self.records == MAX_RECORDS) {
                self.close();
                is_open = false;
            }
            if !is_open {
                self.open.push(resource_logs(resource.clone()));
                is_open = true;
            }
            let newest = self.open.last_mut();
            if let Some(scope) = newest.and_then(|logs| logs.scope_logs.last_mut()) {
                scope.log_records.push(record);
                self.bytes += size;
                self.records += 1;
            }
        }
    }

    fn close(&mut self) {
        let resource_logs = std::mem::take(&mut self.open);
        if self.records > 0 {
            self.full.push_back(Batch {
                request: ExportLogsServiceRequest { resource_logs },
                records: self.records,
            });
        }
        (self.records, self.bytes) = (0, 0);
    }

    /// Returns the batches, oldest first.
    pub(super) fn finish(mut self) -> VecDeque<Batch> {
        self.close();
        self.full
    }
}

impl Batch {
    /// Splits the batch into two halves. None if it has only one log record.
    pub(super) fn split(self) -> Option<[Self; 2]> {
        let first = usize::try_from(self.records / 2)
            .ok()
            .filter(|first| *first > 0)?;
        let mut halves = [Batches::default(), Batches::default()];
        let mut place = 0;
        for logs in self.request.resource_logs {
            let resource = logs.resource.unwrap_or_default();
            let records = logs
                .scope_logs
                .into_iter()
                .flat_map(|scope| scope.log_records);
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for record in records {
                match place < first {
                    true => one.push(record),
                    false => other.push(record),
                }
                place += 1;
            }
            halves[0].add(&resource, one.into_iter());
            halves[1].add(&resource, other.into_iter());
        }
        // Each half is smaller than the whole, so it is one batch.
        let [one, other] = halves.map(|half| half.finish().pop_front());
        Some([one?, other?])
    }
}

fn resource_logs(resource: Resource) -> ResourceLogs {
    ResourceLogs {
        resource: Some(resource),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    }
}

fn size(record: &LogRecord) -> usize {
    let body = record.body.as_ref().and_then(|body| body.value.as_ref());
    let text = match body {
        Some(Value::StringValue(text)) => text.len(),
        _ => 0,
    };
    text + record.attributes.len() * 32 + OVERHEAD
}

/// Returns the log record of a line `TIMESTAMP text`.
fn of_line(id: &str, line: String, stream: LogStream, now: SystemTime) -> LogRecord {
    let uid = identity(id, &line);
    let (time, body) = match line.split_once(' ') {
        Some((timestamp, body)) => match nanoseconds_of(timestamp) {
            Some(time) => (time, body.to_owned()),
            None => (0, line),
        },
        None => match nanoseconds_of(&line) {
            Some(time) => (time, String::new()),
            None => (0, line),
        },
    };
    let facts = LineFacts::of(&body);
    let (word, severity) = facts.severity.unwrap_or_default();
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: nanoseconds(now),
        severity_number: severity.into(),
        severity_text: word,
        body: Some(any(Value::StringValue(body))),
        attributes: vec![
            text("log.record.uid", uid),
            text("log.iostream", stream.name()),
        ],
        trace_id: facts.trace_id,
        span_id: facts.span_id,
        ..LogRecord::default()
    }
}

/// Returns the log record of an event.
fn of_event(event: &ContainerEvent, now: SystemTime) -> LogRecord {
    let action = action(&event.action);
    let mut attributes = vec![
        text("container.id", &*event.id),
        text("container.name", &*event.container),
        text("container.image.name", &*event.image),
    ];
    let mut body = format!("container {}: {action}", event.container);
    if let Some(code) = event.exit_code {
        attributes.push(number("system_agent.container.exit_code", code));
        body += &format!(", exit code {code}");
    }
    if let Some(health) = &event.health {
        attributes.push(text("system_agent.container.health", &**health));
        body += &format!(", {health}");
    }
    if let Some(before) = &event.renamed_from {
        attributes.push(text("system_agent.container.renamed_from", &**before));
        body += &format!(", earlier {before}");
    }
    // All types of the model can be encoded as JSON.
    let json = serde_json::to_string(event).unwrap_or_default();
    attributes.push(text("log.record.uid", identity(&event.id, &json)));
    let is_bad = event.exit_code.is_some_and(|code| code != 0)
        || event.health.as_deref() == Some("unhealthy");
    let (word, severity) = match event.action {
        EventAction::Oom => ("ERROR", SeverityNumber::Error),
        _ if is_bad => ("WARN", SeverityNumber::Warn),
        _ => ("INFO", SeverityNumber::Info),
    };
    LogRecord {
        time_unix_nano: nanoseconds(event.time.0),
        observed_time_unix_nano: nanoseconds(now),
        severity_number: severity.into(),
        severity_text: word.to_owned(),
        body: Some(any(Value::StringValue(body))),
        attributes,
        event_name: format!("container.{action}"),
        ..LogRecord::default()
    }
}

fn action(action: &EventAction) -> String {
    match serde_json::to_value(action) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}

/// Returns a text that identifies a line or event. It is the same each time that the agent reads the line, also after a restart.
fn identity(id: &str, line: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(id.as_bytes());
        hasher.write(line.as_bytes());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

fn nanoseconds_of(timestamp: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(timestamp, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message as _;

    use super::{Batch, Batches, MAX_BATCH, of_event, of_line};
    use crate::model::LogStream::{self, Stderr, Stdout};
    use crate::model::{ContainerEvent, EventAction, Timestamp};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn body(record: &LogRecord) -> &str {
        match record.body.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    fn of_stdout(lines: &[String]) -> impl Iterator<Item = (String, LogStream)> {
        lines.iter().map(|line| (line.clone(), Stdout))
    }

    fn attribute(record: &LogRecord, key: &str) -> Value {
        let found = record.attributes.iter().find(|one| one.key == key).unwrap();
        found.value.clone().unwrap().value.unwrap()
    }

    fn bodies(batch: &Batch) -> Vec<String> {
        let logs = batch.request.resource_logs.iter();
        let records = logs.flat_map(|logs| &logs.scope_logs[0].log_records);
        records.map(|record| body(record).to_owned()).collect()
    }

    #[test]
    fn a_line_has_the_time_that_stands_before_its_text() {
        let line = "2026-01-01T00:00:00.123456789Z level=warn two  words";
        let record = of_line("id", line.to_owned(), Stdout, NOW);
        assert_eq!(record.time_unix_nano, 1_767_225_600_123_456_789);
        assert_eq!(body(&record), "level=warn two  words");
        assert_eq!(record.severity_number, SeverityNumber::Warn as i32);
        assert_eq!(record.severity_text, "warn");
        let again = of_line("id", line.to_owned(), Stdout, NOW + Duration::from_secs(1));
        assert_eq!(
            attribute(&record, "log.record.uid"),
            attribute(&again, "log.record.uid")
        );
        for (id, other) in [
            ("other", line),
            ("id", "2026-01-01T00:00:00.123456788Z level=warn two  words"),
        ] {
            let other = of_line(id, other.to_owned(), Stdout, NOW);
            assert_ne!(
                attribute(&record, "log.record.uid"),
                attribute(&other, "log.record.uid")
            );
        }
        let without = of_line("id", "no time".to_owned(), Stdout, NOW);
        assert_eq!((without.time_unix_nano, body(&without)), (0, "no time"));
        let empty = of_line("id", "2026-01-01T00:00:00Z ".to_owned(), Stdout, NOW);
        assert_eq!(body(&empty), "");
    }

    #[test]
    fn a_line_names_the_stream_it_comes_from() {
        let line = "2026-01-01T00:00:00Z text";
        let mut batches = Batches::default();
        let lines = [Stderr, Stdout].map(|stream| (line.to_owned(), stream));
        batches.add_lines(&Resource::default(), "id", lines.into_iter(), NOW);
        let batch = batches.finish().pop_front().unwrap();
        let records = &batch.request.resource_logs[0].scope_logs[0].log_records;
        let streams = records
            .iter()
            .map(|record| attribute(record, "log.iostream"));
        let expected = ["stderr", "stdout"].map(|name| Value::StringValue(name.to_owned()));
        assert_eq!(streams.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_event_has_a_name_and_attributes() {
        let event = ContainerEvent {
            time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
            action: EventAction::Die,
            container: "web".to_owned(),
            id: "0123456789ab".to_owned(),
            image: "nginx".to_owned(),
            exit_code: Some(137),
            health: None,
            renamed_from: None,
        };
        let record = of_event(&event, NOW);
        assert_eq!(record.event_name, "container.die");
        assert_eq!(record.time_unix_nano, 5_000_000_000);
        assert_eq!(record.severity_number, SeverityNumber::Warn as i32);
        assert_eq!(body(&record), "container web: die, exit code 137");
        assert_eq!(
            attribute(&record, "system_agent.container.exit_code"),
            Value::IntValue(137)
        );
        assert_eq!(
            attribute(&record, "container.name"),
            Value::StringValue("web".to_owned())
        );
    }

    #[test]
    fn batches_are_bounded_and_keep_the_order() {
        let mut batches = Batches::default();
        let lines: Vec<String> = (0..300)
            .map(|number| format!("{number} {}", "x".repeat(16_000)))
            .collect();
        batches.add_lines(&Resource::default(), "a", of_stdout(&lines[..150]), NOW);
        batches.add_lines(&Resource::default(), "b", of_stdout(&lines[150..]), NOW);
        let batches = batches.finish();
        assert!(batches.len() >= 5, "{}", batches.len());
        for batch in &batches {
            assert!(batch.request.encoded_len() <= MAX_BATCH);
            assert_eq!(bodies(batch).len() as u64, batch.records);
        }
        let all: Vec<_> = batches.iter().flat_map(bodies).collect();
        assert_eq!(all, lines);
        assert!(Batches::default().finish().is_empty());
    }

    #[test]
    fn a_batch_is_split_into_two_halves() {
        let mut batches = Batches::default();
        let lines: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        batches.add_lines(&Resource::default(), "a", of_stdout(&lines[..3]), NOW);
        batches.add_lines(&Resource::default(), "b", of_stdout(&lines[3..]), NOW);
        let mut batches = batches.finish();
        assert_eq!(batches.len(), 1);
        let [one, other] = batches.pop_front().unwrap().split().unwrap();
        assert_eq!(
            (bodies(&one), bodies(&other)),
            (lines[..3].to_vec(), lines[3..].to_vec())
        );
        let [one, _] = one.split().unwrap();
        assert_eq!(one.records, 1);
        assert_eq!(one.split(), None);
    }
}
