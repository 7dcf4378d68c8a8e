//! When the kernel's memory is traced, and what of it.

use std::time::Instant;

use leakd_common::kernel::KernelKind;

use super::super::core::Core;
use super::super::decide::{ENOUGH_WINDOWS, MOST_LONGER};
use super::KERNEL;
use crate::config::{Config, KernelMode, Mode};
use crate::kernel::Settings;
use crate::protocol::{EventKind, Verdict};
use crate::watch::kernel::meminfo::Total;
use crate::watch::kernel::{Part, Suspect};

/// Whether it may be traced without being asked for.
pub(super) fn is_allowed(config: &Config) -> bool {
    config.kernel.mode == KernelMode::Adaptive && config.mode != Mode::Off
}

/// The kinds of memory that a total is made of.
fn kinds(total: Total) -> &'static [KernelKind] {
    match total {
        Total::SlabUnreclaimable | Total::Reclaimable => &[KernelKind::Kmalloc, KernelKind::Cache],
        Total::PerCpu => &[KernelKind::PerCpu],
        Total::Vmalloc => &[KernelKind::Vmalloc],
        Total::PageTables => &[KernelKind::Pages],
        // Of vmalloc, where the kernel is built so; else pages.
        Total::Stacks => &[KernelKind::Vmalloc, KernelKind::Pages],
    }
}

/// What to trace of a part that grows.
fn settings(config: &Config, suspect: &Suspect) -> Result<Settings, String> {
    let quota = config.kernel.max_blocks.get() as u32;
    let mut settings = Settings { quota, ..Settings::default() };
    match &suspect.part {
        Part::Cache(name) => settings.restrict(name)?,
        Part::Total(total) => settings.kinds = kinds(*total).iter().copied().collect(),
    }
    Ok(settings)
}

impl Core {
    /// After each look of the watch.
    pub(in super::super) fn decide_kernel(&mut self) {
        let suspect = self.lock().kernel().suspect();
        self.kernel.suspect = suspect;
        self.end_kernel_window();
        self.update_kernel_verdict();
        self.choose_kernel();
    }

    /// Ends a trace that has lasted long enough or is not wanted any more.
    fn end_kernel_window(&mut self) {
        let Some(active) = &self.kernel.subject.active else { return };
        let window = *self.config.trace.window;
        let found = !active.growers.is_empty();
        let few = active.is_in_windows() && active.controller.windows() < ENOUGH_WINDOWS;
        let lasted = active.began.elapsed();
        let (by_hand, until) = (active.by_hand, active.until);
        let reason = match until {
            Some(until) if until <= Instant::now() => "its time is over",
            _ if by_hand => return,
            _ if !is_allowed(&self.config) => "it is not to be traced any more",
            _ if lasted < window || (few && lasted < window * MOST_LONGER) => return,
            _ => "its window is over",
        };
        self.finish_kernel(reason, None);
        if !by_hand {
            let config = &self.config.trace;
            self.kernel.subject.rest(*config.rest, *config.max_rest, !found);
        }
    }

    /// Takes over what the watch found.
    fn update_kernel_verdict(&mut self) {
        let kernel = &mut self.kernel;
        // Evidence from call sites outweighs the watch while it is fresh.
        let evident = kernel.subject.active.as_ref().is_some_and(|one| !one.growers.is_empty());
        let (verdict, message) = match &kernel.suspect {
            Some(suspect) => {
                let rate = crate::terminal::bytes((suspect.slope * 60.0).max(0.0) as u64);
                (Verdict::Growing, format!("the kernel's {} grows by {rate}/min", suspect.name))
            }
            // Nothing was said, and there is nothing to say.
            None if kernel.subject.verdict == Verdict::Undetermined => return,
            None => (Verdict::Stable, "the kernel's memory does not grow any more".to_owned()),
        };
        if evident || kernel.subject.verdict == verdict {
            return;
        }
        kernel.subject.verdict = verdict;
        self.announce(KERNEL, EventKind::Verdict, message);
    }

    /// Traces what grows, if it may.
    fn choose_kernel(&mut self) {
        let kernel = &self.kernel;
        let Some(suspect) = &kernel.suspect else { return };
        if !is_allowed(&self.config) || !kernel.subject.is_free(Instant::now()) {
            return;
        }
        let begun = settings(&self.config, suspect).and_then(|settings| {
            self.begin_kernel(settings, false).map_err(|failure| failure.message)
        });
        if let Err(message) = begun {
            tracing::warn!("the kernel is not traced: {}", crate::terminal::safe(&message));
            let config = &self.config.trace;
            let subject = &mut self.kernel.subject;
            subject.untraceable = Some(message);
            subject.rest(*config.rest, *config.max_rest, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that as little is traced as there is a reason for.
    #[test]
    fn as_little_as_can_be() {
        let config = Config::default();
        let of = |part| {
            let suspect = Suspect { name: "x".to_owned(), slope: 1.0, part };
            settings(&config, &suspect)
        };
        let one = of(Part::Cache("kmalloc-1k".to_owned())).expect("a size");
        assert_eq!((one.kinds, one.bytes), ([KernelKind::Kmalloc].into(), 1024..=1024));
        assert_eq!(u64::from(one.quota), config.kernel.max_blocks.get());
        let pages = of(Part::Total(Total::PageTables)).expect("a kind");
        assert_eq!(pages.kinds, [KernelKind::Pages].into());
        assert!(of(Part::Cache("../x".to_owned())).is_err());
    }

    /// Check that either switch keeps the kernel from being traced.
    #[test]
    fn switches() {
        let mut config = Config::default();
        assert!(is_allowed(&config));
        config.kernel.mode = KernelMode::Off;
        assert!(!is_allowed(&config));
        let config = Config { mode: Mode::Off, ..Config::default() };
        assert!(!is_allowed(&config));
    }
}
