//! Reads `/proc/interrupts` and `/proc/softirqs`. Both files have a column for each CPU. They are long on a host with many CPUs and devices,
//! so the families are off by default.

use super::family::{Family, FamilyError, Roots, Rows};
use super::lines::each_line;

/// The family of interrupts by kind and CPU. Source: `/proc/interrupts`.
pub(super) struct Interrupts(pub(super) Roots);

impl Family for Interrupts {
    fn name(&self) -> &'static str {
        "interrupts"
    }

    fn is_off_by_default(&self) -> bool {
        true
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let mut table = Table::default();
        let path = self.0.proc.join("interrupts");
        each_line(&path, |line| {
            let Some((kind, counts, rest)) = table.line(line)? else {
                return Some(());
            };
            // Lines without a description, such as ERR, do not have a count for each CPU.
            let Some(first) = rest.first().filter(|_| counts.len() == table.cpus.len()) else {
                return Some(());
            };
            let has_number = kind.bytes().all(|byte| byte.is_ascii_digit());
            let (info, devices) = match has_number {
                true => ((*first).to_owned(), rest[1..].join(" ")),
                false => (rest.join(" "), String::new()),
            };
            for (cpu, count) in table.cpus.iter().zip(counts) {
                let labels = [
                    ("cpu", cpu.as_str()),
                    ("type", kind),
                    ("info", &info),
                    ("devices", &devices),
                ];
                rows.add(labels).figure("interrupts", count);
            }
            Some(())
        })
    }
}

/// The family of software interrupts by kind and CPU. Source: `/proc/softirqs`.
pub(super) struct Softirqs(pub(super) Roots);

impl Family for Softirqs {
    fn name(&self) -> &'static str {
        "softirqs"
    }

    fn is_off_by_default(&self) -> bool {
        true
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let mut table = Table::default();
        let path = self.0.proc.join("softirqs");
        each_line(&path, |line| {
            if let Some((kind, counts, _)) = table.line(line)? {
                for (cpu, count) in table.cpus.iter().zip(counts) {
                    rows.add([("cpu", cpu.as_str()), ("type", kind)])
                        .figure("functions", count);
                }
            }
            Some(())
        })
    }
}

/// A table with a column for each CPU.
#[derive(Default)]
struct Table {
    /// The numbers of the CPUs, in the order of the columns. The first line has them. The files do not have the CPUs that are switched off.
    cpus: Vec<String>,
}

/// The name of a line, its counts by CPU, and the words after the counts.
type Line<'l> = (&'l str, Vec<f64>, Vec<&'l str>);

impl Table {
    /// Parses a line. Returns `Some(None)` for the first line, and none for an invalid line.
    fn line<'l>(&mut self, line: &'l str) -> Option<Option<Line<'l>>> {
        if self.cpus.is_empty() {
            let columns = line.split_ascii_whitespace();
            let numbers = columns.map(|column| column.strip_prefix("CPU").map(str::to_owned));
            self.cpus = numbers.collect::<Option<_>>()?;
            return (!self.cpus.is_empty()).then_some(None);
        }
        let (name, values) = line.split_once(':')?;
        let mut words = values.split_ascii_whitespace().peekable();
        let mut counts = Vec::with_capacity(self.cpus.len());
        while counts.len() < self.cpus.len()
            && let Some(count) = words.peek().and_then(|word| word.parse::<u64>().ok())
        {
            counts.push(count as f64);
            words.next();
        }
        Some(Some((name.trim_ascii(), counts, words.collect())))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::super::family::{Family, read};
    use super::{Interrupts, Roots, Softirqs};
    use crate::model::KernelStatus;

    fn roots(folder: &TempDir) -> Roots {
        Roots {
            proc: folder.path().into(),
            ..Roots::default()
        }
    }

    #[test]
    fn interrupts_are_counted_by_kind_and_cpu() {
        let folder = TempDir::new().unwrap();
        // CPU 1 is switched off. Some kernels write no space before a large count.
        let text = "\
           CPU0       CPU2
  0:         18          0  IR-IO-APIC-edge      timer
 16:     328511     322879  IR-IO-APIC-fasteoi   ehci_hcd:usb1, mmc0
 24:4000000000          1  GICv3
LOC:  174326351  135776678   Local timer interrupts
ERR:          7
MIS:          0
";
        write_files(folder.path(), &[("interrupts", text)]);
        let expected = [
            "cpu=0 type=0 info=IR-IO-APIC-edge devices=timer interrupts 18",
            "cpu=2 type=0 info=IR-IO-APIC-edge devices=timer interrupts 0",
            "cpu=0 type=16 info=IR-IO-APIC-fasteoi devices=ehci_hcd:usb1, mmc0 interrupts 328511",
            "cpu=2 type=16 info=IR-IO-APIC-fasteoi devices=ehci_hcd:usb1, mmc0 interrupts 322879",
            "cpu=0 type=24 info=GICv3 devices= interrupts 4000000000",
            "cpu=2 type=24 info=GICv3 devices= interrupts 1",
            "cpu=0 type=LOC info=Local timer interrupts devices= interrupts 174326351",
            "cpu=2 type=LOC info=Local timer interrupts devices= interrupts 135776678",
        ];
        assert_eq!(lines_of(&mut Interrupts(roots(&folder))), expected);
    }

    #[test]
    fn software_interrupts_are_counted_by_kind_and_cpu() {
        let folder = TempDir::new().unwrap();
        let text = "                    CPU0       CPU1
          HI:          7          1
      NET_TX:       2301       2430
";
        write_files(folder.path(), &[("softirqs", text)]);
        let expected = [
            "cpu=0 type=HI functions 7",
            "cpu=1 type=HI functions 1",
            "cpu=0 type=NET_TX functions 2301",
            "cpu=1 type=NET_TX functions 2430",
        ];
        assert_eq!(lines_of(&mut Softirqs(roots(&folder))), expected);
    }

    #[test]
    fn a_file_without_cpus_is_invalid() {
        let folder = TempDir::new().unwrap();
        let text = "HI: 7 1\n";
        write_files(folder.path(), &[("softirqs", text), ("interrupts", text)]);
        let (mut interrupts, mut softirqs) = (Interrupts(roots(&folder)), Softirqs(roots(&folder)));
        for family in [&mut interrupts as &mut dyn Family, &mut softirqs] {
            let status = read(family, false).status;
            assert!(matches!(status, KernelStatus::Failed(_)), "{status:?}");
        }
    }
}
