//! Nothing lost, on the real program: kill -9, torn writes, a full store.

mod copies;
mod fence;
mod full;
mod hang;
mod kill;
mod link;
mod replayed;
mod torn;
