//! Asks the source on a thread of its own, so that keys never wait for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::message::{Message, Order, Wants};
use super::source::Source;
use super::state::Who;
use crate::protocol::{Answer, Ask, Which};

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(2);
/// Call sites are asked for so much more seldom than the answer takes.
const SITES_SHARE: u32 = 10;
/// Processes in a list; the daemon says how many it left out.
const PROCESSES: usize = 2000;
/// After a change of what is wanted: the cursor may be on its way.
const SETTLE: Duration = Duration::from_millis(80);

struct Poller<S> {
    source: S,
    messages: Sender<Message>,
    wants: Wants,
    /// When what is due.
    list_at: Instant,
    series_at: Instant,
    sites_at: Instant,
}

/// Asks until nobody listens or orders any more.
pub fn run(source: impl Source, orders: &Receiver<Order>, messages: Sender<Message>) {
    let now = Instant::now();
    let wants = Wants::default();
    let mut poller =
        Poller { source, messages, wants, list_at: now, series_at: now, sites_at: now };
    loop {
        if !poller.wants.paused && poller.ask_what_is_due().is_err() {
            return;
        }
        let next = poller.next();
        match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(order) => {
                if poller.obey(order).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Nobody listens any more.
struct Over;

impl<S: Source> Poller<S> {
    fn next(&self) -> Instant {
        match self.wants {
            Wants { paused: true, .. } => Instant::now() + Duration::from_secs(3600),
            Wants { sites: Some(_), .. } => self.list_at.min(self.sites_at),
            Wants { series: Some(_), .. } => self.list_at.min(self.series_at),
            _ => self.list_at,
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Over> {
        let now = Instant::now();
        match order {
            Order::Want(wants) => {
                if wants.sort != self.wants.sort || self.wants.paused && !wants.paused {
                    self.list_at = now;
                }
                if wants.series != self.wants.series {
                    self.series_at = now + SETTLE;
                }
                if wants.sites != self.wants.sites {
                    self.sites_at = now;
                }
                self.wants = wants;
            }
            Order::Refresh => (self.list_at, self.series_at, self.sites_at) = (now, now, now),
            Order::Do(ask) => {
                let said = match self.source.ask(ask) {
                    Ok(Answer::Attached(attached)) => Ok(format!(
                        "attached to {} (pid {}): {} functions{}",
                        attached.comm,
                        attached.pid,
                        attached.functions,
                        match attached.single_stepped.len() {
                            0 => String::new(),
                            slow => format!(", {slow} of them slow (single-stepped)"),
                        }
                    )),
                    Ok(Answer::Done(done)) => Ok(done.message),
                    Ok(Answer::Error(failure)) => Err(failure.message),
                    Ok(_) => Err("the daemon gave an answer to another question".to_owned()),
                    Err(error) => Err(error),
                };
                self.tell(Message::Done(said))?;
                (self.list_at, self.series_at, self.sites_at) = (now, now, now);
            }
        }
        Ok(())
    }

    fn ask_what_is_due(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        if now >= self.list_at {
            self.list_at = now + PERIOD;
            let limit = Some(PROCESSES);
            let sort = self.wants.sort;
            self.ask(Ask::Status {})?;
            self.ask(Ask::Targets { pid: None, all: true, series: false, sort, limit })?;
        }
        if let Some((who, top)) = self.wants.sites
            && now >= self.sites_at
        {
            self.ask_sites(who, top)?;
            self.sites_at = Instant::now() + PERIOD.max(now.elapsed() * SITES_SHARE);
        }
        if let Some(pid) = self.wants.series.filter(|_| now >= self.series_at) {
            self.series_at = now + PERIOD;
            let sort = self.wants.sort;
            self.ask(Ask::Targets { pid: Some(pid), all: true, series: true, sort, limit: None })?;
        }
        Ok(())
    }

    fn ask(&mut self, ask: Ask) -> Result<(), Over> {
        let of_one = matches!(ask, Ask::Targets { pid: Some(_), .. });
        match self.source.ask(ask) {
            Ok(Answer::Status(status)) => self.tell(Message::Status(Box::new(status))),
            Ok(Answer::Targets(mut targets)) if of_one => match targets.processes.pop() {
                Some(process) => self.tell(Message::Detail(Box::new(process))),
                None => Ok(()),
            },
            Ok(Answer::Targets(targets)) => self.tell(Message::Processes(targets)),
            // It has ended since: the list says so, too.
            Ok(Answer::Error(_)) if of_one => Ok(()),
            Ok(Answer::Error(failure)) => self.tell(Message::Done(Err(failure.message))),
            Ok(_) => Ok(()),
            Err(error) => self.tell(Message::Lost(error)),
        }
    }

    fn ask_sites(&mut self, who: Who, top: usize) -> Result<(), Over> {
        let which = Which { pid: Some(who.0), start_time: Some(who.1), ..Which::default() };
        let answer = self.source.ask(Ask::Report { which, top: Some(top), min_age_ms: None });
        let sites = match answer {
            Ok(Answer::Report { mut report }) => match report.targets.pop() {
                Some(target) => Ok(Box::new(target)),
                None => Err("nothing is known of its call sites".to_owned()),
            },
            Ok(Answer::Error(failure)) => Err(failure.message),
            Ok(_) => Err("the daemon gave an answer to another question".to_owned()),
            Err(error) => return self.tell(Message::Lost(error)),
        };
        self.tell(Message::Sites(who, sites))
    }

    fn tell(&self, message: Message) -> Result<(), Over> {
        self.messages.send(message).map_err(|_| Over)
    }
}
