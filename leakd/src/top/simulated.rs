//! A made-up machine, the same each time: for tests and for the benchmark.

use super::source::Source;
use crate::protocol::{
    Answer, Ask, Attached, Done, ErrorCode, Evidence, EvidenceSite, Failure, ProcessView, Stage,
    Status, Targets, TraceView, Verdict,
};
use crate::report::Report;
use crate::report::model::{self, Coverage, Frame, Site, StackEnd, Target};

/// A machine with so many processes; every tenth grows, every twentieth is
/// under trace, with so many call sites.
#[derive(Clone, Copy, Debug)]
pub struct Simulated {
    /// Processes.
    pub processes: usize,
    /// Call sites of each that is under trace.
    pub sites: usize,
}

impl Source for Simulated {
    fn ask(&mut self, ask: Ask) -> Result<Answer, String> {
        Ok(match ask {
            Ask::Status {} => Answer::Status(self.status()),
            Ask::Targets { pid, series, limit, .. } => {
                let mut processes: Vec<ProcessView> = (0..self.processes)
                    .map(|number| self.process(number, series))
                    .filter(|process| pid.is_none_or(|pid| pid == process.pid))
                    .collect();
                let omitted = processes.len().saturating_sub(limit.unwrap_or(1000));
                processes.truncate(limit.unwrap_or(1000));
                Answer::Targets(Targets { processes, omitted })
            }
            Ask::Report { which, .. } => Answer::Report {
                report: Report {
                    schema: model::SCHEMA.to_owned(),
                    started: "2026-11-20T23:37:05.123Z".to_owned(),
                    ended: "2026-11-20T23:38:05.123Z".to_owned(),
                    host: "web1".to_owned(),
                    kernel: "6.18.0".to_owned(),
                    leakd: "0.1.0".to_owned(),
                    min_age_ns: 0,
                    targets: which.pid.map(|pid| self.target(pid)).into_iter().collect(),
                },
            },
            Ask::Attach { pid, .. } => Answer::Attached(Attached {
                pid,
                comm: "server".to_owned(),
                functions: 14,
                ..Attached::default()
            }),
            Ask::Detach { pid, .. } => {
                Answer::Done(Done { message: format!("detached from server (pid {pid})") })
            }
            _ => Answer::Error(Failure {
                code: ErrorCode::BadRequest,
                message: "a made-up machine cannot do that".to_owned(),
            }),
        })
    }
}

impl Simulated {
    /// The daemon's state.
    pub fn status(&self) -> Status {
        let mut status = Status {
            leakd: "0.1.0".to_owned(),
            host: "web1".to_owned(),
            kernel: "6.18.0".to_owned(),
            cpus: 8,
            uptime_ms: 3_600_000,
            mode: "adaptive".to_owned(),
            ..Status::default()
        };
        status.watch.processes = self.processes;
        status.watch.suspects = self.processes.div_ceil(10);
        status.tracing.available = true;
        status.tracing.targets = self.processes.div_ceil(20);
        status.tracing.max_targets = 8;
        status.tracing.lost = 3;
        status.governor.budget_target_percent = 5.0;
        status.governor.budget_machine_percent = 5.0;
        status.governor.cost_machine_percent = 0.4;
        status.governor.steps_down = 2;
        status.governor.steps_up = 1;
        status
    }

    /// One process.
    pub fn process(&self, number: usize, series: bool) -> ProcessView {
        const NAMES: [&str; 5] = ["server", "nginx", "postgres", "java", "\u{1b}[31mred"];
        let grows = number.is_multiple_of(10);
        let mut process = ProcessView {
            pid: 1000 + number as u32,
            start_time: 7,
            comm: NAMES[number % NAMES.len()].to_owned(),
            exe: format!("/usr/sbin/{}", NAMES[number % NAMES.len()]),
            unit: Some(format!("{}.service", NAMES[number % NAMES.len()])),
            age_ms: 300_000 + number as u64,
            running: number % 50 != 49,
            stage: if grows { Stage::Suspect } else { Stage::Watched },
            verdict: if grows { Verdict::Growing } else { Verdict::Stable },
            anonymous_bytes: (number as u64 * 7919 % 1000) << 20,
            ..ProcessView::default()
        };
        process.growth.bytes_per_second =
            if grows { 17_476.0 * (1 + number / 10) as f64 } else { 0.0 };
        if series {
            let point = |i: u32| {
                (f64::from(59 - i) * 5.0, process.anonymous_bytes + u64::from(i) * (100 << 10))
            };
            process.series = (0..60).map(point).collect();
        }
        if number.is_multiple_of(20) {
            process.stage = Stage::Traced;
            process.trace = Some(self.trace(number, series));
        }
        process
    }

    fn trace(&self, number: usize, series: bool) -> TraceView {
        let mut trace = TraceView {
            active: true,
            duration_ms: 60_000,
            outstanding_bytes: (1 + number as u64) << 20,
            outstanding_blocks: 1024,
            allocations: 90_000,
            frees: 88_976,
            lost: number as u64 / 20,
            sites: self.sites as u64,
            ..TraceView::default()
        };
        trace.governor.step = "full".to_owned();
        trace.governor.cost_percent = 1.2 + number as f64 / 1000.0;
        trace.governor.budget_percent = 5.0;
        trace.governor.traps_per_second = 3000.0;
        trace.governor.windows = 1;
        trace.governor.open_percent = 100.0;
        trace.governor.open = true;
        trace.evidence = Some(Evidence {
            span_ms: 50_000,
            sites: vec![EvidenceSite {
                id: "0000000000000001".to_owned(),
                place: "leak_orders server.c:12".to_owned(),
                bytes_per_second: 17_400.0,
                ..EvidenceSite::default()
            }],
        });
        if series {
            trace.series =
                (0..12u32).map(|i| (f64::from(11 - i) * 5.0, u64::from(i) << 17)).collect();
        }
        trace
    }

    /// A process's report.
    pub fn target(&self, pid: u32) -> Target {
        let sites: Vec<Site> = (0..self.sites).map(site).collect();
        let bytes = sites.iter().map(|site| site.outstanding_bytes).sum();
        Target {
            memory: None,
            out_of_memory: None,
            bad_frees: None,
            pid,
            comm: "server".to_owned(),
            exe: "/usr/sbin/server".to_owned(),
            ended: model::Ended::Running,
            execs: 0,
            duration_ns: 60_000_000_000,
            min_age_ns: 10_000_000_000,
            coverage: Coverage {
                stopped: Vec::new(),
                without_table: Default::default(),
                unprobed: Vec::new(),
                seen_from: model::SeenFrom::Attach,
                allocations: 90_000,
                frees: 88_976,
                lost: Default::default(),
                lost_bytes: 0,
                sampled_bytes: 0,
                sampled_out: 0,
                unknown_frees: 0,
                unchecked_frees: 0,
                failed: 0,
                double_frees: 0,
                unattributed: 0,
                stacks: model::Stacks::default(),
                windows: model::Windows::default(),
                table_bytes: 1 << 20,
            },
            outstanding: model::Outstanding { bytes, blocks: 1024, estimated: false },
            heap: model::Heap::default(),
            probes: Vec::new(),
            verdict: model::Judged::default(),
            sites,
            omitted: model::Omitted::default(),
            kernel: None,
        }
    }
}

fn leak() -> model::Judged {
    model::Judged {
        word: Verdict::Leak,
        confidence: Some(crate::verdict::Confidence::High),
        evidence: "1,000,001 of 1,000,001 blocks older than 2.10 s were never freed".to_owned(),
        growth: None,
    }
}

/// One call site; the first holds most.
pub fn site(number: usize) -> Site {
    let frame = |function: String, file: &str, line: u32| Frame {
        function: Some(function),
        file: Some(format!("/usr/src/server/{file}")),
        line: Some(line),
        module: Some("/usr/sbin/server".to_owned()),
        address: format!("0x{:x}", 0x55d0_0000_1000u64 + number as u64 * 16),
        ..Frame::default()
    };
    let mut stack = vec![Frame {
        function: Some("malloc".to_owned()),
        module: Some("/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned()),
        address: "0x7f0000001000".to_owned(),
        ..Frame::default()
    }];
    stack.push(frame(format!("shop::leak_orders_{number}(Order const&)"), "orders.cpp", 12));
    for depth in 0..20 {
        stack.push(frame(format!("shop::handle_{depth}(Request&, int)"), "handle.cpp", depth));
    }
    let blocks = 1 + 1_000_000 / (number as u64 + 1);
    Site {
        id: format!("{number:016x}"),
        verdict: if number == 0 { leak() } else { model::Judged::default() },
        outstanding_bytes: blocks * 48,
        outstanding_blocks: blocks,
        aged_bytes: blocks * 40,
        aged_blocks: blocks,
        rank_bytes: blocks * 40,
        oldest_age_ns: Some(59_000_000_000 - number as u64),
        median_age_ns: Some(30_000_000_000),
        surviving_share: 1.0 / (1 + number) as f64,
        overdue_share: None,
        survival: None,
        allocated_bytes: blocks * 48 * (1 + number as u64),
        allocated_blocks: blocks * (1 + number as u64),
        freed_bytes: blocks * 48 * number as u64,
        freed_blocks: blocks * number as u64,
        allocations_per_second: 10.0,
        growth_bytes_per_second: blocks as f64 * 48.0 / 60.0,
        lifetimes: Vec::new(),
        stack,
        stack_end: StackEnd::Bottom,
        frame_pointer_steps: 0,
        kernel: None,
    }
}
