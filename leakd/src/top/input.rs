//! Keys and mouse: what they do to the state.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::action::{self, Action};
use super::draw;
use super::message::Order;
use super::rows::{PROCESS_ORDERS, SITE_ORDERS};
use super::state::{Goes, Page, Question, SITES, State, who};
use crate::protocol::{Ask, MOST_SITES};

/// Lines that the wheel moves.
const WHEEL: isize = 3;

impl State {
    pub(super) fn input(&mut self, event: Event) {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(key),
            Event::Mouse(mouse) => self.mouse(mouse),
            Event::Resize(width, height) => self.resize((width, height)),
            _ => {}
        }
    }

    fn key(&mut self, key: KeyEvent) {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        if ctrl && matches!(key.code, KeyCode::Char('c' | 'z')) {
            let action =
                if key.code == KeyCode::Char('c') { Action::Quit } else { Action::Suspend };
            return self.act(action);
        }
        self.said = None;
        if let Some(question) = self.question.take() {
            return self.answer(&question, key.code);
        }
        if self.typing {
            return self.type_filter(key.code, ctrl);
        }
        if self.help {
            // Any key ends it.
            self.help = false;
            return;
        }
        if let Some(action) = action::of(key) {
            self.act(action);
        }
    }

    fn answer(&mut self, question: &Question, code: KeyCode) {
        if !matches!(code, KeyCode::Char('y' | 'Y')) {
            return self.say(Ok("nothing was done".to_owned()));
        }
        let (pid, start_time) = (question.pid, Some(question.start_time));
        let (ask, what) = if question.attach {
            (Ask::Attach { pid, start_time, for_ms: None, sample_bytes: None }, "attaching to")
        } else {
            (Ask::Detach { pid, start_time }, "detaching from")
        };
        self.say(Ok(format!("{what} {} (pid {pid}) ...", question.comm)));
        self.orders.push(Order::Do(ask));
    }

    fn type_filter(&mut self, code: KeyCode, ctrl: bool) {
        let sites = self.page == Page::Sites;
        let filter = if sites { &mut self.site_filter } else { &mut self.filter };
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.typing = false;
            }
            KeyCode::Char('u') if ctrl => filter.clear(),
            KeyCode::Char(character) if !ctrl => filter.push(character),
            KeyCode::Backspace => filter.pop(),
            KeyCode::Up => return self.move_by(-1),
            KeyCode::Down => return self.move_by(1),
            _ => return,
        }
        if sites { self.arrange_sites() } else { self.arrange_processes() }
    }

    fn mouse(&mut self, mouse: MouseEvent) {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.move_by(-WHEEL),
            MouseEventKind::ScrollDown => self.move_by(WHEEL),
            MouseEventKind::Down(MouseButton::Right) => self.act(Action::Back),
            MouseEventKind::Down(MouseButton::Left) => self.click(mouse.column, mouse.row),
            _ => {}
        }
    }

    fn click(&mut self, column: u16, row: u16) {
        if self.help {
            self.help = false;
            return;
        }
        if self.question.is_some() || self.typing {
            return;
        }
        if row == draw::HEADING_ROW {
            if let Some(number) = draw::order_at(self, column) {
                self.act(Action::Order(number));
            }
            return;
        }
        let Some(line) = row.checked_sub(draw::FIRST_ROW).map(usize::from) else { return };
        let (height, offset, length, here) = match self.page {
            Page::Processes => {
                let list = &self.process_list;
                (list.height(), list.offset(), list.len(), list.position())
            }
            Page::Sites => {
                let list = &self.site_list;
                (list.height(), list.offset(), list.len(), list.position())
            }
            Page::Stack => {
                let list = &self.frame_list;
                (list.height(), list.offset(), list.len(), list.position())
            }
        };
        if line >= height || offset + line >= length {
            return;
        }
        // A second click on the same line opens it.
        if offset + line == here && self.page != Page::Stack {
            return self.act(Action::Enter);
        }
        self.go(offset as isize + line as isize);
    }

    fn go(&mut self, line: isize) {
        match self.page {
            Page::Processes => self.process_list.go(line, who(&self.processes)),
            Page::Sites => {
                if let Some(Ok(target)) = &self.target {
                    self.site_list.go(line, |entry| target.sites[entry as usize].id.clone());
                }
            }
            Page::Stack => self.frame_list.go(line, |entry| entry),
        }
    }

    fn position(&self) -> (isize, isize) {
        let (position, height) = match self.page {
            Page::Processes => (self.process_list.position(), self.process_list.height()),
            Page::Sites => (self.site_list.position(), self.site_list.height()),
            Page::Stack => (self.frame_list.position(), self.frame_list.height()),
        };
        (position as isize, height as isize)
    }

    fn move_by(&mut self, lines: isize) {
        self.go(self.position().0.saturating_add(lines));
    }

    /// Does what a key is for.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Move(lines) => self.move_by(lines),
            Action::Page(pages) => self.move_by(pages * (self.position().1 - 1).max(1)),
            Action::First => self.go(0),
            Action::Last => self.go(isize::MAX),
            Action::Enter => self.enter(),
            Action::Back => self.back(),
            Action::NextOrder => self.next_order(),
            Action::Order(number) => self.order_by(number),
            Action::Reverse => self.turn(),
            Action::Filter => self.typing = self.page != Page::Stack,
            Action::All => {
                self.only_interesting = !self.only_interesting;
                self.arrange_processes();
            }
            Action::More => {
                self.top = (self.top * 10).min(MOST_SITES);
                self.say(Ok(format!("up to {} call sites from now on", self.top)));
            }
            Action::Pause => self.paused = !self.paused,
            Action::Refresh => self.orders.push(Order::Refresh),
            Action::Attach | Action::Detach => self.ask_before(action == Action::Attach),
            Action::Mouse => self.mouse = !self.mouse,
            Action::Help => self.help = true,
            Action::Quit => self.goes = Goes::End,
            Action::Suspend => self.goes = Goes::Suspend,
        }
    }

    fn enter(&mut self) {
        match self.page {
            Page::Processes => {
                let Some(process) = self.selected() else { return };
                let found = (process.pid, process.start_time);
                if self.whose != Some(found) {
                    self.whose = Some(found);
                    self.target = None;
                    self.site_list = super::list::List::default();
                    self.site_filter.clear();
                    self.top = SITES;
                }
                self.process_list.hold(who(&self.processes));
                self.page = Page::Sites;
                self.resize(self.size);
            }
            Page::Sites => {
                let Some(site) = self.selected_site().cloned() else { return };
                if let Some(Ok(target)) = &self.target {
                    self.site_list.hold(|entry| target.sites[entry as usize].id.clone());
                }
                let culprit = crate::report::text::culprit(&site.stack).unwrap_or(0);
                self.site = Some(Box::new(site));
                self.frame_list = super::list::List::default();
                self.page = Page::Stack;
                self.resize(self.size);
                self.arrange_frames();
                self.go(culprit as isize);
            }
            Page::Stack => {}
        }
    }

    fn back(&mut self) {
        match self.page {
            Page::Processes if self.filter.text().is_empty() => {}
            Page::Processes => {
                self.filter.clear();
                self.arrange_processes();
            }
            Page::Sites if !self.site_filter.text().is_empty() => {
                self.site_filter.clear();
                self.arrange_sites();
            }
            Page::Sites => self.page = Page::Processes,
            Page::Stack => {
                self.site = None;
                self.page = Page::Sites;
            }
        }
    }

    fn next_order(&mut self) {
        let here = match self.page {
            Page::Processes => PROCESS_ORDERS.iter().position(|order| order.0 == self.sort),
            _ => SITE_ORDERS.iter().position(|order| order.0 == self.site_order),
        };
        self.order_by(here.unwrap_or(0) + 2);
    }

    /// By the number of an order, from 1; after the last comes the first. The
    /// same once more turns it round.
    fn order_by(&mut self, number: usize) {
        let index = number.saturating_sub(1);
        match self.page {
            Page::Processes => {
                let sort = PROCESS_ORDERS[index % PROCESS_ORDERS.len()].0;
                self.reverse = sort == self.sort && !self.reverse;
                self.sort = sort;
                self.process_list.release();
                self.arrange_processes();
            }
            Page::Sites => {
                let order = SITE_ORDERS[index % SITE_ORDERS.len()].0;
                self.site_reverse = order == self.site_order && !self.site_reverse;
                self.site_order = order;
                self.site_list.release();
                self.arrange_sites();
            }
            Page::Stack => {}
        }
    }

    fn turn(&mut self) {
        match self.page {
            Page::Processes => {
                self.reverse = !self.reverse;
                self.arrange_processes();
            }
            Page::Sites => {
                self.site_reverse = !self.site_reverse;
                self.arrange_sites();
            }
            Page::Stack => {}
        }
    }

    fn ask_before(&mut self, attach: bool) {
        let Some(process) = self.subject() else { return };
        let active = process.trace.as_ref().is_some_and(|trace| trace.active);
        let (pid, start_time, comm) = (process.pid, process.start_time, process.comm.clone());
        if !process.running {
            return self.say(Err(format!("{comm} (pid {pid}) has ended")));
        }
        if !attach && !active {
            return self.say(Err(format!("{comm} (pid {pid}) is not under trace")));
        }
        self.question = Some(Question { attach, pid, start_time, comm });
    }
}
