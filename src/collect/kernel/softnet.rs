//! Reads how each CPU processes the packets that network devices receive.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The columns with figures. Older kernels lack the last columns, whose figures are then zero.
const FIGURES: [(&str, usize); 7] = [
    ("processed", 0),
    ("dropped", 1),
    ("times_squeezed", 2),
    ("cpu_collision", 8),
    ("received_rps", 9),
    ("flow_limit_count", 10),
    ("backlog_len", 11),
];
/// The column with the number of the CPU, since Linux 5.10.
const CPU: usize = 12;
/// The number of columns that each kernel has.
const MIN_COLUMNS: usize = 9;

/// The family. Source: `/proc/net/softnet_stat`.
pub(super) struct Softnet(pub(super) Roots);

impl Family for Softnet {
    fn name(&self) -> &'static str {
        "softnet"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("net/softnet_stat");
        for (place, line) in read_file(&path)?.lines().enumerate() {
            let words = line.split_ascii_whitespace();
            let columns: Option<Vec<u32>> = words
                .map(|word| u32::from_str_radix(word, 16).ok())
                .collect();
            let columns = columns.filter(|columns| columns.len() >= MIN_COLUMNS);
            let columns = columns.ok_or_else(|| FamilyError::parse(&path))?;
            let cpu = match columns.get(CPU) {
                Some(cpu) => cpu.to_string(),
                None => place.to_string(),
            };
            let row = rows.add([("cpu", &cpu)]);
            for (name, column) in FIGURES {
                let number = columns.get(column).copied();
                row.figure(name, f64::from(number.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Softnet};

    #[test]
    fn each_cpu_has_a_row_in_old_and_new_kernels() {
        let folder = TempDir::new().unwrap();
        let text = "\
00551c3f 00000029 00000055 00000000 00000000 00000000 00000000 00000000 00000001 00000002 00000003\n\
002f8339 00000000 00000032 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000000a 00000007 00000000 00000000\n";
        write_files(folder.path(), &[("net/softnet_stat", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "cpu=0 processed 5577791",
            "cpu=0 dropped 41",
            "cpu=0 times_squeezed 85",
            "cpu=0 cpu_collision 1",
            "cpu=0 received_rps 2",
            "cpu=0 flow_limit_count 3",
            "cpu=0 backlog_len 0",
            "cpu=7 processed 3113785",
            "cpu=7 dropped 0",
            "cpu=7 times_squeezed 50",
            "cpu=7 cpu_collision 0",
            "cpu=7 received_rps 0",
            "cpu=7 flow_limit_count 0",
            "cpu=7 backlog_len 10",
        ];
        assert_eq!(lines_of(&mut Softnet(roots)), expected);
    }
}
