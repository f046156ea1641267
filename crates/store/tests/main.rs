//! What a backing directory does, real or a double.

mod conformance;
mod doubles;
mod model;
mod shut;
