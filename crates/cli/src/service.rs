//! systemd's readiness protocol; without systemd all of it does nothing.

use sd_notify::NotifyState;

/// The mount answers (Type=notify).
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Flushing and unmounting.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("systemd was not told: {error}");
    }
}
