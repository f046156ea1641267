//! Names of run folders: `<date>_<instrument>_<number>_<side and flow cell>`.

/// A name that is a run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunName<'a> {
    /// Six digits (YYMMDD) or eight (YYYYMMDD).
    pub date: &'a str,
    /// Serial number of the instrument: letters, digits, hyphens.
    pub instrument: &'a str,
    /// Number of the run, padded or not.
    pub number: u32,
    /// Flow cell, with its side in front where the instrument has two (`A` or `B`).
    pub flowcell: &'a str,
}

impl<'a> RunName<'a> {
    /// The parts of a directory's name; `None` for a directory that is no run.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.split('_');
        let (date, instrument, number, flowcell) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let run = Self { date, instrument, number: digits(number)?, flowcell };
        (parts.next().is_none() && run.is_sound()).then_some(run)
    }

    fn is_sound(&self) -> bool {
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        matches!(self.date.len(), 6 | 8)
            && digits(self.date).is_some()
            && word(self.instrument)
            && word(self.flowcell)
    }

    /// The flow cell's barcode, without the side.
    #[must_use]
    pub fn barcode(&self) -> &'a str {
        match self.flowcell.split_at_checked(1) {
            Some(("A" | "B", rest)) if !rest.is_empty() => rest,
            _ => self.flowcell,
        }
    }
}

fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_real_names() {
        let run = RunName::parse("20240531_LH00130_0061_A22CC55LT4").unwrap();
        assert_eq!((run.number, run.barcode()), (61, "22CC55LT4"));
        let run = RunName::parse("130417_M00146_0021_000000000-A2WDF").unwrap();
        assert_eq!(run.barcode(), "000000000-A2WDF");
        assert_eq!(RunName::parse("210301_VH00123_1_AAAC7WMM5").unwrap().number, 1);
    }

    #[test]
    fn other_directories_are_no_runs() {
        for name in [
            "",
            "Data",
            "1706_NB551051_0017_A",
            "170609_NB551051_17a_A",
            "170609_NB551051_0017",
            "170609_NB551051_0017_A_extra",
            "170609__0017_AHL",
            "170609_NB 1_0017_AHL",
            "170609_NB1_99999999999_A",
        ] {
            assert_eq!(RunName::parse(name), None, "{name}");
        }
    }
}
