//! Nothing lost, on the real program: kill -9, torn writes, a full store.

mod full;
mod hang;
mod kill;
mod torn;
