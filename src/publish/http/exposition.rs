//! Writes the figures of a snapshot, and the kernel's own figures, as text for Prometheus.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::format::Format;
use super::on_request::ReadFigures;
use super::textfile;
use crate::model::{KernelStatus, Snapshot};
use crate::publish::figures::collectors::{Choice, TEXTFILE, collector_of};
use crate::publish::figures::kernel::{self, KernelSamples};
use crate::publish::figures::{self, FigureFamily, FigureSource, MetricKind};

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

/// Writes the figures. `room` is the expected length of the text in bytes.
///
/// # Errors
/// Fails if an encoder fails. This is not expected, because the encoders write to memory.
pub(super) fn write(figures: Figures, format: Format, room: usize) -> Result<String, fmt::Error> {
    let textfiles = figures.read.textfiles.clone();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut written = String::with_capacity(room);
    match format {
        Format::Classic => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    let mut written = without_repeats(written);
    if let Some(textfiles) = textfiles {
        let end = written.strip_suffix(END).map(str::len);
        written.truncate(end.unwrap_or(written.len()));
        textfile::write(&textfiles, format, &mut written)?;
        written.push_str(end.map_or("", |_| END));
    }
    Ok(written)
}

/// The end of a text in the format of OpenMetrics.
const END: &str = "# EOF\n";

/// Removes repeated series. The first of several equal series stays.
///
/// Different names in a snapshot can become the same label. Prometheus refuses the whole text if a series occurs twice.
fn without_repeats(text: String) -> String {
    let mut known = HashSet::new();
    let mut repeats = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') {
            // This line begins a family. A series belongs to only one family, so compare only the series of one family.
            known.clear();
        } else if !known.insert(line.rsplit_once(' ').map_or(line, |(series, _)| series)) {
            repeats.push(start..start + line.len());
        }
        start += line.len();
    }
    let mut text = text;
    for repeat in repeats.into_iter().rev() {
        text.replace_range(repeat, "");
    }
    text
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let source = FigureSource {
            snapshot: &self.snapshot,
            kernel: self.read.kernel.as_deref(),
            interval: self.interval,
        };
        let kernel = &self.read.kernel;
        let (of_kernel, replaced) = kernel.as_deref().map(kernel::metrics).unwrap_or_default();
        let is_wanted = |family: &&FigureFamily| {
            !replaced.contains(family.name) && self.choice.has(collector_of(family.name))
        };
        figures::families()
            .filter(is_wanted)
            .try_for_each(|family| write_family(&mut encoder, family, &source))?;
        of_kernel
            .iter()
            .try_for_each(|metric| write_kernel_metric(&mut encoder, metric))?;
        write_readings(&mut encoder, &self.read)
    }
}

/// Writes a metric of the kernel's own figures, and its samples.
fn write_kernel_metric(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &KernelSamples<'_>,
) -> fmt::Result {
    let kind = metric_type(metric.kind);
    let mut encoded = encoder.encode_descriptor(&metric.name, &metric.help, None, kind)?;
    for (row, value) in &metric.samples {
        let labels: Vec<(&str, &str)> = row
            .labels
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let labels = Labels(&labels);
        encode_value(encoded.encode_family(&labels)?, metric.kind, *value)?;
    }
    Ok(())
}

/// Writes which collectors could read their figures for this scrape, and how long it took.
fn write_readings(encoder: &mut DescriptorEncoder<'_>, read: &ReadFigures) -> fmt::Result {
    let success = |status: &KernelStatus| match status {
        KernelStatus::Read => 1.0,
        KernelStatus::Absent | KernelStatus::Failed(_) => 0.0,
    };
    let families = read.kernel.iter().flat_map(|kernel| &kernel.families);
    // As with node_exporter, a file that cannot be read is no failure of the collector.
    let textfiles = read.textfiles.iter();
    let duration = families
        .clone()
        .map(|one| (one.name, one.duration.as_secs_f64()))
        .chain(
            textfiles
                .clone()
                .map(|one| (TEXTFILE, one.duration.as_secs_f64())),
        );
    let success = families
        .map(|one| (one.name, success(&one.status)))
        .chain(textfiles.map(|_| (TEXTFILE, 1.0)));
    if read.kernel.is_none() && read.textfiles.is_none() {
        return Ok(());
    }
    for (name, help, values) in [
        (
            "node_scrape_collector_duration_seconds",
            "How long the figures of a collector were read, in seconds",
            duration.collect::<Vec<_>>(),
        ),
        (
            "node_scrape_collector_success",
            "Whether the figures of a collector could be read. Also 0 if the host does not have them",
            success.collect(),
        ),
    ] {
        let mut encoded = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (collector, value) in values {
            let labels = [("collector", collector)];
            encode_value(
                encoded.encode_family(&Labels(&labels))?,
                MetricKind::Gauge,
                value,
            )?;
        }
    }
    Ok(())
}

fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Unknown => MetricType::Unknown,
    }
}

fn encode_value(mut sample: MetricEncoder<'_>, kind: MetricKind, value: f64) -> fmt::Result {
    match kind {
        // The library has no function for an unknown kind. A gauge also has no suffix.
        MetricKind::Gauge | MetricKind::Unknown => sample.encode_gauge(&value),
        MetricKind::Counter => sample.encode_counter::<NoLabelSet, _, f64>(&value, None),
    }
}

/// Writes a family and its samples. Writes nothing if the family has no samples.
fn write_family(
    encoder: &mut DescriptorEncoder<'_>,
    family: &FigureFamily,
    source: &FigureSource<'_>,
) -> fmt::Result {
    let mut is_empty = true;
    family.samples(source, &mut |_, _| is_empty = false);
    if is_empty {
        return Ok(());
    }
    let kind = metric_type(family.kind);
    let mut encoded = encoder.encode_descriptor(family.name, family.help, None, kind)?;
    let mut written = Ok(());
    family.samples(source, &mut |labels, value| {
        written = written.and_then(|()| {
            let labels = Labels(labels);
            encode_value(encoded.encode_family(&labels)?, family.kind, value)
        });
    });
    written
}

/// The labels of a sample. Each label is a name and a value.
struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut labels = self.0.iter();
        labels.try_for_each(|label| label.encode(encoder.encode_label()))
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
        odd.id = "aaaaaaaaaaaa".to_owned();
        odd.group = Arc::new(ControlGroup {
            path: "/docker/aaaaaaaaaaaa".to_owned(),
            directories: None,
        });
        odd.name = "/\"odd\\name\n".to_owned();
        odd.labels = BTreeMap::from([("a.b", "1"), ("a_b", "2"), ("é", "3")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        containers.push(odd);
        let meta: &mut Vec<Arc<ContainerMeta>> = Arc::make_mut(&mut snapshot.docker_meta);
        let mut restarting = ContainerMeta::clone(&meta[0]);
        restarting.id = "bbbbbbbbbbbb".to_owned();
        restarting.state = "restarting".to_owned();
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
        write(figures, format, 0).unwrap()
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
                },
                choice: Choice::Only(vec!["textfile".to_owned()]),
            };
            let text = write(figures, format, 0).unwrap();
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
