//! The daemon's heart: one task that owns the traces and decides.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::handle::{Command, Handle, Published};
use super::kernel::{KERNEL, KernelTarget};
use super::log::LogSwitch;
use super::subject::{Key, Subject};
use super::{notify, signals::Signals};
use crate::canary::CanaryReport;
use crate::config::{self, Config, Loaded};
use crate::governor;
use crate::protocol::{Event, EventKind};
use crate::report::{model, time};
use crate::trace::Trace;
use crate::watch::growth::Judge;
use crate::watch::limit::Limits;
use crate::watch::{Pass, Watch};

/// Between two looks at whether targets have ended or mapped new code.
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at a target's call sites.
const LEARN: Duration = Duration::from_secs(5);
/// The share of a CPU that the watch may take.
const WATCH_SHARE: f64 = 0.003;
/// Reports that are made at once.
const REPORTS: usize = 2;
/// Events that a client may be behind.
const EVENTS: usize = 256;

/// What the core's own tasks tell it.
#[derive(Debug)]
pub(super) enum Told {
    /// The watch has looked at all processes.
    Looked(std::io::Result<Pass>),
    /// The last report of a trace that has ended.
    Reported(Key, Box<model::Target>),
    /// A scan is over.
    Scanned(Box<super::scan::Scanned>),
}

/// What tracing is possible.
#[derive(Debug)]
pub(super) enum Tracing {
    /// The canary was seen exactly.
    Available {
        /// Prices, from the canary.
        canary: CanaryReport,
        /// How probes are attached.
        method: &'static str,
    },
    /// Nothing can be traced.
    Unavailable(String),
}

/// The core.
#[derive(Debug)]
pub struct Core {
    pub(super) config: Config,
    pub(super) files: Vec<PathBuf>,
    pub(super) config_path: PathBuf,
    pub(super) config_must_exist: bool,
    pub(super) config_error: Option<String>,
    pub(super) changed: Vec<String>,
    pub(super) watch: Arc<Mutex<Watch>>,
    pub(super) tracing: Tracing,
    pub(super) trace: Option<Trace>,
    pub(super) idle_since: Instant,
    pub(super) subjects: HashMap<Key, Subject>,
    /// The kernel's own memory.
    pub(super) kernel: KernelTarget,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    /// What control groups leave processes.
    pub(super) limits: Limits,
    pub(super) interval: Duration,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) reports: Arc<Semaphore>,
    pub(super) scans: Arc<Semaphore>,
    pub(super) steps: (u64, u64),
    pub(super) machine_cost: f64,
    pub(super) own_cpu: Duration,
    /// CPUs that leakd takes itself, over the last seconds.
    pub(super) own_rate: f64,
    /// While the programs are timed, and for how long they had run before.
    pub(super) statistics: Option<(OwnedFd, u64)>,
    pub(super) budgets: HashMap<Key, f64>,
    /// To be traced next.
    pub(super) queue: VecDeque<Key>,
    published: watch::Sender<Published>,
    log: LogSwitch,
}

/// What the core is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub loaded: Loaded,
    /// Where it came from.
    pub path: PathBuf,
    /// Whether it must be there.
    pub must_exist: bool,
    /// The log.
    pub log: LogSwitch,
    /// Status files that the watch may keep open.
    pub descriptors: usize,
}

impl Core {
    /// Makes the core; the canary goes ahead.
    pub fn new(start: Start) -> (Self, Handle, mpsc::Receiver<Command>, mpsc::Receiver<Told>) {
        let config = start.loaded.config;
        let (commands, receiver) = mpsc::channel(64);
        let (events, _) = broadcast::channel(EVENTS);
        let (told, telling) = mpsc::channel(256);
        let most = config.watch.max_processes.get() as usize;
        let watch = Watch::new(judge(&config), most, start.descriptors);
        let (published, status) = watch::channel(Published::default());
        let handle = Handle { commands, events: events.clone(), clients: Arc::default(), status };
        let core = Self {
            interval: *config.watch.interval,
            config,
            files: start.loaded.files,
            config_path: start.path,
            config_must_exist: start.must_exist,
            config_error: None,
            changed: Vec::new(),
            watch: Arc::new(Mutex::new(watch)),
            tracing: super::tracing::send_canary(),
            trace: None,
            idle_since: Instant::now(),
            subjects: HashMap::new(),
            kernel: KernelTarget::default(),
            events,
            began: Instant::now(),
            began_at: SystemTime::now(),
            limits: Limits::find(),
            told,
            reports: Arc::new(Semaphore::new(REPORTS)),
            scans: Arc::new(Semaphore::new(1)),
            steps: (0, 0),
            machine_cost: 0.0,
            own_cpu: super::tracing::own_cpu(),
            own_rate: 0.0,
            statistics: None,
            budgets: HashMap::new(),
            queue: VecDeque::new(),
            published,
            log: start.log,
        };
        core.publish();
        (core, handle, receiver, telling)
    }

    /// Runs until it is told to end.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut telling: mpsc::Receiver<Told>,
        mut signals: Signals,
    ) {
        let every = |period: Duration| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let (mut tick, mut control, mut learn) =
            (every(TICK), every(governor::PERIOD), every(LEARN));
        let mut watchdog = every(notify::watchdog_period());
        let mut next_look = tokio::time::Instant::now();
        let mut looking = false;
        loop {
            let tracing = self.trace.is_some();
            let any = tracing || self.kernel.is_traced();
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hangup.recv() => self.reload(),
                Some(command) = commands.recv() => self.answer(command),
                // One at a time, so that clients are answered in between.
                () = std::future::ready(()), if !self.queue.is_empty() => {
                    tokio::task::block_in_place(|| self.begin_next());
                }
                () = step(&mut self.trace), if tracing => {}
                _ = tick.tick(), if any => self.tick(),
                _ = control.tick() => {
                    tokio::task::block_in_place(|| self.control());
                    self.publish();
                }
                _ = learn.tick(), if any => tokio::task::block_in_place(|| self.learn()),
                _ = watchdog.tick() => notify::alive(),
                () = tokio::time::sleep_until(next_look), if !looking => {
                    looking = true;
                    self.look();
                }
                Some(told) = telling.recv() => match told {
                    Told::Looked(pass) => {
                        looking = false;
                        next_look = tokio::time::Instant::now() + self.after(pass);
                        tokio::task::block_in_place(|| self.decide());
                    }
                    Told::Reported(key, report) => {
                        let subject = match key {
                            KERNEL => Some(&mut self.kernel.subject),
                            _ => self.subjects.get_mut(&key),
                        };
                        if let Some(subject) = subject {
                            subject.report = Some(report);
                        }
                    }
                    Told::Scanned(scanned) => {
                        tokio::task::block_in_place(|| self.scanned(*scanned));
                    }
                },
            }
        }
        notify::stopping();
        tracing::info!("ending; all probes go");
    }

    /// Lets everybody know how it is. `status` is answered from this, and so
    /// waits for nothing that the core is at.
    pub(super) fn publish(&self) {
        self.published.send_replace(Published { status: self.status(), at: Instant::now() });
    }

    /// Seconds on the daemon's clock.
    pub(super) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let (watch, told) = (Arc::clone(&self.watch), self.told.clone());
        tokio::task::spawn_blocking(move || {
            let pass = watch.lock().unwrap_or_else(PoisonError::into_inner).look();
            // The core has ended: nobody wants to know.
            let _ = told.blocking_send(Told::Looked(pass));
        });
    }

    /// How long to wait for the next look.
    fn after(&mut self, pass: std::io::Result<Pass>) -> Duration {
        match pass {
            Ok(pass) => {
                let least = pass.cpu.div_f64(WATCH_SHARE);
                self.interval = (*self.config.watch.interval).max(least);
            }
            Err(error) => tracing::error!("cannot look at /proc: {error}"),
        }
        self.interval
    }

    /// Reads the configuration again; one that is wrong is refused.
    fn reload(&mut self) {
        notify::reloading();
        match config::load(&self.config_path, self.config_must_exist) {
            Ok(loaded) => {
                if loaded.config.server != self.config.server {
                    tracing::warn!("changes in [server] take a restart");
                }
                let server = self.config.server.clone();
                self.config = Config { server, ..loaded.config };
                self.files = loaded.files;
                self.config_error = None;
                self.changed.clear();
                self.configured();
                tracing::info!("configuration read again");
            }
            Err(error) => {
                self.config_error = Some(error.to_string());
                // Who reads of it may ask for the status next.
                self.publish();
                tracing::error!("the configuration stays as it was: {error}");
            }
        }
        notify::ready();
    }

    /// To be called when the configuration has changed.
    pub(super) fn configured(&mut self) {
        self.log.set(self.config.log_level);
        let most = self.config.watch.max_processes.get() as usize;
        self.lock().configure(judge(&self.config), most);
        for subject in self.subjects.values_mut().chain([&mut self.kernel.subject]) {
            subject.untraceable = None;
        }
        tokio::task::block_in_place(|| self.decide());
        self.publish();
    }

    /// Tells everybody what happened.
    pub(super) fn announce(&mut self, key: Key, kind: EventKind, message: String) {
        let (subject, budget) = match key {
            KERNEL => (Some(&mut self.kernel.subject), self.config.kernel.budget_percent),
            _ => (self.subjects.get_mut(&key), self.config.budget.target_percent),
        };
        let Some(subject) = subject else { return };
        let budget = budget.share();
        let event = Event {
            time: time::rfc3339(SystemTime::now()),
            pid: key.0,
            start_time: key.1,
            comm: subject.identity.comm.clone(),
            unit: subject.identity.group.unit.clone(),
            kind,
            verdict: subject.verdict,
            message,
            evidence: subject.active.as_ref().and_then(super::active::Active::evidence),
            governor: subject.active.as_ref().map(|active| active.governor(budget)),
        };
        let verdict = format!("{:?}", event.verdict).to_lowercase();
        let message = crate::terminal::safe(&event.message);
        tracing::info!(
            pid = key.0,
            comm = %crate::terminal::safe(&event.comm),
            unit = event.unit.as_deref().unwrap_or(""),
            event = ?kind,
            verdict,
            "{message}"
        );
        if kind == EventKind::Verdict {
            subject.standing = Some(event.clone());
        }
        // Without a client that watches, nobody hears it.
        let _ = self.events.send(event);
    }
}

/// What is growth, by the configuration.
pub(super) fn judge(config: &Config) -> Judge {
    let mib_per_hour = config.watch.min_growth_mib_per_hour.get() as f64;
    Judge::of_process(mib_per_hour * f64::from(1 << 20) / 3600.0, *config.watch.startup)
}

/// Handles what the probes tell.
async fn step(trace: &mut Option<Trace>) {
    match trace {
        Some(trace) => {
            trace.step().await;
        }
        None => std::future::pending().await,
    }
}
