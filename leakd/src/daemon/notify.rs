//! What systemd is told: sd_notify(3). Without systemd, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Without a watchdog, nobody waits for a sign of life.
const NO_WATCHDOG: Duration = Duration::from_secs(3600);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}

/// The daemon answers.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Between two signs of life: a third of what systemd waits for.
pub fn watchdog_period() -> Duration {
    sd_notify::watchdog_enabled().map_or(NO_WATCHDOG, |limit| limit / 3)
}
