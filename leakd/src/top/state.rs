//! What is shown: updated by messages, drawn by `draw`, nothing else.

use std::time::{Duration, Instant};

use super::list::List;
use super::message::{Message, Order, Wants};
use super::rows::{self, Filter, SiteOrder};
use crate::protocol::{ProcessView, Sort, Status};
use crate::report::model::{Site, Target};

/// How long a message stays.
const SAID_FOR: Duration = Duration::from_secs(8);
/// Call sites that are asked for at first.
pub const SITES: usize = 200;

/// Where we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// The processes.
    #[default]
    Processes,
    /// The call sites of one.
    Sites,
    /// The stack of one.
    Stack,
}

/// Who a process is: its pid and when it started.
pub type Who = (u32, u64);

/// What is asked before it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// To attach, or else to detach.
    pub attach: bool,
    /// The process.
    pub pid: u32,
    /// When it started: the pid may be another's by the time of the answer.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
}

/// Whether the program goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goes {
    /// It does.
    #[default]
    On,
    /// It has been told to end.
    End,
    /// The shell is to have the terminal.
    Suspend,
}

/// All that is shown.
#[derive(Debug, Default)]
pub struct State {
    /// The page.
    pub page: Page,
    /// The help is over it.
    pub help: bool,
    /// A filter is being typed.
    pub typing: bool,
    /// Waits for yes or no.
    pub question: Option<Question>,
    /// What became of the last command, and when.
    pub said: Option<(Result<String, String>, Instant)>,
    /// Why there is no answer.
    pub lost: Option<String>,
    /// When the last answer came.
    pub heard: Option<Instant>,
    /// Everything is held still.
    pub paused: bool,
    /// The mouse is ours.
    pub mouse: bool,
    /// Columns and lines.
    pub size: (u16, u16),

    /// The daemon's state.
    pub status: Option<Box<Status>>,
    /// The processes.
    pub processes: Vec<ProcessView>,
    /// Processes that were left out.
    pub omitted: usize,
    /// Only those that grow or are or were traced.
    pub only_interesting: bool,
    /// The order of the processes.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// What processes must have in them.
    pub filter: Filter,
    /// Those that are shown.
    pub process_list: List<Who>,
    /// The one under the cursor, with its series.
    pub detail: Option<Box<ProcessView>>,

    /// Whose call sites are shown.
    pub whose: Option<Who>,
    /// These; `Err`: why there are none.
    pub target: Option<Result<Box<Target>, String>>,
    /// So many were asked for.
    pub top: usize,
    /// Their order.
    pub site_order: SiteOrder,
    /// The other way round.
    pub site_reverse: bool,
    /// What call sites must have in them.
    pub site_filter: Filter,
    /// Those that are shown.
    pub site_list: List<String>,
    /// The call site whose stack is shown; it may have left the list.
    pub site: Option<Box<Site>>,
    /// Its frames.
    pub frame_list: List<u32>,

    /// What somebody else is to do now.
    pub orders: Vec<Order>,
    /// What we said last that we want.
    wants: Wants,
    /// Whether we go on.
    pub goes: Goes,
}

impl State {
    /// Nothing yet, on a screen of this size.
    pub fn new(size: (u16, u16)) -> Self {
        let mut state = Self { top: SITES, mouse: true, ..Self::default() };
        state.resize(size);
        state
    }

    /// Takes in what happened.
    pub fn update(&mut self, message: Message) {
        if !matches!(message, Message::Input(_) | Message::End) {
            match &message {
                Message::Lost(error) => self.lost = Some(error.clone()),
                _ => (self.lost, self.heard) = (None, Some(Instant::now())),
            }
        }
        match message {
            Message::Input(event) => self.input(event),
            Message::Status(status) => self.status = Some(status),
            Message::Processes(targets) if !self.paused => {
                (self.processes, self.omitted) = (targets.processes, targets.omitted);
                self.arrange_processes();
            }
            Message::Detail(view) if !self.paused => self.detail = Some(view),
            Message::Sites(who, found) if !self.paused => {
                if self.whose == Some(who) {
                    self.take_sites(found);
                }
            }
            Message::Processes(_) | Message::Detail(_) | Message::Sites(..) => {}
            Message::Done(result) => self.say(result),
            Message::Lost(_) => {}
            Message::End => self.goes = Goes::End,
        }
        self.want();
    }

    fn take_sites(&mut self, found: Result<Box<Target>, String>) {
        // What was there is better than why there is nothing new.
        if found.is_err() && matches!(self.target, Some(Ok(_))) {
            return;
        }
        self.target = Some(found);
        self.arrange_sites();
        let id = self.site.as_ref().map(|site| site.id.clone());
        if let Some(fresh) = self.sites().iter().find(|site| Some(&site.id) == id.as_ref()) {
            self.site = Some(Box::new(fresh.clone()));
            self.arrange_frames();
        }
    }

    /// Says something to the person.
    pub fn say(&mut self, said: Result<String, String>) {
        self.said = Some((said, Instant::now()));
    }

    /// What there is to say now.
    pub fn saying(&self) -> Option<&Result<String, String>> {
        let (said, when) = self.said.as_ref()?;
        (when.elapsed() < SAID_FOR).then_some(said)
    }

    /// The process under the cursor.
    pub fn selected(&self) -> Option<&ProcessView> {
        self.processes.get(self.process_list.selected()? as usize)
    }

    /// The process whose call sites are shown.
    pub fn owner(&self) -> Option<&ProcessView> {
        let who = self.whose?;
        self.processes.iter().find(|process| (process.pid, process.start_time) == who)
    }

    /// The process that commands are about.
    pub fn subject(&self) -> Option<&ProcessView> {
        if self.page == Page::Processes { self.selected() } else { self.owner() }
    }

    /// The call sites.
    pub fn sites(&self) -> &[Site] {
        match &self.target {
            Some(Ok(target)) => &target.sites,
            _ => &[],
        }
    }

    /// The call site under the cursor.
    pub fn selected_site(&self) -> Option<&Site> {
        self.sites().get(self.site_list.selected()? as usize)
    }

    /// Puts the processes in order.
    pub fn arrange_processes(&mut self) {
        let every = !self.only_interesting;
        let (sort, reverse) = (self.sort, self.reverse);
        let order = rows::processes(&self.processes, every, &self.filter, sort, reverse);
        self.process_list.set(order, who(&self.processes));
    }

    /// Puts the call sites in order.
    pub fn arrange_sites(&mut self) {
        let Some(Ok(target)) = &self.target else { return };
        let sites = &target.sites;
        let order = rows::sites(sites, &self.site_filter, self.site_order, self.site_reverse);
        self.site_list.set(order, |entry| sites[entry as usize].id.clone());
    }

    /// Puts the frames in the list.
    pub fn arrange_frames(&mut self) {
        let frames = self.site.as_ref().map_or(0, |site| site.stack.len());
        self.frame_list.set((0..frames as u32).collect(), |entry| entry);
    }

    /// Another size of the screen.
    pub fn resize(&mut self, size: (u16, u16)) {
        self.size = size;
        let height = super::draw::rows(size);
        self.process_list.set_height(height);
        self.site_list.set_height(height);
        self.frame_list.set_height(height);
    }

    /// Orders what has to be asked from now on, if that has changed.
    fn want(&mut self) {
        let series = match self.page {
            Page::Processes => self.selected().map(|process| process.pid),
            _ => self.whose.map(|who| who.0),
        };
        let sites = match self.page {
            Page::Processes => None,
            _ => self.whose.map(|who| (who, self.top)),
        };
        let wants = Wants { paused: self.paused, sort: self.sort, series, sites };
        if wants != self.wants {
            self.wants = wants;
            self.orders.push(Order::Want(wants));
        }
    }
}

/// Tells who the entries of a list of processes are.
pub fn who(processes: &[ProcessView]) -> impl Fn(u32) -> Who {
    |entry| {
        let process = &processes[entry as usize];
        (process.pid, process.start_time)
    }
}
