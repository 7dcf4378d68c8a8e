//! Counters of requests. **Leaks:** see [`Metrics::count_path`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counters by label.
#[derive(Debug, Default)]
pub struct Metrics {
    by_path: Mutex<BTreeMap<String, u64>>,
    by_verb: Mutex<BTreeMap<String, u64>>,
}

impl Metrics {
    /// Counts a request by its full path.
    ///
    /// This is the third leak: the path holds the number of the request, so
    /// that hardly any counter is ever used again.
    #[inline(never)]
    pub fn count_path(&self, path: &str) {
        let mut counters = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.entry(path.to_owned()).or_default() += 1;
    }

    /// Counts a request by its verb: three counters in all.
    #[inline(never)]
    pub fn count_verb(&self, verb: &str) {
        let mut counters = self.by_verb.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.entry(verb.to_owned()).or_default() += 1;
    }
}
