//! How old keys are, and how old they may get.

use runvault_custody::chain::Chain;
use runvault_custody::chain::history::History;
use runvault_custody::clock;
use runvault_format::ids::IdentityId;
use runvault_format::time;

use crate::acts::Acts;
use crate::output::{count, visible};

/// A vault key is replaced once a year, and every share is seen to open as often: NIST SP 800-57 Part 1 Rev. 5,
/// 5.3.6, gives a symmetric master key about one year.
pub const YEAR_DAYS: u64 = 365;
/// The same, table 1: a private key that others encrypt to at most two years, one that signs up to three. People's keys
/// do both.
const PERSON_DAYS: u64 = 2 * YEAR_DAYS;
/// A gateway's key signs; what encrypts there is drawn anew for each run.
const GATEWAY_DAYS: u64 = 3 * YEAR_DAYS;

/// `14 months old`.
pub fn old(since: &str) -> String {
    let days = time::seconds(since).map_or(0, |at| clock::seconds().saturating_sub(at) / 86_400);
    match days {
        0..60 => format!("{} old", count(days, "day")),
        60..1096 => format!("{} old", count(days * 12 / YEAR_DAYS, "month")),
        _ => format!("{} old", count(days / YEAR_DAYS, "year")),
    }
}

/// Whether it was before so many days.
pub fn is_older(since: &str, days: u64) -> bool {
    // RFC 3339 in UTC: its order is that of the texts.
    since < clock::days_ago(days).as_str()
}

/// The keys of people and machines that are due, and how each is replaced.
pub fn due(chain: &Chain, history: &History, acts: &Acts) -> Vec<String> {
    let expired =
        |id: &IdentityId, days| Some(history.known_since(id)).filter(|at| is_older(at, days)).map(old);
    let mut due = Vec::new();
    for (label, id) in chain.custodians() {
        if let Some(old) = expired(&id, PERSON_DAYS) {
            let name = visible(label.as_bytes());
            due.push(format!(
                "the key of custodian {name} is {old}: a new one by runvault keygen --out FILE, {}, then {}",
                acts.command("add-custodian", "NAME=FILE.pub"),
                acts.command("remove-custodian", &id.to_string())
            ));
        }
    }
    for reader in chain.reader_terms() {
        if let Some(old) = expired(&reader.id, PERSON_DAYS) {
            let (name, id) = (visible(reader.label.as_bytes()), reader.id);
            due.push(format!(
                "the key of reader {name} is {old}: a new one by runvault keygen --out FILE, {}, {}, then {}",
                acts.command("add-reader", "NAME=FILE.pub"),
                acts.command("grant", "RUN... NAME"),
                acts.command("remove-reader", &id.to_string())
            ));
        }
    }
    for (label, id) in chain.gateways() {
        if let Some(old) = expired(&id, GATEWAY_DAYS).filter(|_| chain.is_enrolled(&id)) {
            let name = visible(label.as_bytes());
            due.push(format!(
                "the key of gateway {name} is {old}: enrol its machine with a new state folder, then revoke {id}"
            ));
        }
    }
    due
}
