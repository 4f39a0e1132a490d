//! Reads the kernel's counters of virtual memory.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family: the fields that node_exporter publishes by default. Source: `/proc/vmstat`.
pub(super) struct Vmstat(pub(super) Roots);

impl Family for Vmstat {
    fn name(&self) -> &'static str {
        "vmstat"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("vmstat");
        let text = read_file(&path)?;
        let row = rows.add([]);
        for line in text.lines().filter(|line| is_published(line)) {
            let (name, number) = line
                .split_once(' ')
                .and_then(|(name, number)| Some((name, number.trim().parse().ok()?)))
                .ok_or_else(|| FamilyError::parse(&path))?;
            row.figure(name.to_owned(), number);
        }
        Ok(())
    }
}

/// Whether the line of a counter is published: paging, swapping, page faults, and kills because of too little memory.
fn is_published(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    let is_fault = name.starts_with("pg") && name.contains("fault");
    is_fault
        || ["oom_kill", "pgpg", "pswp"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Vmstat};

    #[test]
    fn the_fields_are_those_that_node_exporter_publishes() {
        let folder = TempDir::new().unwrap();
        let text = "nr_free_pages 5\npgpgin 7\npswpout 8\npgfault 1\npgmajfault 2\npgalloc_dma 3\noom_kill 4\n";
        write_files(folder.path(), &[("vmstat", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        assert_eq!(
            lines_of(&mut Vmstat(roots)),
            [
                "pgpgin 7",
                "pswpout 8",
                "pgfault 1",
                "pgmajfault 2",
                "oom_kill 4"
            ]
        );
    }
}
