//! Reads what became of the packets and entries of connection tracking.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The columns that are published.
const FIGURES: [&str; 8] = [
    "found",
    "invalid",
    "ignore",
    "insert",
    "insert_failed",
    "drop",
    "early_drop",
    "search_restart",
];

/// The family. Source: `/proc/net/stat/nf_conntrack`, which has a line for each CPU. The number of entries and the limit are in the
/// snapshot.
pub(super) struct Conntrack(pub(super) Roots);

impl Family for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("net/stat/nf_conntrack");
        let text = read_file(&path)?;
        let mut lines = text.lines();
        let names: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        let place = |name| names.iter().position(|one| *one == name);
        let places = FIGURES.map(place);
        let mut sums = [0_u64; FIGURES.len()];
        for line in lines {
            let words = line.split_ascii_whitespace();
            let columns: Option<Vec<u64>> = words
                .map(|word| u64::from_str_radix(word, 16).ok())
                .collect();
            let columns = columns.ok_or_else(|| FamilyError::parse(&path))?;
            for (sum, place) in sums.iter_mut().zip(places) {
                let number = place.and_then(|place| columns.get(place));
                *sum = sum.saturating_add(number.copied().unwrap_or_default());
            }
        }
        let row = rows.add([]);
        for (name, sum) in FIGURES.into_iter().zip(sums) {
            row.figure(name, sum as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Conntrack, Roots};

    #[test]
    fn the_counters_of_all_cpus_are_added() {
        let folder = TempDir::new().unwrap();
        let text = "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  \
expect_new expect_create expect_delete search_restart\n\
00000021  00000000 00000000 00000000 00000003 0000588a 00000000 00000000 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n\
00000021  00000000 00000000 00000000 0000002f 00005688 00000000 00000000 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000004\n";
        write_files(folder.path(), &[("net/stat/nf_conntrack", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "found 0",
            "invalid 50",
            "ignore 44818",
            "insert 0",
            "insert_failed 0",
            "drop 0",
            "early_drop 0",
            "search_restart 4",
        ];
        assert_eq!(lines_of(&mut Conntrack(roots)), expected);
    }
}
