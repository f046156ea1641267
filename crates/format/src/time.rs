//! Times as texts: RFC 3339 in UTC, whole seconds, `2026-01-31T23:59:59Z`. No clock.

/// The text of so many seconds after 1970; times after the year 9999 show its end.
pub fn text(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = seconds.min(LAST);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The civil date of a day after 1970-01-01, counting years from March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Whether a text is one that [`text`] gives.
pub fn is_time(text: &str) -> bool {
    seconds(text).is_some()
}

/// The seconds after 1970 of a text that [`text`] gives.
pub fn seconds(time: &str) -> Option<u64> {
    let field = |at: std::ops::Range<usize>| {
        let digits = time.get(at)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None }
    };
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let shifted = if month <= 2 { year.checked_sub(1)? } else { year };
    let march = (month + 9) % 12;
    let of_era = shifted % 400;
    let days =
        (shifted / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * march + 2) / 5 + day)
            .checked_sub(719_469)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    // Punctuation, month lengths and leap years are right if the text comes back.
    (text(seconds) == time).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        for (seconds_, text_) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(text(seconds_), text_);
            assert_eq!(seconds(text_), Some(seconds_));
        }
        for bad in [
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-12-01 00:00:00Z",
            "2025-12-01T24:00:00Z",
            "2025-12-01T00:00:60Z",
            "2025-12-01T00:00:00+00:00",
            "1969-12-31T23:59:59Z",
            "",
            "é",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_come_back(at in 0u64..253_402_300_800) {
            prop_assert_eq!(seconds(&text(at)), Some(at));
        }
        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            let _ = is_time(&text);
        }
    }
}
