//! Sessions of users. **Leaks:** see [`Sessions::open`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is remembered of a user who logged in.
#[derive(Debug)]
struct Session {
    user: String,
    opened: Instant,
    /// What the user has looked at lately.
    history: [u64; 24],
}

/// The sessions, by their number.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<u64, Box<Session>>>,
}

impl Sessions {
    /// Opens a session and returns its number.
    ///
    /// This is the first leak: a session has the time at which it was opened,
    /// and nothing that looks at it. Users who come back open another one.
    #[inline(never)]
    pub fn open(&self, user: &str) -> u64 {
        let session =
            Box::new(Session { user: user.to_owned(), opened: Instant::now(), history: [0; 24] });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.len() as u64 + 1;
        open.insert(number, session);
        number
    }

    /// Notes what a user looks at; returns who that is and for how many
    /// seconds the session has been open. `None`: there is no such session.
    #[inline(never)]
    pub fn visit(&self, number: u64, note: u64) -> Option<(String, u64)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get_mut(&number)?;
        session.history.rotate_right(1);
        session.history[0] = note;
        Some((session.user.clone(), session.opened.elapsed().as_secs()))
    }
}
