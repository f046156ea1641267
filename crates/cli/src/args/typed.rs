//! Values as people type them.

/// What a request takes (docs/format.md, requests).
pub fn reason(text: &str) -> Result<String, String> {
    if text.len() <= 1024 && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("a reason has at most 1,024 bytes and no control characters".to_owned())
}

/// A time in UTC, or a date: its beginning.
pub fn time(text: &str) -> Result<String, String> {
    let midnight = format!("{text}T00:00:00Z");
    let given = [text, &midnight].into_iter().find(|time| runvault_format::time::is_time(time));
    given.map(str::to_owned).ok_or_else(|| "give it as 2027-01-31, or 2027-01-31T08:00:00Z".to_owned())
}

pub fn head(text: &str) -> Result<(u64, runvault_format::ids::Digest), String> {
    let parsed = text.split_once(':').and_then(|(n, hash)| Some((n.parse().ok()?, hash.parse().ok()?)));
    parsed.ok_or_else(|| "give it as it was printed: N:HASH".to_owned())
}
