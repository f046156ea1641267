//! Medians, ratios, a table.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::machine;
use crate::subjects::Kind;
use crate::targets;
use crate::workload::Row;

/// What one subject showed in one row.
#[derive(Clone, Copy)]
pub(crate) enum Measured {
    /// In the row's unit.
    Rate(f64),
    /// Bytes in memory after the row.
    Resident(u64),
    /// The most bytes ever, at the end.
    Peak(u64),
}

/// All rounds in one place.
pub(crate) struct Report {
    place: String,
    in_memory: bool,
    kinds: Vec<Kind>,
    rows: Vec<(&'static str, &'static str)>,
    rates: BTreeMap<(&'static str, Kind), Vec<f64>>,
    resident: BTreeMap<(&'static str, Kind), u64>,
    peak: BTreeMap<Kind, u64>,
}

impl Report {
    pub(crate) fn new(place: &Path, kinds: &[Kind], rows: &[Row]) -> Result<Self> {
        let cold =
            if rustix::process::geteuid().is_root() { "" } else { "; caches not dropped: run as root" };
        let file_system = machine::file_system(place);
        Ok(Self {
            place: format!("{} ({file_system}){cold}", place.display()),
            in_memory: file_system == "tmpfs",
            kinds: kinds.to_vec(),
            rows: rows.iter().filter(|row| row.shown).map(|row| (row.name, row.unit)).collect(),
            rates: BTreeMap::new(),
            resident: BTreeMap::new(),
            peak: BTreeMap::new(),
        })
    }

    pub(crate) fn add(&mut self, row: &'static str, kind: Kind, measured: Measured) {
        match measured {
            Measured::Rate(rate) => self.rates.entry((row, kind)).or_default().push(rate),
            Measured::Resident(bytes) => {
                let most = self.resident.entry((row, kind)).or_default();
                *most = bytes.max(*most);
            }
            Measured::Peak(bytes) => {
                let most = self.peak.entry(kind).or_default();
                *most = bytes.max(*most);
            }
        }
    }

    fn rate(&self, row: &'static str, kind: Kind) -> Option<f64> {
        self.rates.get(&(row, kind)).and_then(|rates| median(rates))
    }

    /// The first one's rate as a share of the other's.
    fn ratio(&self, row: &'static str, (who, of): (Kind, Kind)) -> Option<f64> {
        Some(self.rate(row, who)? / self.rate(row, of)?)
    }

    /// Who is measured by whom: those that ran.
    fn ratios(&self) -> Vec<(Kind, Kind)> {
        let all = [
            (Kind::Runvault, Kind::Gocryptfs),
            (Kind::Runvault, Kind::Passthrough),
            (Kind::Ingest, Kind::Runvault),
        ];
        let ran = |kind: &Kind| self.kinds.contains(kind);
        all.into_iter().filter(|(who, of)| ran(who) && ran(of)).collect()
    }

    /// Markdown.
    pub(crate) fn table(&self) -> String {
        let mut head = vec![self.place.clone(), "unit".into()];
        head.extend(self.kinds.iter().map(Kind::to_string));
        head.extend(self.ratios().iter().map(|(who, of)| match who {
            Kind::Runvault => format!("of {of}"),
            _ => format!("{who} of {of}"),
        }));
        head.push("runvault MiB".into());
        if !self.kinds.contains(&Kind::Runvault) {
            head.pop();
        }
        let mut lines = vec![line(&head), line(&vec!["---".to_owned(); head.len()])];
        lines.extend(self.rows.iter().map(|(row, unit)| line(&self.cells(row, unit))));
        lines.push(line(&self.peaks(head.len())));
        lines.join("\n") + "\n"
    }

    fn cells(&self, row: &'static str, unit: &str) -> Vec<String> {
        let mut cells = vec![row.to_owned(), unit.to_owned()];
        cells.extend(self.kinds.iter().map(|kind| self.rate(row, *kind).map_or("-".into(), grouped)));
        cells.extend(self.ratios().into_iter().map(|pair| self.against_target(row, pair)));
        if self.kinds.contains(&Kind::Runvault) {
            cells.push(self.resident.get(&(row, Kind::Runvault)).map_or("-".into(), |b| mib(*b)));
        }
        cells
    }

    fn against_target(&self, row: &'static str, (who, of): (Kind, Kind)) -> String {
        let Some(reached) = self.ratio(row, (who, of)) else { return "-".into() };
        match targets::wanted(row, who, of, self.in_memory) {
            Some(wanted) => share(reached, wanted),
            None => format!("{reached:.2}"),
        }
    }

    fn peaks(&self, width: usize) -> Vec<String> {
        let mut cells = vec!["memory of the process, peak".to_owned(), "MiB".to_owned()];
        cells.extend(self.kinds.iter().map(|kind| self.peak.get(kind).map_or("-".into(), |b| mib(*b))));
        cells.resize(width, String::new());
        cells
    }

    fn value(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|(row, unit)| self.row_value(row, unit)).collect();
        let peak: BTreeMap<String, u64> = self.peak.iter().map(|(k, b)| (k.to_string(), *b)).collect();
        json!({ "place": self.place, "rows": rows, "peak_bytes": peak })
    }

    fn row_value(&self, row: &'static str, unit: &str) -> Value {
        let of = |kind: &Kind| {
            let all = self.rates.get(&(row, *kind));
            let value = json!({
                "median": self.rate(row, *kind),
                "all": all,
                "resident_bytes": self.resident.get(&(row, *kind)),
            });
            (kind.to_string(), value)
        };
        let subjects: BTreeMap<String, Value> = self.kinds.iter().map(of).collect();
        let ratio = |pair: (Kind, Kind)| (format!("{} of {}", pair.0, pair.1), self.ratio(row, pair));
        let ratios: BTreeMap<String, Option<f64>> = self.ratios().into_iter().map(ratio).collect();
        json!({ "row": row, "unit": unit, "subjects": subjects, "ratios": ratios })
    }
}

/// All places as one object.
pub(crate) fn json(reports: &[Report]) -> Result<String> {
    let places: Vec<Value> = reports.iter().map(Report::value).collect();
    Ok(serde_json::to_string_pretty(&json!({ "machine": machine::describe(), "places": places }))?)
}

/// `1.23 (1.1)`, the share reached and the one that is asked for; bold where it is missed.
pub(crate) fn share(reached: f64, wanted: f64) -> String {
    // As it is printed, so that the table does not contradict itself.
    let missed = (reached * 100.0).round() < wanted * 100.0;
    if missed { format!("**{reached:.2}** ({wanted})") } else { format!("{reached:.2} ({wanted})") }
}

pub(crate) fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

pub(crate) fn mib(bytes: u64) -> String {
    (bytes >> 20).to_string()
}

/// 12345.6 as 12,346; small numbers with a decimal.
pub(crate) fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The lower of the two middle ones for an even count.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1234567.4), "1,234,567");
        assert_eq!(grouped(987.0), "987");
        assert_eq!(grouped(12.34), "12.3");
    }

    #[test]
    fn a_table_has_ratios_only_of_what_ran() {
        let mut report =
            Report::new(Path::new("/proc"), &[Kind::Passthrough, Kind::Runvault], &workload::usual())
                .unwrap();
        report.add("unlink", Kind::Passthrough, Measured::Rate(2000.0));
        report.add("unlink", Kind::Runvault, Measured::Rate(1500.0));
        report.add("unlink", Kind::Runvault, Measured::Resident(64 << 20));
        report.add("", Kind::Runvault, Measured::Peak(65 << 20));
        let table = report.table();
        assert!(table.contains("| unlink | file/s | 2,000 | 1,500 | 0.75 | 64 |"), "{table}");
        assert!(table.contains("| memory of the process, peak | MiB | - | 65 |  |  |"), "{table}");
        assert!(!table.contains("gocryptfs"));
    }

    #[test]
    fn a_share_stands_beside_the_one_that_is_asked_for() {
        let kinds = [Kind::Passthrough, Kind::Runvault];
        let mut report = Report::new(Path::new("/proc"), &kinds, &workload::usual()).unwrap();
        report.in_memory = true;
        report.add("unlink", Kind::Passthrough, Measured::Rate(1000.0));
        report.add("unlink", Kind::Runvault, Measured::Rate(849.0));
        assert!(report.table().contains("| 0.85 (0.85) |"), "{}", report.table());
        report.add("unlink", Kind::Passthrough, Measured::Rate(2000.0));
        report.add("unlink", Kind::Passthrough, Measured::Rate(2000.0));
        assert!(report.table().contains("| **0.42** (0.85) |"), "{}", report.table());
    }
}
