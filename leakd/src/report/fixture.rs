//! Snapshots as the engine would hand them over, for the tests of the report.

use std::time::{Duration, UNIX_EPOCH};

use leakd_common::bad_free::BadFree;
use leakd_common::block::Block;
use leakd_common::event::StackEnd;
use leakd_common::site::Site;
use leakd_common::target::{Counter, TargetCounters};

use super::build::{Settings, build};
use super::input::{BadFreeSnapshot, SiteAges, SiteSnapshot, Snapshot, TargetSnapshot};
use super::kernel::{KernelSite, KernelTrace, Task, UnseenFree};
use super::memory::Memory;
use super::model::{Ended, Probe, ProbeCost, Report, SeenFrom, Unprobed, Windows};
use crate::resident::Composition;
use crate::symbol::Frame;
use crate::verdict::births::Births;
use crate::verdict::growth::Growth;
use crate::verdict::survival::Interval;
use crate::watch::growth::Trend;
use crate::watch::limit::Limit;

pub const SECOND: u64 = 1_000_000_000;
/// How long targets are watched, and until when on the clock of births.
const SPAN: u64 = 30 * SECOND;
const NOW: u64 = 1_000_000 * SECOND;
pub const SETTINGS: Settings = Settings { min_age_ns: 10 * SECOND, top: Some(10) };

/// A call site by what it did: `kept` of `blocks` blocks of `size` bytes are
/// outstanding, `aged` of these are old enough, and the others lived
/// `lifetime_ns`.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    pub key: u64,
    pub size: u64,
    pub blocks: u64,
    pub kept: u64,
    pub aged: u64,
    pub oldest_ns: u64,
    pub lifetime_ns: u64,
}

impl Planted {
    pub fn site(self, frames: Vec<Vec<Frame>>) -> SiteSnapshot {
        let freed = self.blocks - self.kept;
        let mut site = Site {
            allocated_blocks: self.blocks,
            allocated_bytes: self.blocks * self.size,
            freed_blocks: freed,
            freed_bytes: freed * self.size,
            announced: 1,
            ..Site::EMPTY
        };
        site.lifetimes[Site::bucket(self.lifetime_ns)] = freed;
        SiteSnapshot {
            key: self.key,
            site,
            ages: Some(SiteAges {
                aged_blocks: self.aged,
                aged_bytes: self.aged * self.size,
                oldest_ns: self.oldest_ns,
                median_ns: self.oldest_ns / 2,
                // Ages are spread evenly from nothing to the oldest.
                sample_ns: (1..=100.min(self.kept))
                    .map(|i| self.oldest_ns * i / 100.min(self.kept))
                    .collect(),
                births: Births::of(
                    (1..=1_000.min(self.kept))
                        .map(|i| NOW.saturating_sub(self.oldest_ns / 1_000.min(self.kept) * i)),
                    NOW - SPAN,
                    NOW,
                ),
            }),
            growth: None,
            addresses: frames.iter().map(|frames| frames[0].address).collect(),
            frames,
            files: 0,
            outermost: None,
            end: Some(StackEnd::Bottom),
            frame_pointer_steps: 0,
            kernel: None,
        }
    }
}

pub fn frame(address: u64, function: &str, file: &str, line: u32, module: &str) -> Frame {
    Frame {
        function: (!function.is_empty()).then(|| function.to_owned()),
        file: (!file.is_empty()).then(|| file.to_owned()),
        line: (line > 0).then_some(line),
        module: (!module.is_empty()).then(|| module.to_owned()),
        build_id: Some("8bb4af2a4d8d5e5c1b6a3a1d8f7d1ad1c1b8e6f3".to_owned()),
        address,
        inlined: false,
        offset: Some(0x1d),
    }
}

pub fn inlined(address: u64, function: &str, file: &str, line: u32, module: &str) -> Frame {
    Frame { inlined: true, offset: None, ..frame(address, function, file, line, module) }
}

/// A stack that ends as programs do, below the frames given.
pub fn stack(inner: Vec<Vec<Frame>>) -> Vec<Vec<Frame>> {
    const SERVER: &str = "/usr/sbin/shop-server";
    const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    let mut frames = inner;
    frames.extend([
        vec![frame(0x5580_0000_3000, "serve", "/src/shop/server.c", 310, SERVER)],
        vec![frame(0x5580_0000_4000, "main", "/src/shop/main.c", 42, SERVER)],
        vec![frame(0x7f00_0002_9ca8, "__libc_start_call_main", "", 0, LIBC)],
        vec![frame(0x7f00_0002_9d65, "__libc_start_main", "", 0, LIBC)],
        vec![frame(0x5580_0000_1121, "_start", "", 0, SERVER)],
    ]);
    frames
}

pub fn counters(values: &[(Counter, u64)]) -> TargetCounters {
    let mut counters = TargetCounters::default();
    for (counter, value) in values {
        counters.counts[*counter as usize] = *value;
    }
    counters
}

/// A block that was freed twice, and a free of what is none.
pub fn bad_frees() -> Vec<BadFreeSnapshot> {
    const SERVER: &str = "/usr/sbin/shop-server";
    let at = |key: u64, function: &str, line: u32| {
        let address = 0x5580_0000_7000 + key;
        let inner = vec![vec![frame(address, function, "/src/shop/order.c", line, SERVER)]];
        let planted =
            Planted { key, size: 0, blocks: 0, kept: 0, aged: 0, oldest_ns: 0, lifetime_ns: 0 };
        planted.site(stack(inner))
    };
    let twice = BadFree {
        count: 3,
        address: 0x5580_1234_5670,
        allocated_at: 92,
        size_and_owner: Block::pack(480, 3),
        freed_ns: 5 * SECOND,
        time_ns: 5 * SECOND + 1_250_000,
        freed_tid: 4713,
        tid: 4711,
    };
    let wrong = BadFree { count: 1, address: 0x7ffd_1234_5678, tid: 4711, ..BadFree::default() };
    vec![
        BadFreeSnapshot {
            bad: twice,
            site: at(90, "order_abort", 77),
            freed_at: Some(at(91, "order_close", 301)),
            allocated_at: Some(at(92, "order_open", 12)),
        },
        BadFreeSnapshot {
            bad: wrong,
            site: at(93, "order_print", 44),
            freed_at: None,
            allocated_at: None,
        },
    ]
}

/// Of a server with 64 MiB.
pub fn memory() -> Memory {
    let found = Composition {
        resident: 64 << 20,
        swapped: 0,
        outstanding: 12 << 20,
        unseen: 5 << 20,
        allocator: 30 << 20,
        unresolved: 0,
        stacks: 132 << 10,
        files: 11 << 20,
        shared: 0,
        other: (6 << 20) - (132 << 10),
    };
    Memory::new(&found, true)
}

/// A server with `sites`, watched for 30 seconds.
pub fn target(sites: Vec<SiteSnapshot>) -> TargetSnapshot {
    let sum = |get: fn(&Site) -> u64| sites.iter().map(|one| get(&one.site)).sum::<u64>();
    TargetSnapshot {
        pid: 4711,
        comm: "shop-server".to_owned(),
        exe: "/usr/sbin/shop-server".to_owned(),
        ended: Ended::Running,
        duration_ns: 30 * SECOND,
        filling_ns: 30 * SECOND,
        min_age_ns: SETTINGS.min_age_ns,
        seen_from: SeenFrom::Attach,
        execs: 0,
        counters: counters(&[
            (Counter::Inserted, sum(|site| site.allocated_blocks)),
            (Counter::Removed, sum(|site| site.freed_blocks)),
            (Counter::UnknownFrees, 1_234),
        ]),
        sample_bytes: 0,
        table_bytes: 9 << 20,
        without_table: Default::default(),
        unprobed: Vec::new(),
        windows: Windows { count: 1, open_ns: 30 * SECOND },
        probes: vec![
            Probe {
                symbol: "malloc".to_owned(),
                module: "/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
                cost: ProbeCost::Emulated,
            },
            Probe {
                symbol: "free".to_owned(),
                module: "/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
                cost: ProbeCost::SingleStepped,
            },
        ],
        replaced_per_second: Some(0.0),
        limit: None,
        memory_growth: None,
        sites,
        memory: Some(memory()),
        bad_frees: None,
        kernel: None,
    }
}

/// A group with a name that is not to be trusted.
pub fn limit() -> Limit {
    Limit {
        group: "/a\u{1b}[2Jb.service".to_owned(),
        limit_bytes: 2 << 30,
        used_bytes: 1 << 30,
        swap_left_bytes: 0,
    }
}

/// By 1 MiB/s.
pub fn growth(trend: Trend) -> Growth {
    Growth {
        slope: f64::from(1 << 20),
        interval: Interval { low: f64::from(1 << 19), high: f64::from(1 << 21) },
        trend,
        span: 60.0,
        returned: 0.0,
    }
}

pub fn snapshot(target: TargetSnapshot) -> Snapshot {
    Snapshot {
        started: UNIX_EPOCH + Duration::from_millis(1_795_219_025_250),
        ended: UNIX_EPOCH + Duration::from_millis(1_795_219_055_250),
        host: "db-7".to_owned(),
        kernel: "6.18.5".to_owned(),
        targets: vec![target],
    }
}

pub fn report(target: TargetSnapshot) -> Report {
    build(snapshot(target), &SETTINGS)
}

/// Three leaks among honest traffic.
pub fn leaky_sites() -> Vec<SiteSnapshot> {
    const SERVER: &str = "/usr/sbin/shop-server";
    const CXX: &str = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6";
    let session = stack(vec![
        vec![frame(0x5580_0000_1100, "xmalloc", "/src/shop/util.c", 12, SERVER)],
        vec![
            inlined(0x5580_0000_1200, "session_alloc", "/src/shop/session.c", 88, SERVER),
            frame(0x5580_0000_1200, "session_open", "/src/shop/session.c", 120, SERVER),
        ],
        vec![frame(0x5580_0000_1300, "handle_login", "/src/shop/login.c", 57, SERVER)],
    ]);
    let basket = stack(vec![
        vec![frame(0x7f00_0100_1100, "operator new(unsigned long)", "", 0, CXX)],
        vec![frame(
            0x5580_0000_2100,
            "shop::Basket::add(std::shared_ptr<shop::Article> const&, unsigned int)",
            "/src/shop/basket.cpp",
            203,
            SERVER,
        )],
    ]);
    let error = stack(vec![vec![frame(0x5580_0000_2200, "strdup_error", "", 0, SERVER)]]);
    let traffic =
        stack(vec![vec![frame(0x5580_0000_2300, "read_request", "/src/shop/http.c", 9, SERVER)]]);
    vec![
        Planted {
            key: 4,
            size: 4_096,
            blocks: 300_000,
            kept: 40,
            aged: 0,
            oldest_ns: 3_000_000,
            lifetime_ns: 2_000_000,
        }
        .site(traffic),
        Planted {
            key: 3,
            size: 48,
            blocks: 120_000,
            kept: 600,
            aged: 400,
            oldest_ns: 29 * SECOND,
            lifetime_ns: 1_500_000,
        }
        .site(error),
        Planted {
            key: 1,
            size: 1_024,
            blocks: 9_600,
            kept: 9_600,
            aged: 6_400,
            oldest_ns: 29_900_000_000,
            lifetime_ns: 0,
        }
        .site(session),
        Planted {
            key: 2,
            size: 256,
            blocks: 20_000,
            kept: 5_000,
            aged: 3_300,
            oldest_ns: 29_700_000_000,
            lifetime_ns: 40_000_000,
        }
        .site(basket),
    ]
}

/// A kernel with a leaking driver, a cache that is freed in bulk, and packets.
pub fn kernel() -> TargetSnapshot {
    const DRIVER: &str = "leaky_driver";
    const VMLINUX: &str = "vmlinux";
    let symbol = |address, function| vec![frame(address, function, "", 0, VMLINUX)];
    let call = |inner: Vec<Vec<Frame>>| {
        let mut frames = inner;
        frames.extend([
            symbol(0xffff_ffff_8100_3000, "do_syscall_64"),
            symbol(0xffff_ffff_8100_4000, "entry_SYSCALL_64_after_hwframe"),
        ]);
        frames
    };
    let ioctl = call(vec![
        symbol(0xffff_ffff_8100_1000, "kmemdup_noprof"),
        vec![frame(0xffff_ffff_c000_1000, "leaky_ioctl", "", 0, DRIVER)],
        symbol(0xffff_ffff_8100_2000, "__x64_sys_ioctl"),
    ]);
    let open = call(vec![symbol(0xffff_ffff_8100_1100, "alloc_empty_file")]);
    let receive = vec![
        symbol(0xffff_ffff_8100_1200, "__napi_build_skb"),
        symbol(0xffff_ffff_8100_1300, "handle_softirqs"),
    ];
    let planted = |key, size, blocks, kept| Planted {
        key,
        size,
        blocks,
        kept,
        aged: kept / 2,
        oldest_ns: 29 * SECOND,
        lifetime_ns: 40_000,
    };
    let of = |kind: &str, cache: Option<&str>, bytes: (u64, u64)| KernelSite {
        kind: kind.to_owned(),
        cache: cache.map(str::to_owned),
        merged_with: Vec::new(),
        least_bytes: bytes.0,
        most_bytes: bytes.1,
        reclaimable: Some(false),
        interrupt: false,
        reused: 0,
        tasks: Vec::new(),
    };
    let task =
        |pid, comm: Option<&str>, blocks| Task { pid, comm: comm.map(str::to_owned), blocks };
    let sites = vec![
        SiteSnapshot {
            kernel: Some(KernelSite {
                tasks: vec![task(812, Some("agent"), 4_000), task(77, None, 800)],
                ..of("kmalloc", None, (96, 1_024))
            }),
            ..planted(1, 512, 9_600, 4_800).site(ioctl)
        },
        SiteSnapshot {
            kernel: Some(KernelSite {
                reclaimable: Some(true),
                reused: 1_200,
                tasks: vec![task(1, Some("systemd"), 600)],
                ..of("cache", Some("filp"), (256, 256))
            }),
            ..planted(2, 256, 40_000, 600).site(open)
        },
        SiteSnapshot {
            kernel: Some(KernelSite {
                interrupt: true,
                reclaimable: None,
                merged_with: ["UNIX", "eventpoll_epi", "mnt_cache", "pid"]
                    .map(str::to_owned)
                    .to_vec(),
                ..of("cache", Some("skbuff_head_cache"), (256, 256))
            }),
            ..planted(3, 256, 90_000, 12).site(receive)
        },
    ];
    TargetSnapshot {
        pid: 0,
        comm: "kernel".to_owned(),
        exe: "6.18.5".to_owned(),
        probes: Vec::new(),
        unprobed: vec![Unprobed {
            symbol: "percpu".to_owned(),
            module: "the kernel".to_owned(),
            reason: "the tracepoint percpu_alloc_percpu has 7 arguments on this kernel, not 10"
                .to_owned(),
        }],
        memory: None,
        kernel: Some(KernelTrace {
            traced: ["kmalloc", "cache", "pages", "vmalloc"].map(str::to_owned).to_vec(),
            cache: None,
            unseen_frees: vec![UnseenFree {
                function: "kmem_cache_free_bulk".to_owned(),
                reason: "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned(),
            }],
            missed_frees: 3,
            missed_allocations: 17,
            movable_pages: 120_000,
            underneath_bytes: 5 << 20,
            stacks_checked: 1_940,
            stacks_mistaken: 0,
        }),
        ..target(sites)
    }
}
