//! Writes the figures of a snapshot, and the kernel's own figures, as text for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use super::format::Format;
use super::metric_text::MetricText;
use super::textfile;
use crate::model::{KernelStatus, Snapshot};
use crate::publish::figures::collectors::{Choice, TEXTFILE, collector_of};
use crate::publish::figures::{self, FigureFamily, FigureSource, MetricKind, kernel};
use crate::publish::on_request::ReadFigures;

/// The figures to write.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) snapshot: Arc<Snapshot>,
    /// The time between two snapshots.
    pub(super) interval: Duration,
    /// The figures that were read for the scrape.
    pub(super) read: ReadFigures,
    /// The collectors that the scraper wants.
    pub(super) choice: Choice,
}

/// Writes the figures.
pub(super) fn write(figures: &Figures, format: Format) -> String {
    let Figures { read, choice, .. } = figures;
    let source = FigureSource {
        snapshot: &figures.snapshot,
        kernel: read.kernel.as_deref(),
        ended: &read.ended,
        interval: figures.interval,
    };
    let of_kernel = read.kernel.as_deref();
    let of_kernel = of_kernel.map(|it| kernel::metrics(it, |name| choice.has(name)));
    let (of_kernel, replaced) = of_kernel.unwrap_or_default();
    let is_wanted = |family: &&FigureFamily| {
        !replaced.contains(family.name) && choice.has(collector_of(family.name))
    };
    let mut text = MetricText::new(format);
    for family in figures::families().filter(is_wanted) {
        let mut family_text = FamilyText::new(&mut text, family.name, family.kind, family.help);
        family.samples(&source, &mut |labels, value| {
            family_text.sample(labels.iter().copied(), value);
        });
    }
    for metric in &of_kernel {
        let mut family_text = FamilyText::new(&mut text, &metric.name, metric.kind, &metric.help);
        for (row, value) in &metric.samples {
            let labels = row.labels.iter().map(|(name, value)| (*name, &**value));
            family_text.sample(labels, *value);
        }
    }
    write_readings(&mut text, read, choice);
    text.remove_repeats();
    if let Some(textfiles) = &read.textfiles {
        textfile::write(textfiles, &mut text);
    }
    text.end()
}

/// A family of the agent's own metrics in a text. A family without samples is not in the text.
struct FamilyText<'t> {
    text: &'t mut MetricText,
    name: &'t str,
    kind: MetricKind,
    help: &'t str,
    has_head: bool,
    number: dtoa::Buffer,
}

impl<'t> FamilyText<'t> {
    fn new(text: &'t mut MetricText, name: &'t str, kind: MetricKind, help: &'t str) -> Self {
        Self {
            text,
            name,
            kind,
            help,
            has_head: false,
            number: dtoa::Buffer::new(),
        }
    }

    /// Writes a sample. Each label is a name and a value.
    fn sample<'l>(&mut self, labels: impl Iterator<Item = (&'l str, &'l str)>, value: f64) {
        let suffix = match self.kind {
            MetricKind::Counter => "_total",
            MetricKind::Gauge | MetricKind::Unknown => "",
        };
        if !self.has_head {
            self.has_head = true;
            let (suffix, kind) = match (self.text.format(), self.kind) {
                (Format::Classic, MetricKind::Counter) => (suffix, "counter"),
                // In OpenMetrics, the samples of a counter have the suffix `_total`, and the family has not.
                (Format::OpenMetrics, MetricKind::Counter) => ("", "counter"),
                (_, MetricKind::Gauge) => ("", "gauge"),
                (Format::Classic, MetricKind::Unknown) => ("", "untyped"),
                (Format::OpenMetrics, MetricKind::Unknown) => ("", "unknown"),
            };
            self.text.head((self.name, suffix), kind, self.help);
        }
        let value = match value {
            value if value.is_nan() => "NaN",
            f64::INFINITY => "+Inf",
            f64::NEG_INFINITY => "-Inf",
            value => self.number.format_finite(value),
        };
        self.text.sample((self.name, suffix), labels, value);
    }
}

/// Writes which of the chosen collectors could read their figures for this scrape, and how long it took.
fn write_readings(text: &mut MetricText, read: &ReadFigures, choice: &Choice) {
    let families = read.kernel.iter().flat_map(|kernel| &kernel.families);
    let readings = families
        .filter(|family| choice.has(family.name))
        .map(|family| {
            let is_read = family.status == KernelStatus::Read;
            (family.name, family.duration, is_read)
        });
    // As with node_exporter, a file that cannot be read is no failure of the collector.
    let textfiles = read.textfiles.iter();
    let textfiles = textfiles.map(|files| (TEXTFILE, files.duration, true));
    let readings: Vec<_> = readings.chain(textfiles).collect();
    let gauge = MetricKind::Gauge;
    let mut durations = FamilyText::new(
        text,
        "node_scrape_collector_duration_seconds",
        gauge,
        "How long the figures of a collector were read, in seconds",
    );
    for (collector, duration, _) in &readings {
        durations.sample(
            [("collector", *collector)].into_iter(),
            duration.as_secs_f64(),
        );
    }
    let mut successes = FamilyText::new(
        text,
        "node_scrape_collector_success",
        gauge,
        "Whether the figures of a collector could be read. Also 0 if the host does not have them",
    );
    for (collector, _, is_read) in &readings {
        let value = f64::from(u8::from(*is_read));
        successes.sample([("collector", *collector)].into_iter(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Choice, Figures, Format, ReadFigures, write};
    use crate::model::{
        Container, ContainerMeta, ControlGroup, Disk, DiskIo, FailedUnit, Gpu, NetworkInterface,
        SensorChip, SensorLabel, Sensors, Snapshot, Space, SystemMetrics, Temperature,
    };

    /// Returns a snapshot in which different sensors and labels have similar names.
    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::recorded();
        let sensor = |chip: &str| Temperature {
            device: "nvme".to_owned(),
            sensor: "Composite".to_owned(),
            chip: chip.to_owned(),
            input: "temp1".to_owned(),
            celsius: 40.0,
            critical: Some(80.0),
            exact: 40.01,
        };
        let system: &mut SystemMetrics = Arc::make_mut(&mut snapshot.system);
        system.temperatures = ["nvme_nvme0", "nvme_nvme1"].map(sensor).into();
        let chips = ["nvme_nvme0", "nvme_nvme1"].map(|chip| SensorChip {
            chip: chip.to_owned(),
            device: "nvme".to_owned(),
        });
        system.exact.sensors = Arc::new(Sensors {
            chips: chips.into(),
            labels: Vec::new(),
        });
        let containers: &mut Vec<Container> = Arc::make_mut(&mut snapshot.containers);
        let mut odd = containers[0].clone();
        odd.id = "aaaaaaaaaaaa".into();
        odd.group = Arc::new(ControlGroup {
            path: "/docker/aaaaaaaaaaaa".to_owned(),
            directories: None,
        });
        odd.name = "/\"odd\\name\n".into();
        odd.labels = BTreeMap::from([("a.b", "1"), ("a_b", "2"), ("é", "3")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        containers.push(odd);
        let meta: &mut Vec<Arc<ContainerMeta>> = Arc::make_mut(&mut snapshot.docker_meta);
        let mut restarting = ContainerMeta::clone(&meta[0]);
        restarting.id = "bbbbbbbbbbbb".into();
        restarting.state = "restarting".into();
        meta.push(Arc::new(restarting));
        snapshot
    }

    fn written(snapshot: Snapshot, format: Format) -> String {
        let figures = Figures {
            snapshot: Arc::new(snapshot),
            interval: Duration::from_secs(5),
            read: ReadFigures::default(),
            choice: Choice::All,
        };
        write(&figures, format)
    }

    #[test]
    fn no_series_occurs_twice_and_each_series_follows_the_head_of_its_family() {
        for format in [Format::Classic, Format::OpenMetrics] {
            let text = written(snapshot(), format);
            let mut family = String::new();
            let mut seen = std::collections::BTreeSet::new();
            let mut families = std::collections::BTreeSet::new();
            for line in text.lines() {
                if let Some(kind) = line.strip_prefix("# TYPE ") {
                    family = kind.split(' ').next().unwrap().to_owned();
                    assert!(families.insert(family.clone()), "{family} occurs twice");
                } else if !line.starts_with('#') {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    assert!(
                        series.starts_with(&family),
                        "{series} is in family {family}"
                    );
                    assert!(seen.insert(series), "{series} occurs twice");
                    assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                }
            }
            assert!(seen.len() > 100, "{text}");
        }
    }

    /// Returns a snapshot in which every name from the host or from the engine occurs twice.
    fn repeated() -> Snapshot {
        fn twice<T: Clone>(list: &mut Vec<T>) {
            list.extend(list.clone());
        }
        let mut snapshot = snapshot();
        let system = Arc::make_mut(&mut snapshot.system);
        system
            .exact
            .cpu_seconds
            .push(crate::model::CpuSeconds::default());
        system.disks.push(Disk {
            exact: Some(Space::default()),
            ..Disk::default()
        });
        system.disk_io.push(DiskIo::default());
        system.network.push(NetworkInterface::default());
        system.gpus.as_mut().unwrap().push(Gpu::default());
        twice(system.gpus.as_mut().unwrap());
        let units = system.failed_units.as_mut().unwrap();
        units.push(FailedUnit::default());
        twice(units);
        let sensors = Arc::make_mut(&mut system.exact.sensors);
        sensors.labels.push(SensorLabel::default());
        twice(&mut sensors.labels);
        twice(&mut sensors.chips);
        twice(&mut system.exact.cpu_seconds);
        twice(&mut system.disks);
        twice(&mut system.disk_io);
        twice(&mut system.network);
        twice(&mut system.temperatures);
        twice(Arc::make_mut(&mut snapshot.containers));
        twice(Arc::make_mut(&mut snapshot.docker_meta));
        snapshot
    }

    #[test]
    fn repeated_names_in_a_snapshot_do_not_repeat_a_series() {
        for format in [Format::Classic, Format::OpenMetrics] {
            let once = written(snapshot(), format);
            let text = written(repeated(), format);
            let mut seen = std::collections::BTreeSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (series, _) = line.rsplit_once(' ').unwrap();
                assert!(seen.insert(series), "{series} occurs twice");
            }
            // The CPU time of the host is a sum over the cores.
            let is_sum =
                |line: &str| line.starts_with("container_cpu_") && line.contains("{id=\"/\"");
            // The number of failed units changes.
            let is_same = |line: &&str| !is_sum(line) && !line.starts_with("node_systemd_units{");
            for line in once.lines().filter(is_same) {
                assert!(text.lines().any(|one| one == line), "{line} is missing");
            }
        }
    }

    #[test]
    fn figures_of_other_programs_are_before_the_end() {
        for (format, end) in [
            (Format::Classic, "node_textfile_scrape_error 0\n"),
            (
                Format::OpenMetrics,
                "node_textfile_scrape_error 0.0\n# EOF\n",
            ),
        ] {
            let figures = Figures {
                snapshot: Arc::new(snapshot()),
                interval: Duration::from_secs(5),
                read: ReadFigures {
                    kernel: None,
                    textfiles: Some(Arc::default()),
                    ended: Arc::default(),
                },
                choice: Choice::Only(vec!["textfile".to_owned()]),
            };
            let text = write(&figures, format);
            assert!(text.ends_with(end), "{text}");
            assert_eq!(text.matches("# EOF").count(), end.matches("# EOF").count());
            let success = "node_scrape_collector_success{collector=\"textfile\"} 1.0";
            assert!(text.contains(success), "{text}");
        }
    }

    #[test]
    fn special_characters_are_escaped_and_the_first_of_two_equal_labels_is_used() {
        let text = written(snapshot(), Format::Classic);
        let info = text
            .lines()
            .filter(|line| line.starts_with("system_agent_container_info{"))
            .find(|line| line.contains("short_id=\"aaaaaaaaaaaa\""))
            .unwrap();
        assert!(info.contains(r#"name="\"odd\\name\n""#), "{info}");
        assert!(info.contains(r#"container_label_a_b="1""#), "{info}");
        assert!(!info.contains(r#""2""#), "{info}");
        assert!(info.contains(r#"container_label__="3""#), "{info}");
    }

    #[test]
    fn environment_variables_are_labels_with_the_names_of_cadvisor() {
        let mut snapshot = snapshot();
        let containers: &mut Vec<Container> = Arc::make_mut(&mut snapshot.containers);
        let env = [("APP_TIER", "web"), ("app.tier", "other"), ("Größe", "3")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        containers[0].env = Arc::new(env.into());
        let text = written(snapshot, Format::Classic);
        let rss = text
            .lines()
            .find(|line| {
                line.starts_with("container_memory_rss{") && line.contains("container_env_")
            })
            .unwrap();
        let labels = r#"container_env_app_tier="web",container_env_gr__e="3"} "#;
        assert!(rss.contains(labels), "{rss}");
        assert_eq!(rss.matches("container_env_").count(), 2, "{rss}");
    }

    #[test]
    fn the_writable_layer_has_its_own_limit_or_that_of_its_file_system() {
        let mut snapshot = snapshot();
        let system: &mut SystemMetrics = Arc::make_mut(&mut snapshot.system);
        let root = system.disks.iter().find(|disk| disk.mount == "/").unwrap();
        let (device, size) = (root.device.clone(), root.exact.unwrap().size);
        let containers: &mut Vec<Container> = Arc::make_mut(&mut snapshot.containers);
        containers.truncate(1);
        let lines = |snapshot: &Snapshot| -> Vec<String> {
            let text = written(snapshot.clone(), Format::Classic);
            let is_layer =
                |line: &&str| line.starts_with("container_fs_") && line.contains("/docker/");
            let layers = text
                .lines()
                .filter(is_layer)
                .filter(|line| line.contains("_bytes{"));
            let short = |line: &str| {
                let device = line.find("device=").unwrap();
                format!("{} {}", line.split('{').next().unwrap(), &line[device..])
            };
            layers.map(short).collect()
        };
        let usage =
            |device: &str| format!("container_fs_usage_bytes device=\"{device}\"}} 1048576.0");
        let limit = |device: &str, size: u64| {
            format!("container_fs_limit_bytes device=\"{device}\"}} {size}.0")
        };
        assert_eq!(lines(&snapshot), [limit(&device, size), usage(&device)]);

        let one = &mut Arc::make_mut(&mut snapshot.containers)[0];
        one.spec.as_mut().unwrap().storage = 10 << 30;
        assert_eq!(lines(&snapshot), [limit(&device, 10 << 30), usage(&device)]);

        // The place of the layer is not known.
        let one = &mut Arc::make_mut(&mut snapshot.containers)[0];
        one.spec.as_mut().unwrap().storage = 0;
        one.layer = None;
        assert_eq!(lines(&snapshot), [usage("")]);
    }

    #[test]
    fn a_restarting_container_has_a_state_but_no_figures() {
        let text = written(snapshot(), Format::Classic);
        let line = |state: &str| {
            let end = format!("state=\"{state}\"}} 1.0");
            text.lines().find(|line| {
                line.starts_with("system_agent_container_state{short_id=\"bbbbbbbbbbbb\"")
                    && line.ends_with(&end)
            })
        };
        assert!(line("restarting").is_some() && line("running").is_none());
    }

    /// Compares the text for a recorded snapshot with the recorded text. Families that are not in the recorded text are ignored.
    #[test]
    fn the_metrics_are_byte_for_byte_the_recorded_metrics() {
        for (file, format) in [
            ("wire/metrics.txt", Format::Classic),
            ("wire/openmetrics.txt", Format::OpenMetrics),
        ] {
            let family = |line: &str| {
                line.strip_prefix("# HELP ")
                    .map(|rest| rest.split(' ').next().unwrap().to_owned())
            };
            let recorded = crate::recorded::read(file);
            let known: Vec<_> = recorded.lines().filter_map(family).collect();
            let mut snapshot = snapshot();
            // The text was recorded before the agent read GPUs of other manufacturers.
            let system: &mut SystemMetrics = Arc::make_mut(&mut snapshot.system);
            let gpus = system.gpus.as_mut().unwrap();
            gpus.retain(|gpu| gpu.card.is_none());
            // It was also recorded before the agent read the sizes of containers.
            for one in Arc::make_mut(&mut snapshot.containers) {
                one.disk_used = None;
            }
            let now = written(snapshot, format);
            let mut is_known = true;
            let kept = now.split_inclusive('\n').filter(|line| {
                is_known = match family(line) {
                    Some(name) => known.contains(&name),
                    None => is_known || *line == "# EOF\n",
                };
                is_known
            });
            crate::recorded::compare(file, &kept.collect::<String>());
        }
    }

    #[test]
    fn a_gpu_with_a_card_is_named_by_its_card() {
        let text = written(snapshot(), Format::Classic);
        for line in [
            "system_agent_gpu_busy_ratio{gpu=\"0\",name=\"NVIDIA A100-SXM4-40GB\"} 0.37",
            "system_agent_gpu_busy_ratio{gpu=\"card1\",name=\"AMD GPU 1002:687f\"} 0.04",
            "node_drm_gpu_busy_percent{card=\"card1\"} 4.0",
            "node_drm_memory_vram_used_bytes{card=\"card1\"} 1490378752.0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
    }

    #[test]
    fn figures_that_were_never_read_are_absent() {
        let mut snapshot = snapshot();
        snapshot.sources.system.collected_at = None;
        snapshot.system = Arc::default();
        let text = written(snapshot, Format::Classic);
        assert!(!text.contains("node_"), "{text}");
        // If the agent does not know the host's memory, it cannot know whether a container has a memory limit.
        assert!(
            !text.contains("container_spec_memory_limit_bytes"),
            "{text}"
        );
        assert!(text.contains("system_agent_source_up{"), "{text}");
    }
}
