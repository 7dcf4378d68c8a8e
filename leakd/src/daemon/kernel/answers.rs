//! What clients ask of the kernel's memory, and are told.

use std::time::{Duration, Instant};

use super::super::answers::{done, stage};
use super::super::core::Core;
use super::super::tracing::age_for;
use super::decide::is_allowed;
use crate::kernel::{Settings, hooks};
use crate::protocol::{
    Answer, ErrorCode, Failure, Growth, KERNEL_PID, KernelAttached, KernelTracingView, NotTraced,
    ProcessView, Verdict,
};
use crate::report::input::TargetSnapshot;
use crate::watch::kernel::KernelWatch;
use crate::watch::kernel::meminfo::Total;

/// What a client wants traced.
#[derive(Debug)]
pub(in super::super) struct Wanted {
    /// Only this cache.
    pub cache: Option<String>,
    /// Only these kinds; none: all.
    pub kinds: Vec<String>,
    /// Bounds of blocks, in bytes.
    pub min_bytes: Option<u64>,
    /// The same.
    pub max_bytes: Option<u64>,
}

impl Wanted {
    fn settings(self, quota: u32) -> Result<Settings, String> {
        let bytes = self.min_bytes.unwrap_or(0)..=self.max_bytes.unwrap_or(u64::MAX);
        if bytes.is_empty() {
            return Err("`min_bytes` is more than `max_bytes`: no block can be both".to_owned());
        }
        let mut settings = Settings { bytes, quota, ..Settings::default() };
        if !self.kinds.is_empty() {
            let kind = |name: &String| {
                let all = "kmalloc, cache, pages, percpu or vmalloc";
                hooks::kind(name).ok_or(format!("a kind of memory is {all}"))
            };
            settings.kinds = self.kinds.iter().map(kind).collect::<Result<_, _>>()?;
        }
        match &self.cache {
            Some(_) if !self.kinds.is_empty() => {
                return Err("`cache` and `kinds` exclude each other".to_owned());
            }
            Some(cache) => settings.restrict(cache)?,
            None => {}
        }
        Ok(settings)
    }
}

impl Core {
    /// Puts the kernel's memory under trace for a client. What was begun without
    /// being asked for gives way.
    pub(in super::super) fn attach_kernel(
        &mut self,
        wanted: Wanted,
        for_ms: Option<u64>,
    ) -> Result<Answer, Failure> {
        let quota = self.config.kernel.max_blocks.get() as u32;
        let settings = wanted
            .settings(quota)
            .map_err(|message| Failure::new(ErrorCode::BadRequest, message))?;
        if let Some(active) = &self.kernel.subject.active {
            if active.by_hand {
                let message = "the kernel's memory is under trace for somebody else already";
                return Err(Failure::new(ErrorCode::Busy, message));
            }
            self.finish_kernel("another was asked for", None);
        }
        let until = for_ms.and_then(|span| Instant::now().checked_add(Duration::from_millis(span)));
        self.begin_kernel(settings, true)?;
        if let Some(active) = &mut self.kernel.subject.active {
            active.until = until;
        }
        let mut attached = KernelAttached::default();
        if let Some(trace) = &self.kernel.trace {
            attached.scope = trace.settings().scope();
            attached.nameless = trace.is_nameless();
            for way in trace.ways() {
                let kind = hooks::name(way.kind).to_owned();
                match &way.hooks {
                    Ok(_) => attached.traced.push(kind),
                    Err(reason) => {
                        attached.not_traced.push(NotTraced { kind, reason: reason.clone() });
                    }
                }
            }
        }
        Ok(Answer::KernelAttached(attached))
    }

    /// Ends its trace for a client.
    pub(in super::super) fn detach_kernel(&mut self) -> Answer {
        let Some(active) = &self.kernel.subject.active else {
            return Answer::failed(ErrorCode::NotFound, "the kernel's memory is not under trace");
        };
        let by_hand = active.by_hand;
        self.finish_kernel("somebody detached from it", None);
        // One that nobody asked for is not wanted.
        self.kernel.subject.let_go = !by_hand;
        done("detached from the kernel")
    }

    /// A look at the trace that goes on, for the report.
    pub(in super::super) fn look_at_kernel(&mut self, min_age: Duration) -> Option<TargetSnapshot> {
        let kernel = &mut self.kernel;
        let age = age_for(kernel.subject.active.as_ref()?, min_age);
        match kernel.trace.as_mut()?.snapshot(age) {
            Ok(target) => Some(target),
            Err(error) => {
                tracing::warn!("looking at the kernel: {error}");
                None
            }
        }
    }

    /// How it is traced, for the status.
    pub(in super::super) fn kernel_tracing(&self) -> KernelTracingView {
        let subject = &self.kernel.subject;
        let active = subject.active.as_ref().zip(self.kernel.trace.as_ref());
        let last = || subject.last.as_ref().and_then(|view| view.error.clone());
        let error = || subject.untraceable.clone().or_else(last);
        KernelTracingView {
            mode: self.config.kernel.mode.name().to_owned(),
            scope: active.map(|(_, trace)| trace.settings().scope()),
            error: if active.is_some() { None } else { error() },
            budget_percent: self.config.kernel.budget_percent.get(),
            cost_percent: active.map_or(0.0, |(one, _)| one.controller.cost() * 100.0),
            step: active.map(|(one, _)| one.controller.step().name().to_owned()),
        }
    }

    /// The kernel as one more process, if it is of interest.
    pub(in super::super) fn kernel_process(
        &self,
        watch: &KernelWatch,
        all: bool,
        series: bool,
    ) -> Option<ProcessView> {
        let kernel = &self.kernel;
        let subject = &kernel.subject;
        let of_interest = subject.active.is_some()
            || subject.last.is_some()
            || subject.untraceable.is_some()
            || kernel.suspect.is_some();
        if !of_interest && !all {
            return None;
        }
        let mut trace = kernel.trace_view(self.kernel_budget(), self.now(), series);
        if trace.is_none() {
            let error = subject.untraceable.clone();
            let untraceable = error.map(|error| crate::protocol::TraceView {
                error: Some(error),
                ..Default::default()
            });
            trace = untraceable.or_else(|| subject.last.clone()).map(|mut view| {
                if !series {
                    view.series.clear();
                }
                view
            });
        }
        let growth = watch
            .growing()
            .into_iter()
            .find(|one| kernel.suspect.as_ref().is_some_and(|suspect| suspect.name == one.name));
        let taken = [
            Total::SlabUnreclaimable,
            Total::PerCpu,
            Total::Vmalloc,
            Total::PageTables,
            Total::Stacks,
        ];
        Some(ProcessView {
            pid: KERNEL_PID,
            comm: subject.identity.comm.clone(),
            exe: subject.identity.exe.clone(),
            age_ms: crate::watch::read::since_boot().as_millis() as u64,
            running: true,
            stage: stage(Some(subject), is_allowed(&self.config), kernel.suspect.is_some()),
            verdict: match kernel.suspect {
                Some(_) => Verdict::Growing,
                None => subject.verdict,
            },
            anonymous_bytes: taken.into_iter().filter_map(|total| watch.total(total)).sum(),
            growth: growth
                .map_or(Growth::default(), |one| super::super::view::growth(&one.judgement)),
            trace,
            ..ProcessView::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { cache: None, kinds: Vec::new(), min_bytes: None, max_bytes: None }
    }

    /// Check that a client gets what it asks for, and that what cannot be is
    /// refused.
    #[test]
    fn asked_for() {
        let all = wanted().settings(7).expect("all");
        assert_eq!(all, Settings { quota: 7, ..Settings::default() });
        let kinds = vec!["pages".to_owned(), "vmalloc".to_owned()];
        let some = Wanted { kinds, max_bytes: Some(9), ..wanted() }.settings(7).expect("two");
        assert_eq!((some.kinds.len(), some.bytes), (2, 0..=9));
        let refused = |wanted: Wanted| wanted.settings(7).expect_err("refused");
        assert!(refused(Wanted { kinds: vec!["heap".into()], ..wanted() }).contains("kind"));
        let both = Wanted { kinds: vec!["pages".into()], cache: Some("dentry".into()), ..wanted() };
        assert!(refused(both).contains("exclude"));
        let bounds = Wanted { min_bytes: Some(2), max_bytes: Some(1), ..wanted() };
        assert!(refused(bounds).contains("no block"));
    }
}
