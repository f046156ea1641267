//! One test for each row of docs/threat-model.md: an attack ends in its own error, and changes nothing in the store.
//! What an attacker does get is shown, too.

mod approvals;
mod behind;
mod chain;
mod envelopes;
mod keys;
mod killed;
mod memory;
mod plants;
mod rows;
mod runs;
mod shares;
mod store;
mod texts;
mod vault;
