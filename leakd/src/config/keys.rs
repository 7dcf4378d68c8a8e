//! Every key and what it means: the one place. `leakd --print-config` and
//! `systemd/leakd.toml` are made from it.

use std::fmt::Write;

use super::Config;

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with its section: `watch.interval`.
    pub name: &'static str,
    /// What it means; lines of at most 77 columns.
    pub meaning: &'static str,
}

macro_rules! keys {
    ($($name:literal $meaning:literal)*) => {
        /// All keys, in the order in which they are printed.
        pub const KEYS: &[Key] = &[$(Key { name: $name, meaning: $meaning }),*];
    };
}

keys! {
"mode"
"What is traced without being asked for:
\"adaptive\"  what grows, as far as `include` and `exclude` allow
\"targets\"   what `include` names, always
\"all\"       every process, as far as there is room
\"off\"       nothing; the watch goes on"
"log_level"
"error, warn, info, debug or trace."
"watch.interval"
"Between two looks at all processes. It is made longer by itself where a
look would cost more than 0.3 % of a CPU."
"watch.startup"
"A process's growth is not judged before it has been running for so long."
"watch.min_growth_mib_per_hour"
"Slower growth makes no suspect."
"watch.max_processes"
"Processes that are watched; more are counted and left out."
"trace.max_targets"
"Processes that are traced at once."
"trace.window"
"How long a suspect is traced before it is judged."
"trace.rest"
"How long a process is then left alone. It doubles each time nothing was
found that grows, up to `max_rest`."
"trace.max_rest"
"See `rest`."
"trace.min_age"
"Blocks younger than this rank no call site in reports."
"trace.sample_bytes"
"Record about one allocation for each so many bytes; 0: every one, until the
budget demands otherwise."
"trace.max_blocks"
"Outstanding blocks that are kept of each target, 100 bytes of kernel memory
each. More are counted as lost."
"budget.target_percent"
"What tracing may cost a target, in percent of its CPU time."
"budget.machine_percent"
"What leakd may cost altogether, in percent of all CPUs."
"kernel.mode"
"What of the kernel's own memory is traced without being asked for:
\"adaptive\"  the slab cache, or the kind of memory, that grows
\"off\"       nothing; the watch goes on, and clients may ask for a trace
With the `mode` \"off\" at the top, it is nothing, too."
"kernel.budget_percent"
"What that may cost, in percent of all CPUs. It is part of what leakd may
cost altogether."
"kernel.max_blocks"
"Outstanding blocks of the kernel that are kept, 100 bytes of kernel memory
each, which are taken while it is under trace. More are counted as lost."
"include.pid"
"Which processes may be traced (all, if nothing is named here), or with mode
\"targets\" are to be traced. A process is meant if any line fits. Patterns
are those of a shell; `*` goes over `/`, too.
By number."
"include.comm"
"By name, as in /proc/PID/comm."
"include.exe"
"By the path of the program."
"include.user"
"By user, a name or number."
"include.cgroup"
"By control group, such as \"/user.slice/*\"."
"include.unit"
"By systemd unit, such as \"nginx.service\"."
"exclude.pid"
"Which are left alone, even if they are included."
"exclude.comm"
"As in [include]."
"exclude.exe"
"As in [include]."
"exclude.user"
"As in [include]."
"exclude.cgroup"
"As in [include]."
"exclude.unit"
"As in [include]."
"server.socket"
"Where clients connect. Takes a restart."
"server.group"
"Who may read: root and this group. Takes a restart."
"server.admin_group"
"Who may attach, detach and set, besides root; \"\": nobody."
}

/// The configuration as a file, each key with its meaning.
pub fn print(config: &Config) -> String {
    let value = toml::Value::try_from(config).unwrap_or(toml::Value::Boolean(false));
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let (in_section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if in_section != section {
            section = in_section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let mut table = Some(&value);
        if !section.is_empty() {
            table = table.and_then(|table| table.get(section));
        }
        let Some(value) = table.and_then(|table| table.get(name)) else { continue };
        let separator = if text.is_empty() || text.ends_with("]\n") { "" } else { "\n" };
        text.push_str(separator);
        for line in key.meaning.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}
