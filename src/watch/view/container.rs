//! Draws the view of one container: figures over time, details, and its log or its events.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Theme, columns, header, height_of_header, host, table};
use crate::model::{Container, Snapshot, StoppedContainer};
use crate::watch::host::{Host, Log};
use crate::watch::screen::{LogView, Screen, Tail};
use crate::watch::text::{self, Level};

pub(super) fn draw(
    screen: &mut Screen,
    number: usize,
    id: &str,
    name: &str,
    frame: &mut Frame<'_>,
    area: Rect,
    now: Instant,
) {
    let theme = screen.theme;
    let Some(host) = screen.hosts.get(&number) else {
        return;
    };
    // A container that was created again has another id, but the same name.
    let container = host.container(id, name);
    let [head, graphs, details, body] = Layout::vertical([
        Constraint::Length(height_of_header(screen, host, now)),
        Constraint::Length(5),
        Constraint::Length(3),
        Constraint::Min(3),
    ])
    .areas(area);
    header(screen, host, name, frame, head, now);
    if let Some(container) = container {
        over_time(host, container, theme, frame, graphs);
    }
    let stopped = host.snapshot.as_ref().zip(host.stopped(id, name));
    let lines = match (container, stopped) {
        (Some(container), _) => about(host.snapshot.as_deref(), container, theme),
        (None, Some((snapshot, stopped))) => about_stopped(snapshot, stopped, theme),
        (None, None) => vec![Line::styled(
            "this container is not running",
            theme.of(Level::Warn),
        )],
    };
    frame.render_widget(Paragraph::new(lines), details);
    match screen.tail {
        Tail::Log => log(host.log.as_ref(), &mut screen.log, theme, frame, body),
        Tail::Events => {
            let rows = columns::events(host, Some(name));
            let block = table::boxed(format!(" Events {} ", rows.len()), true, theme);
            let inner = block.inner(body);
            frame.render_widget(block, body);
            let heads = columns::of_pane(columns::Pane::Events);
            table::draw(&mut screen.happened, heads, rows, true, theme, frame, inner);
        }
    }
}

/// Draws graphs of CPU, memory and network.
fn over_time(host: &Host, container: &Container, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some(trace) = host.containers.get(&*container.id) else {
        return;
    };
    let last =
        |history: &crate::watch::history::History| history.newest(1).next().unwrap_or_default();
    let places = Layout::horizontal([Constraint::Fill(1); 3]).split(area);
    let count = usize::from(area.width);
    let cpu = format!(" CPU {:.1} % ", last(&trace.cpu));
    // The scale ends at one core. If the container uses more, the scale ends at the next whole number of cores.
    let cores = (trace.cpu.highest(count) / 100.0).ceil().max(1.0) * 100.0;
    let good = theme.of(Level::Good);
    host::graph(frame, places[0], cpu, &trace.cpu, cores, good, theme);
    let memory = format!(" Memory {} ", text::bytes(last(&trace.memory)));
    let limit = container.memory_limit as f64;
    let highest = trace.memory.highest(count) * 1.25;
    let highest = if limit > 0.0 {
        highest.min(limit)
    } else {
        highest
    };
    host::graph(
        frame,
        places[1],
        memory,
        &trace.memory,
        highest,
        good,
        theme,
    );
    let (received, sent) = (last(&trace.received), last(&trace.sent));
    let net = format!(
        " Net ↓ {}/s ↑ {}/s ",
        text::bytes(received),
        text::bytes(sent)
    );
    let highest = trace.received.highest(count).max(1.0);
    host::graph(
        frame,
        places[2],
        net,
        &trace.received,
        highest,
        theme.accent(),
        theme,
    );
}

/// Lines of details. Each detail has a name.
struct Details {
    theme: Theme,
    lines: [Vec<Span<'static>>; 3],
}

impl Details {
    fn new(theme: Theme) -> Self {
        Self {
            theme,
            lines: [Vec::new(), Vec::new(), Vec::new()],
        }
    }

    fn say(&mut self, line: usize, name: &'static str, value: &str, level: Level) {
        let line = &mut self.lines[line];
        if !line.is_empty() {
            line.push(Span::raw("  "));
        }
        line.push(Span::styled(format!("{name} "), self.theme.dim()));
        line.push(Span::styled(text::plain(value), self.theme.of(level)));
    }

    fn finish(self) -> Vec<Line<'static>> {
        self.lines.into_iter().map(Line::from).collect()
    }
}

/// Returns three lines of details of a stopped container.
fn about_stopped(
    snapshot: &Snapshot,
    container: &StoppedContainer,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut details = Details::new(theme);
    let mut say = |line, name, value: &str, level| details.say(line, name, value, level);
    say(0, "image", &container.image, Level::Plain);
    say(0, "id", &container.id, Level::Plain);
    say(0, "status", &container.state, Level::Warn);
    if let Some(ago) = columns::stopped_for(snapshot, container) {
        say(
            0,
            "stopped",
            &format!("{} ago", text::span(ago)),
            Level::Plain,
        );
    }
    if let Some(code) = container.exit_code {
        let level = if code == 0 { Level::Plain } else { Level::Bad };
        say(1, "exit code", &code.to_string(), level);
    }
    if container.oom_killed == Some(true) {
        say(1, "killed", "for lack of memory", Level::Bad);
    }
    if let Some(policy) = &container.restart_policy {
        say(1, "restart policy", policy, Level::Plain);
    }
    if let Some(health) = &container.health {
        say(1, "health", health, Level::Plain);
    }
    if let Some(compose) = &container.compose {
        let service = compose.service.as_deref().unwrap_or("-");
        let compose = format!("{}/{service}", compose.project);
        say(1, "compose", &compose, Level::Plain);
    }
    if let Some(error) = &container.error {
        say(2, "error", error, Level::Bad);
    }
    details.finish()
}

/// Returns the name and the text of each detail about the container's log files and volumes.
fn about_disks(snapshot: &Snapshot, container: &Container) -> Vec<(&'static str, String)> {
    let mut all = snapshot.docker_meta.iter();
    let Some(meta) = all.find(|meta| meta.id == container.id) else {
        return Vec::new();
    };
    let log = meta.log_bytes.map(|bytes| text::bytes(bytes as f64));
    let volumes = meta.volumes.iter().map(|volume| {
        let mut disks = snapshot.system.disks.iter();
        let disk = disks.find(|disk| disk.mount == volume.mount);
        let full = match disk.and_then(|disk| disk.used.zip(disk.total)) {
            Some((used, total)) => format!("{} of {}", text::gib(used), text::gib(total)),
            None => "-".to_owned(),
        };
        ("volume", format!("{} {full}", volume.destination))
    });
    let log = log.map(|bytes| ("log files", bytes));
    log.into_iter().chain(volumes).collect()
}

/// Returns three lines of details.
fn about(snapshot: Option<&Snapshot>, container: &Container, theme: Theme) -> Vec<Line<'static>> {
    let mut details = Details::new(theme);
    let mut say = |line, name, value: String, level| details.say(line, name, &value, level);
    say(0, "image", container.image.to_string(), Level::Plain);
    say(0, "id", container.id.to_string(), Level::Plain);
    say(0, "status", container.status.to_string(), Level::Plain);
    if let Some(health) = &container.health {
        let level = match health.as_str() {
            "healthy" => Level::Good,
            "unhealthy" => Level::Bad,
            _ => Level::Warn,
        };
        say(0, "health", health.clone(), level);
    }
    if let Some(uptime) = container.uptime {
        say(0, "up", text::span(uptime), Level::Plain);
    }
    if let Some(restarts) = container.restart_count {
        let level = if restarts > 0 {
            Level::Warn
        } else {
            Level::Plain
        };
        say(0, "restarts", restarts.to_string(), level);
    }

    if let Some(share) = container.memory_percent {
        let limit = text::bytes(container.memory_limit as f64);
        let memory = format!("{share:.1} % of {limit}");
        say(1, "memory", memory, Level::of_share(share));
    }
    if let Some(kills) = container.oom_kills.filter(|kills| *kills > 0) {
        say(1, "oom kills", kills.to_string(), Level::Bad);
    }
    if let Some(cores) = container.cpu_limit {
        say(1, "cpu limit", format!("{cores:.2}"), Level::Plain);
    }
    if let Some(throttled) = container.throttled_percent {
        let level = if throttled > 10.0 {
            Level::Warn
        } else {
            Level::Plain
        };
        say(1, "throttled", format!("{throttled:.0} %"), level);
    }
    if let Some(pids) = container.pids {
        let most = container
            .pids_limit
            .map_or_else(String::new, |most| format!(" of {most}"));
        say(1, "pids", format!("{pids}{most}"), Level::Plain);
    }
    if let Some(io) = &container.block_io {
        let (read, written) = (io.read_bytes as f64, io.write_bytes as f64);
        let text = format!("r {} w {}", text::bytes(read), text::bytes(written));
        say(1, "block i/o", text, Level::Plain);
    }

    let traffic = container
        .network
        .values()
        .fold((0_u64, 0_u64), |(received, sent), interface| {
            (
                received.saturating_add(interface.rx_bytes),
                sent.saturating_add(interface.tx_bytes),
            )
        });
    let text = format!(
        "↓ {} ↑ {}",
        text::bytes(traffic.0 as f64),
        text::bytes(traffic.1 as f64)
    );
    match &container.network_of {
        Some(other) => say(2, "network of", other.clone(), Level::Plain),
        None => say(2, "network", text, Level::Plain),
    }
    for (name, text) in snapshot.map_or_else(Vec::new, |snapshot| about_disks(snapshot, container))
    {
        say(2, name, text, Level::Plain);
    }
    if let Some(compose) = &container.compose {
        let service = compose.service.as_deref().unwrap_or("-");
        say(
            2,
            "compose",
            format!("{}/{service}", compose.project),
            Level::Plain,
        );
    }
    for (name, value) in &container.labels {
        say(2, "label", format!("{name}={value}"), Level::Dim);
    }
    details.finish()
}

/// Draws the newest lines of the log, or the lines to which the user has moved.
fn log(log: Option<&Log>, view: &mut LogView, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let (all, dropped) = log.map_or((0, 0), |log| (log.lines.len(), log.dropped));
    let mut title = format!(" Log {all} lines ");
    if dropped > 0 {
        title += &format!("· {dropped} dropped ");
    }
    let block = table::boxed(title, true, theme);
    let following = match view.bottom {
        None => Line::styled(" following ", theme.of(Level::Good)),
        Some(_) => Line::styled(" press f to follow ", theme.of(Level::Warn)),
    };
    let block = block.title(following.right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    view.height = inner.height.into();
    let Some(log) = log else { return };
    let end = log.first + log.lines.len() as u64;
    let bottom = view
        .bottom
        // The lines to which the user has moved can have been removed. The view then shows the oldest stored lines.
        .map_or(end, |bottom| {
            (bottom + 1).clamp((log.first + view.height).min(end), end)
        });
    let top = bottom.saturating_sub(view.height).max(log.first);
    let wanted = view.search.to_lowercase();
    let lines = log
        .lines
        .iter()
        .skip(usize::try_from(top - log.first).unwrap_or(usize::MAX))
        .take(usize::try_from(bottom - top).unwrap_or_default())
        .map(|line| marked(line, &wanted, theme));
    let lines = Paragraph::new(lines.collect::<Vec<_>>());
    frame.render_widget(lines.scroll((0, view.left)), inner);
}

/// Returns a log line. The time is dim, and matches of the search text are marked.
fn marked<'l>(line: &'l str, wanted: &str, theme: Theme) -> Line<'l> {
    let (time, text) = match line.split_once(' ') {
        Some((time, text)) if time.ends_with('Z') && time.contains('T') => (time, text),
        _ => ("", line),
    };
    let mut spans = Vec::new();
    if !time.is_empty() {
        // Milliseconds are enough, and more digits take room. The `Z` says that the time is UTC.
        let end = time.len() - 1;
        let time = time.get(..end.min(23)).unwrap_or_default();
        spans.push(Span::styled(format!("{time}Z "), theme.dim()));
    }
    let lower = text.to_lowercase();
    // Some letters have another length in lower case. The places of matches in `lower` would be wrong in `text`, so no match is
    // marked.
    if wanted.is_empty() || lower.len() != text.len() {
        spans.push(Span::raw(text));
        return Line::from(spans);
    }
    let mut from = 0;
    for (at, found) in lower.match_indices(wanted) {
        if let (Some(before), Some(here)) = (text.get(from..at), text.get(at..at + found.len())) {
            spans.push(Span::raw(before));
            spans.push(Span::styled(here, theme.found()));
            from = at + found.len();
        }
    }
    spans.push(Span::raw(text.get(from..).unwrap_or_default()));
    Line::from(spans)
}
