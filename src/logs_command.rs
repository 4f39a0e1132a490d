//! `system-agent logs`: prints the log of a container, from the agent on its host.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::process;
use std::time::{Duration, SystemTime};

use system_agent::client::{Backoff, Connector, Error};
use system_agent::command_line::LogsArguments;
use system_agent::model::{LogRange, MOST_RANGE_LINES, RangeEnd, StreamLine, time_of};
use tokio::time::sleep;

use super::agents::{connector, keys};
use super::{block_on, complain};

/// The options of a client that follows logs.
const FOLLOW: &str = r#"{"sections":["logs"],"logs":"new","live":true}"#;

/// How many snapshots of a stream are read until one has the log.
const MAX_SNAPSHOTS: u32 = 3;

/// Prints a log. Returns the exit status.
pub(super) fn run(arguments: &LogsArguments) -> i32 {
    let connected = keys().and_then(|keys| connector(&arguments.host, &arguments.tls, &keys));
    let range = range_of(arguments, SystemTime::now());
    let outcome = match (connected, range) {
        (Ok(connector), Ok(range)) => block_on(print(&connector, range, arguments)),
        (Err(why), _) | (_, Err(why)) => Err(why),
    };
    match outcome {
        Ok(()) => 0,
        Err(why) => {
            complain(format_args!("{why}"));
            1
        }
    }
}

/// Returns the request for the log lines that are printed first.
fn range_of(arguments: &LogsArguments, now: SystemTime) -> Result<LogRange, String> {
    let mut range = LogRange::of(&arguments.container);
    range.before = moment("--until", arguments.until.as_deref(), now)?;
    let since = moment("--since", arguments.since.as_deref(), now)?;
    // A range begins after its first time, and `--since` includes it.
    range.after = since.and_then(|since| since.checked_sub(Duration::from_nanos(1)));
    range.grep.clone_from(&arguments.grep);
    if range.grep.is_some() && range.regex().is_none() {
        return Err("--grep: not a regular expression, or too large".to_owned());
    }
    match arguments.tail {
        Some(tail) => range.lines = tail,
        None => (range.from, range.lines) = (RangeEnd::Oldest, MOST_RANGE_LINES),
    }
    Ok(range)
}

/// Reads a time such as `2026-01-02T03:04:05Z`, or the time of so long ago, such as `10m`.
fn moment(option: &str, text: Option<&str>, now: SystemTime) -> Result<Option<SystemTime>, String> {
    let Some(text) = text else { return Ok(None) };
    let ago = || now.checked_sub(duration(text)?);
    let time = time_of(text).or_else(ago);
    time.map(Some).ok_or_else(|| {
        format!(
            "{option}: not a time: {text:?}; accepted: 2026-01-02T03:04:05Z, or a time ago: 90s, 10m, 2h, 7d"
        )
    })
}

fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

async fn print(
    connector: &Connector,
    mut range: LogRange,
    arguments: &LogsArguments,
) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    if !arguments.follow {
        return print_range(connector, range, arguments).await.map_err(text);
    }
    // The stream begins with the newest lines. The range ends with the last of them, and the lines that are in both are printed once.
    let mut stream = connector.connect_asking(FOLLOW).await.map_err(text)?;
    let mut first = stream.next_line().await.map_err(text)?;
    let name = &arguments.container;
    let mut snapshots = 1;
    while is_without(&first, name) {
        if snapshots == MAX_SNAPSHOTS {
            return Err(format!("no running container has the name {name:?}"));
        }
        snapshots += 1;
        // The snapshot can be older than the container. A request for a line fails if the agent does not know the container.
        let mut line = LogRange::of(name);
        line.lines = 1;
        connector.older_lines(&line).await.map_err(text)?;
        first = stream.next_line().await.map_err(text)?;
    }
    let (tail, _) = lines_of(first, name);
    let filter = Filter::of(&range);
    let mut earlier = Vec::new();
    if let Some(newest) = tail
        .last()
        .and_then(|line| time_of(line.split_once(' ')?.0))
    {
        range.before = newest.checked_add(Duration::from_nanos(1));
        if arguments.tail.is_some() {
            range.lines = MOST_RANGE_LINES.min(range.lines + tail.len());
        }
        earlier = read_range(connector, range, &tail, arguments)
            .await
            .map_err(text)?;
    }
    earlier.extend(tail.into_iter().filter(|line| filter.wants(line)));
    let surplus = earlier.len() - arguments.tail.unwrap_or(earlier.len()).min(earlier.len());
    print_lines(earlier[surplus..].iter().map(String::as_str), arguments);
    let mut backoff = Backoff::default();
    loop {
        match stream.next_line().await {
            Ok(line) => {
                backoff.reset();
                let (lines, dropped) = lines_of(line, &arguments.container);
                if dropped > 0 {
                    complain(format_args!("{dropped} lines were dropped"));
                }
                let wanted = lines.iter().filter(|line| filter.wants(line));
                print_lines(wanted.map(String::as_str), arguments);
            }
            Err(error @ (Error::Unauthorized | Error::Answered(_))) => return Err(text(error)),
            Err(error) => {
                complain(format_args!("{error}; connecting again"));
                stream = loop {
                    sleep(backoff.pause()).await;
                    // The new connection continues after the newest line that was received.
                    if let Ok(stream) = connector.connect_asking(FOLLOW).await {
                        break stream;
                    }
                };
            }
        }
    }
}

/// Prints all log lines of a range.
async fn print_range(
    connector: &Connector,
    range: LogRange,
    arguments: &LogsArguments,
) -> Result<(), Error> {
    let last = read_range(connector, range, &[], arguments).await?;
    print_lines(last.iter().map(String::as_str), arguments);
    Ok(())
}

/// Reads a range without the lines `known`. If it begins with the oldest lines, prints them. Otherwise returns them.
async fn read_range(
    connector: &Connector,
    mut range: LogRange,
    known: &[String],
    arguments: &LogsArguments,
) -> Result<Vec<String>, Error> {
    let known: HashSet<&str> = known.iter().map(String::as_str).collect();
    loop {
        let older = connector.older_lines(&range).await?;
        let lines = older.lines.into_iter();
        let lines: Vec<_> = lines
            .filter(|line| !known.contains(line.as_str()))
            .collect();
        if range.from == RangeEnd::Newest {
            return Ok(lines);
        }
        print_lines(lines.iter().map(String::as_str), arguments);
        if older.reached.is_none() {
            return Ok(Vec::new());
        }
        range.after = older.reached;
    }
}

fn is_without(line: &StreamLine, container: &str) -> bool {
    match line {
        StreamLine::Snapshot(snapshot) => !snapshot.logs.contains_key(container),
        StreamLine::News(_) | StreamLine::History(_) => false,
    }
}

/// Returns the new lines of a container in a line of the stream, and the number of dropped lines.
fn lines_of(line: StreamLine, container: &str) -> (Vec<String>, u64) {
    match line {
        StreamLine::Snapshot(snapshot) => {
            let lines = snapshot.logs.get(container);
            let lines = lines.map(|lines| lines.after(0).texts().collect());
            let dropped = snapshot.logs_dropped.as_ref();
            let dropped = dropped.and_then(|dropped| dropped.get(container));
            (lines.unwrap_or_default(), dropped.copied().unwrap_or(0))
        }
        StreamLine::News(mut news) => (
            news.logs.remove(container).unwrap_or_default(),
            news.logs_dropped.remove(container).unwrap_or(0),
        ),
        StreamLine::History(_) => (Vec::new(), 0),
    }
}

/// Which lines of the stream are printed.
struct Filter {
    after: Option<SystemTime>,
    regex: Option<regex::Regex>,
}

impl Filter {
    fn of(range: &LogRange) -> Self {
        Self {
            after: range.after,
            regex: range.regex(),
        }
    }

    fn wants(&self, line: &str) -> bool {
        let (time, text) = line.split_once(' ').unwrap_or(("", line));
        let at = time_of(time);
        self.after
            .is_none_or(|after| at.is_none_or(|at| at > after))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

fn print_lines<'l>(lines: impl Iterator<Item = &'l str>, arguments: &LogsArguments) {
    let mut stdout = io::stdout().lock();
    for line in lines {
        let text = match arguments.timestamps {
            true => line,
            false => line.split_once(' ').map_or(line, |(_, text)| text),
        };
        if writeln!(stdout, "{text}").is_err() {
            // The reader of the output has ended, for example `head`.
            process::exit(0);
        }
    }
    if stdout.flush().is_err() {
        process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::moment;

    #[test]
    fn a_time_is_absolute_or_so_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |text| moment("--since", Some(text), now);
        let before = |seconds| Ok(Some(now - Duration::from_secs(seconds)));
        assert_eq!(at("90s"), before(90));
        assert_eq!(at("10m"), before(600));
        assert_eq!(at("2h"), before(7200));
        assert_eq!(at("7d"), before(604_800));
        assert_eq!(at("1970-01-12T13:46:40Z"), Ok(Some(now)));
        assert_eq!(moment("--since", None, now), Ok(None));
        for text in [
            "",
            "5",
            "m",
            "-1s",
            "5 m",
            "yesterday",
            "99999999999999999999d",
        ] {
            assert!(
                at(text).unwrap_err().starts_with("--since: not a time"),
                "{text}"
            );
        }
    }
}
