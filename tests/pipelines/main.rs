//! Sequencing runs from the instrument to the analysis.

mod mounted;
mod plain;

/// Each takes all cores for itself: one after the other.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
