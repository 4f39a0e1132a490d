//! Draws the view of one host: figures over time, a summary, and lists of containers, processes, disks, interfaces and events.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::graph::Graph;
use super::{Theme, columns, header, height_of_header, table};
use crate::model::Snapshot;
use crate::watch::columns::Pane;
use crate::watch::history::History;
use crate::watch::host::{Host, memory_percent};
use crate::watch::screen::Screen;
use crate::watch::share::share;
use crate::watch::text::{self, Level};

/// Minimum width of the text of one core, which has the core's number, bars and a figure.
const MIN_CORE_WIDTH: u16 = 12;
/// Maximum width of the text of one core.
const MAX_CORE_WIDTH: u16 = 26;
/// Width of the text of one core without the bars.
const BESIDE_BARS: usize = 10;
/// Minimum height of a view with two lists, in lines.
const TALL: u16 = 38;

pub(super) fn draw(
    screen: &mut Screen,
    number: usize,
    frame: &mut Frame<'_>,
    area: Rect,
    now: Instant,
) {
    let theme = screen.theme;
    screen.panes.iter_mut().for_each(|pane| pane.hide());
    let Some(host) = screen.hosts.get(&number) else {
        return;
    };
    let graphs = if area.height >= TALL { 8 } else { 5 };
    let [head, middle, more, body] = Layout::vertical([
        Constraint::Length(height_of_header(screen, host, now)),
        Constraint::Length(graphs),
        Constraint::Length(2),
        Constraint::Min(3),
    ])
    .areas(area);
    header(screen, host, "", frame, head, now);
    over_time(host, theme, frame, middle);
    if let Some(snapshot) = &host.snapshot {
        let lines = summary(snapshot, theme);
        frame.render_widget(Paragraph::new(lines), more);
    }
    let beside = match screen.pane {
        Pane::Containers => Pane::Processes,
        _ => Pane::Containers,
    };
    if area.height >= TALL {
        let halves = [Constraint::Fill(3), Constraint::Fill(2)];
        let [upper, lower] = Layout::vertical(halves).areas(body);
        let (first, second) = match screen.pane {
            Pane::Containers => (screen.pane, beside),
            _ => (beside, screen.pane),
        };
        pane(screen, first, number, frame, upper);
        pane(screen, second, number, frame, lower);
    } else {
        pane(screen, screen.pane, number, frame, body);
    }
}

/// Draws graphs of CPU and memory, and on a wide screen also of network and disks.
fn over_time(host: &Host, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let system = host.snapshot.as_ref().map(|snapshot| &snapshot.system);
    let (cpu, memory) = system.map_or((0.0, String::new()), |system| {
        let (used, total) = (
            text::mib(system.memory_used),
            text::mib(system.memory_total),
        );
        (system.cpu_percent[0], format!("{used} of {total}"))
    });
    let share = system.map_or(0.0, |system| memory_percent(system));
    let last = |history: &History| history.newest(1).next().unwrap_or_default();
    let pair = |of: &str, one: (&str, &History), other: (&str, &History)| {
        let (one, other) = ((one.0, last(one.1)), (other.0, last(other.1)));
        format!(
            " {of} {} {}/s {} {}/s ",
            one.0,
            text::bytes(one.1),
            other.0,
            text::bytes(other.1)
        )
    };
    let quarters = Layout::horizontal([Constraint::Fill(1); 4]).split(area);
    let wide = area.width >= 120;
    let halves = Layout::horizontal([Constraint::Fill(1); 2]).split(area);
    let places = if wide { &quarters[..] } else { &halves[..] };
    processors(host, cpu, theme, frame, places[0]);
    let title = format!(" Memory {share:.1} % · {memory} ");
    let level = theme.of(Level::of_share(share).max(Level::Good));
    graph(frame, places[1], title, &host.memory, 100.0, level, theme);
    if wide {
        let title = pair("Network", ("↓", &host.received), ("↑", &host.sent));
        two(frame, places[2], title, &host.received, &host.sent, theme);
        let title = pair("Disks", ("r", &host.read), ("w", &host.written));
        two(frame, places[3], title, &host.read, &host.written, theme);
    }
}

/// Draws a graph of all cores together, and bars for each core if there is room.
fn processors(host: &Host, percent: f64, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let block = table::boxed(format!(" CPU {percent:.1} % "), false, theme);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let rows = usize::from(inner.height.max(1));
    let columns = u16::try_from(host.cores.len().div_ceil(rows)).unwrap_or(u16::MAX);
    // The graph of all cores together gets at least a quarter of the width.
    let width = (inner.width / 4 * 3 / columns.max(1)).min(MAX_CORE_WIDTH);
    let cores = match width >= MIN_CORE_WIDTH {
        true => &host.cores[..],
        false => &[],
    };
    let taken = if cores.is_empty() { 0 } else { width * columns };
    let [together, each] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(taken)]).areas(inner);
    let graph = Graph {
        history: &host.cpu,
        highest: 100.0,
        style: theme.of(Level::of_share(percent).max(Level::Good)),
    };
    frame.render_widget(graph, together);
    for (core, history) in cores.iter().enumerate() {
        let now = history.newest(1).next().unwrap_or_default();
        let place = Rect {
            x: each.x + (core / rows) as u16 * width,
            y: each.y + (core % rows) as u16,
            width,
            height: 1,
        };
        let room = usize::from(width) - BESIDE_BARS;
        let bars = text::bars(history.newest(room), 100.0);
        let style = theme.of(Level::of_share(now).max(Level::Good));
        let line = Line::from(vec![
            Span::styled(format!(" {core:>3} "), theme.dim()),
            Span::styled(format!("{bars:>room$}"), style),
            Span::raw(format!("{now:>4.0}%")),
        ]);
        frame.render_widget(Paragraph::new(line), place);
    }
}

/// Draws two graphs, one above the other, with the same scale.
fn two(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    one: &History,
    other: &History,
    theme: Theme,
) {
    let block = table::boxed(title, false, theme);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let count = usize::from(inner.width) * 2;
    let highest = one.highest(count).max(other.highest(count)).max(1.0);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1); 2]).areas(inner);
    for (history, area, style) in [
        (one, upper, theme.of(Level::Good)),
        (other, lower, theme.accent()),
    ] {
        let graph = Graph {
            history,
            highest,
            style,
        };
        frame.render_widget(graph, area);
    }
}

/// Draws a graph in a box.
pub(super) fn graph(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    history: &History,
    highest: f64,
    style: ratatui::style::Style,
    theme: Theme,
) {
    let block = table::boxed(title, false, theme);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let graph = Graph {
        history,
        highest,
        style,
    };
    frame.render_widget(graph, inner);
}

/// Returns two lines of figures. The first line has cores, load, sources, processes, and the clock if it is not synchronized. The second line has the root file system,
/// swap, network, disks, CPU times, the highest temperature and GPUs.
fn summary(snapshot: &Snapshot, theme: Theme) -> Vec<Line<'static>> {
    let system = &snapshot.system;
    let mut first = vec![
        Span::styled("cores ", theme.dim()),
        Span::raw(text::bars(system.cpu_cores.iter().copied(), 100.0)),
    ];
    let label = |line: &mut Vec<Span<'static>>, name: &'static str, value: String, level| {
        line.push(Span::styled(format!("  {name} "), theme.dim()));
        line.push(Span::styled(value, theme.of(level)));
    };
    let load = &system.load_avg;
    let loads = format!("{:.2} {:.2} {:.2}", load.one, load.five, load.fifteen);
    label(&mut first, "load", loads, Level::Plain);
    first.push(Span::styled("  sources", theme.dim()));
    for (name, level) in columns::sources(snapshot) {
        first.push(Span::styled(format!(" {name}"), theme.of(level)));
    }
    if let Some(processes) = &system.processes {
        let text = format!("{} ({} threads)", processes.total, processes.threads);
        label(&mut first, "processes", text, Level::Plain);
    }
    if system.clock.is_some_and(|clock| !clock.synchronized) {
        let text = "not synchronized".to_owned();
        label(&mut first, "clock", text, Level::Warn);
    }

    let used = share(system.disk_used, system.disk_total);
    let mut second = vec![Span::styled("disk / ", theme.dim())];
    second.push(Span::styled(
        format!("{used:.0} % of {}", text::gib(system.disk_total)),
        theme.of(Level::of_share(used)),
    ));
    if let (Some(used), Some(total)) = (system.swap_used, system.swap_total) {
        let level = Level::of_share(share(used, total));
        let swap = format!("{} of {}", text::mib(used), text::mib(total));
        label(&mut second, "swap", swap, level);
    }
    let (received, sent) = crate::watch::share::traffic(system);
    let net = format!("↓ {}/s ↑ {}/s", text::bytes(received), text::bytes(sent));
    label(&mut second, "net", net, Level::Plain);
    let (read, written) = crate::watch::share::disk_traffic(system);
    let io = format!("r {}/s w {}/s", text::bytes(read), text::bytes(written));
    label(&mut second, "io", io, Level::Plain);
    if let Some(times) = &system.cpu_times {
        let text = format!("{:.1} % iowait {:.1} % steal", times.iowait, times.steal);
        label(&mut second, "cpu", text, Level::Plain);
    }
    let hottest = system
        .temperatures
        .iter()
        .max_by(|one, other| one.celsius.total_cmp(&other.celsius));
    if let Some(hottest) = hottest {
        let level = match hottest.critical {
            Some(critical) if hottest.celsius >= critical => Level::Bad,
            _ => Level::Plain,
        };
        label(
            &mut second,
            "hottest",
            format!("{:.0} °C", hottest.celsius),
            level,
        );
    }
    for gpu in system.gpus.iter().flatten() {
        let idle = Level::of_share(0.0);
        let (text, level) = match (gpu.busy_percent, gpu.frequency_mhz) {
            (Some(busy), _) => (format!("{busy:.0} %"), Level::of_share(busy)),
            _ if gpu.asleep == Some(true) => ("asleep".to_owned(), idle),
            (None, Some(mhz)) => (format!("{mhz:.0} MHz"), idle),
            (None, None) => ("-".to_owned(), idle),
        };
        label(&mut second, "gpu", text, level);
    }
    vec![Line::from(first), Line::from(second)]
}

/// Draws one list of a host.
fn pane(screen: &mut Screen, pane: Pane, number: usize, frame: &mut Frame<'_>, area: Rect) {
    let theme = screen.theme;
    let focused = pane == screen.pane;
    let rows = screen
        .hosts
        .get(&number)
        .map_or_else(Vec::new, |host| columns::rows_of_pane(pane, host));
    let all = rows.len();
    let block = table::boxed(String::new(), focused, theme);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let listing = &mut screen.panes[pane as usize];
    let heads = columns::of_pane(pane);
    let shown = table::draw(listing, heads, rows, focused, theme, frame, inner);

    let mut title = vec![Span::raw(" ")];
    // The list with the focus shows the titles of all lists, so that the user sees which list Tab opens next.
    let titles: &[Pane] = if focused { &Pane::ALL } else { &[pane] };
    for one in titles {
        let (style, count) = match (*one == pane, shown == all) {
            (false, _) => (theme.dim(), String::new()),
            (true, true) => (theme.title(), format!("{all} ")),
            (true, false) => (theme.title(), format!("{shown} of {all} ")),
        };
        title.push(Span::styled(format!("{} {count}", one.title()), style));
    }
    let top = Rect {
        x: area.x + 2,
        width: area.width.saturating_sub(4),
        height: 1,
        ..area
    };
    frame
        .buffer_mut()
        .set_line(top.x, top.y, &Line::from(title), top.width);
}
