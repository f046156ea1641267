//! A NextSeq's own log of what it asked to be copied, and when: `RTALogs/*_FileCopyLog_00.tsv`.
//!
//! Lines of tab-separated fields: date (`6/9/2017`), time (`11:34:08 PM`), two names, a message. A message
//! `Sending copy request <path> on thread ...` is one copy; `CopyUntil started` begins a batch of them.

use std::time::Duration;

use crate::{Error, Result};

/// What was copied, in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyLog {
    /// Batches of requests.
    pub batches: Vec<CopyBatch>,
}

/// Requests that were sent together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyBatch {
    /// When, from the log's first request on.
    pub at: Duration,
    /// Paths within the run folder, with `/`, in order; a path comes again whenever it was sent again.
    pub paths: Vec<String>,
}

impl CopyLog {
    /// Reads a log.
    ///
    /// # Errors
    /// [`Error::CopyLog`] for a request without a time or a path within the run folder.
    pub fn parse(log: &str) -> Result<Self> {
        let mut batches: Vec<CopyBatch> = Vec::new();
        let mut first = None;
        for (line, text) in (1..).zip(log.lines()) {
            let wrong = |what| Error::CopyLog { line, what };
            let fields: Vec<&str> = text.split('\t').collect();
            let [date, time, _, _, message, ..] = fields.as_slice() else { continue };
            if message.starts_with("CopyUntil started") {
                batches.push(CopyBatch::default());
            }
            let Some(request) = message.strip_prefix("Sending copy request ") else { continue };
            let seconds = seconds_of(date, time).ok_or_else(|| wrong("no date and time"))?;
            let path = path_of(request).ok_or_else(|| wrong("no path within a run folder"))?;
            let since = seconds.saturating_sub(*first.get_or_insert(seconds));
            if batches.is_empty() {
                batches.push(CopyBatch::default());
            }
            if let Some(batch) = batches.last_mut() {
                if batch.paths.is_empty() {
                    batch.at = Duration::from_secs(since);
                }
                batch.paths.push(path);
            }
        }
        batches.retain(|batch| !batch.paths.is_empty());
        Ok(Self { batches })
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.batches.iter().map(|batch| batch.paths.len()).sum()
    }
}

/// `D:\...\<run folder>\InterOp\QMetricsOut.bin on thread 5 took 0.001` without what is around it.
fn path_of(request: &str) -> Option<String> {
    let (path, _) = request.rsplit_once(" on thread ")?;
    let parts: Vec<&str> = path.split('\\').collect();
    let run = parts.iter().position(|part| crate::run_name::RunName::parse(part).is_some())?;
    let within = parts.get(run + 1..)?;
    let sound = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\0']);
    (!within.is_empty() && within.iter().all(sound)).then(|| within.join("/"))
}

/// Seconds since the year 0, good for differences.
fn seconds_of(date: &str, time: &str) -> Option<u64> {
    let number = |text: &str| text.parse::<u64>().ok();
    let date: Vec<u64> = date.split('/').map(number).collect::<Option<_>>()?;
    let [month @ 1..=12, day @ 1..=31, year @ 1..=9999] = date[..] else { return None };
    let (clock, half) = time.split_once(' ')?;
    let clock: Vec<u64> = clock.split(':').map(number).collect::<Option<_>>()?;
    let [hour @ 1..=12, minute @ 0..=59, second @ 0..=59] = clock[..] else { return None };
    let hour = hour % 12 + if half == "PM" { 12 } else { 0 };
    // Days of the civil calendar, counted from a March so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "6/9/2017\t11:34:08 PM\tM\tFileCopy\tCopyUntil started, thread 5\t\n\
        6/9/2017\t11:34:08 PM\tM\tFileCopy\tSending copy request D:\\Temp x\\170609_NB551051_0017_AHLFFJBGX2\\RunInfo.xml on thread 5 took 0.1\t\n\
        6/9/2017\t11:34:08 PM\tM\tFileCopy\tCopyUntil finished, thread 5: CopyUntil took 0.06\t\n\
        6/10/2017\t12:08:48 AM\tM\tFileCopy\tCopyUntil started, thread 31\t\n\
        6/10/2017\t12:08:49 AM\tM\tFileCopy\tSending copy request D:\\T\\170609_NB551051_0017_AHLFFJBGX2\\InterOp\\QMetricsOut.bin on thread 31 took 0.5\t\n";

    #[test]
    fn batches_have_their_times_and_paths() {
        let log = CopyLog::parse(LOG).unwrap();
        assert_eq!(log.requests(), 2);
        assert_eq!(log.batches[0].paths, ["RunInfo.xml"]);
        assert_eq!(
            log.batches[1],
            CopyBatch {
                at: Duration::from_secs(34 * 60 + 41),
                paths: vec!["InterOp/QMetricsOut.bin".into()],
            }
        );
    }

    #[test]
    fn calendar() {
        let day = |date| seconds_of(date, "12:00:00 AM").unwrap() / 86_400;
        assert_eq!(day("3/1/2020") - day("2/28/2020"), 2);
        assert_eq!(day("1/1/2021") - day("1/1/2020"), 366);
        assert_eq!(
            seconds_of("1/1/2020", "12:00:01 PM").unwrap() - seconds_of("1/1/2020", "12:00:00 AM").unwrap(),
            43_201
        );
    }

    #[test]
    fn wrong_requests_are_named_by_their_line() {
        for (line, what) in [
            (
                "6/9/2017\t11:34 PM\tM\tF\tSending copy request D:\\170609_NB1_1_A\\x on thread 5",
                "no date and time",
            ),
            (
                "6/9/2017\t11:34:08 PM\tM\tF\tSending copy request D:\\x on thread 5",
                "no path within a run folder",
            ),
            (
                "6/9/2017\t11:34:08 PM\tM\tF\tSending copy request D:\\170609_NB1_1_A\\..\\x on thread 5",
                "no path within a run folder",
            ),
        ] {
            let said = CopyLog::parse(&format!("\n{line}\n")).unwrap_err().to_string();
            assert_eq!(said, format!("copy log, line 2: {what}"));
        }
    }
}
