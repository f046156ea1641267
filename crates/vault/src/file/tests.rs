//! The write path against a plain vector, and every refusal by its name.

mod costs;
mod faults;
mod holes;
mod late;
mod model;
mod names;
mod tamper;
