//! Which processes are meant.

use serde::{Deserialize, Serialize};

use super::{Pattern, UserName};

/// Processes, by any of these. [`super::KEYS`] says what each means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Select {
    pub pid: Vec<u32>,
    pub comm: Vec<Pattern>,
    pub exe: Vec<Pattern>,
    pub user: Vec<UserName>,
    pub cgroup: Vec<Pattern>,
    pub unit: Vec<Pattern>,
}

/// What is known of a process that may be meant.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Subject<'a> {
    pub pid: u32,
    pub comm: &'a str,
    pub exe: &'a str,
    pub uid: u32,
    pub cgroup: &'a str,
    pub unit: Option<&'a str>,
}

impl Select {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether any of it fits.
    pub fn fits(&self, subject: &Subject<'_>) -> bool {
        let any = |patterns: &[Pattern], text: &str| patterns.iter().any(|one| one.fits(text));
        self.pid.contains(&subject.pid)
            || any(&self.comm, subject.comm)
            || any(&self.exe, subject.exe)
            || self.user.iter().any(|user| user.uid() == subject.uid)
            || any(&self.cgroup, subject.cgroup)
            || subject.unit.is_some_and(|unit| any(&self.unit, unit))
    }
}
