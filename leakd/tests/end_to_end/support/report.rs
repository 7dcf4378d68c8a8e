//! The JSON report, as a test reads it.

use serde_json::Value;
use std::path::Path;

/// A parsed report whose shape has been checked.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

/// One call site of a report.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a>(pub &'a Value);

/// One frame of a site's stack.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a>(pub &'a Value);

/// One process of a report.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a>(pub &'a Value);

/// Functions that belong to an allocator or pass straight on to one: the
/// caller of these is who allocates.
const ALLOCATORS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "strdup",
    "__strdup",
    "__GI___strdup", // where libc6-dbg is installed
    "__rust_alloc",
    "__rust_alloc_zeroed",
    "__rust_realloc",
    "__rdl_alloc",
    "xpool_alloc",
];

/// The bare name of a demangled function: no namespace, arguments, template
/// arguments, hash or compiler's suffix.
pub fn bare_name(function: &str) -> &str {
    let name = function.split(['(', '<']).next().unwrap_or_default();
    let mut parts: Vec<_> = name.split("::").collect();
    let hash = |part: &&str| part.len() == 17 && part.starts_with('h');
    if parts.len() > 1 && parts.last().is_some_and(hash) {
        parts.pop();
    }
    parts.last().unwrap_or(&name).split('.').next().unwrap_or_default()
}

impl<'a> Frame<'a> {
    /// The function's name, demangled, if it is known.
    pub fn function(self) -> Option<&'a str> {
        self.0["function"].as_str()
    }

    /// The file name of the module.
    pub fn module(self) -> Option<&'a str> {
        self.0["module"].as_str().and_then(|path| Path::new(path).file_name()?.to_str())
    }

    /// The address.
    pub fn address(self) -> u64 {
        let text = self.0["address"].as_str().expect("checked when parsed");
        number(text).unwrap_or_else(|| panic!("{text:?} is no hex address"))
    }

    /// Whether it is part of an allocator (see [`ALLOCATORS`]) or of a
    /// language's path to one.
    fn allocates(self) -> bool {
        self.function().is_some_and(|function| {
            ALLOCATORS.contains(&bare_name(function))
                || [
                    "operator new",
                    "alloc::",
                    "<alloc::",
                    "std::alloc::",
                    "<std::alloc::",
                    "std::sys::alloc::",
                    "core::",
                ]
                .iter()
                .any(|start| function.starts_with(start))
        })
    }
}

/// A hex number with or without 0x.
pub fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

impl<'a> Site<'a> {
    /// A numeric field.
    pub fn number(self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {}", self.0))
    }

    /// Outstanding blocks and bytes.
    pub fn outstanding(self) -> (u64, u64) {
        (self.number("outstanding_blocks"), self.number("outstanding_bytes"))
    }

    /// The stack, innermost frame first.
    pub fn stack(self) -> impl DoubleEndedIterator<Item = Frame<'a>> + Clone {
        self.0["stack"].as_array().expect("checked when parsed").iter().map(Frame)
    }

    /// The innermost frame that is not an allocator's.
    pub fn allocating_frame(self) -> Option<Frame<'a>> {
        self.stack().find(|frame| !frame.allocates())
    }

    /// The bare name of the function that allocates.
    pub fn function(self) -> &'a str {
        self.allocating_frame().and_then(Frame::function).map_or("", bare_name)
    }
}

impl<'a> Target<'a> {
    /// Its process id.
    pub fn pid(self) -> i64 {
        self.0["pid"].as_i64().expect("checked when parsed")
    }

    /// Its call sites, the first the most suspicious.
    pub fn sites(self) -> impl DoubleEndedIterator<Item = Site<'a>> + Clone {
        self.0["sites"].as_array().expect("checked when parsed").iter().map(Site)
    }

    /// Outstanding blocks and bytes in all.
    pub fn outstanding(self) -> (u64, u64) {
        let number = |field: &str| self.0["outstanding"][field].as_u64().expect("checked");
        (number("blocks"), number("bytes"))
    }

    /// A count of its coverage.
    pub fn coverage(self, field: &str) -> u64 {
        self.0["coverage"][field].as_u64().expect("checked when parsed")
    }

    /// Everything that was lost, of whatever cause.
    pub fn lost(self) -> u64 {
        let lost = self.0["coverage"]["lost"].as_object().expect("checked when parsed");
        lost.values().map(|count| count.as_u64().expect("a count")).sum()
    }

    /// Blocks and bytes of all sites where this function allocates.
    pub fn outstanding_in(self, function: &str) -> (u64, u64) {
        self.sites()
            .filter(|site| site.function() == function)
            .map(Site::outstanding)
            .fold((0, 0), |sum, site| (sum.0 + site.0, sum.1 + site.1))
    }

    /// The first site; it must be allocated in `function`.
    pub fn first_site(self, function: &str) -> Site<'a> {
        let first = self
            .sites()
            .next()
            .unwrap_or_else(|| panic!("no site where {function} was due: {:#}", self.0));
        assert_eq!(first.function(), function, "the first site is not the leak: {:#}", self.0);
        first
    }
}

/// The functions of the first site's stack, "?" where one is not known.
pub fn first_site_names(report: &Report) -> Vec<String> {
    let name = |frame: Frame<'_>| frame.function().unwrap_or("?").to_owned();
    let target = report.targets().next();
    target
        .and_then(|target| target.sites().next())
        .map_or(vec![], |site| site.stack().map(name).collect())
}

impl Report {
    /// Parses stdout: one JSON document, with all the fields that the schema
    /// `leakd.report/1` promises.
    pub fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).unwrap_or_else(|error| {
            panic!("the report is not one JSON document: {error}:\n{text}")
        });
        check_shape(&json);
        Self(json)
    }

    /// Its targets.
    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        self.0["targets"].as_array().expect("checked when parsed").iter().map(Target)
    }

    /// The target with this pid.
    pub fn target(&self, pid: i32) -> Target<'_> {
        self.targets()
            .find(|target| target.pid() == i64::from(pid))
            .unwrap_or_else(|| panic!("process {pid} is not in the report: {:#}", self.0))
    }
}

/// Checks that the first site of the report is allocated in `function`.
pub fn assert_first_site<'a>(report: &'a Report, function: &str) -> Site<'a> {
    assert_eq!(report.targets().count(), 1, "one target was due: {:#}", report.0);
    let names = first_site_names(report);
    assert!(!names.is_empty(), "there is no site, or it has no stack: {:#}", report.0);
    report.targets().next().expect("counted").first_site(function)
}

fn check_shape(report: &Value) {
    let due = |object: &Value, fields: &[&str]| {
        for field in fields {
            assert!(object.get(field).is_some(), "no field {field} in {object:#}");
        }
    };
    due(report, &["schema", "started", "ended", "host", "kernel", "targets"]);
    assert_eq!(report["schema"], "leakd.report/1");
    for target in report["targets"].as_array().expect("targets is an array") {
        due(target, &["pid", "comm", "exe", "coverage", "outstanding", "sites"]);
        assert!(target["pid"].is_i64(), "pid is a number: {target:#}");
        let coverage = &target["coverage"];
        due(coverage, &["allocations", "frees", "lost", "sampled_bytes"]);
        assert!(coverage["lost"].is_object(), "lost is by cause: {coverage:#}");
        assert!(coverage["allocations"].is_u64() && coverage["frees"].is_u64());
        assert!(
            target["outstanding"]["bytes"].is_u64() && target["outstanding"]["blocks"].is_u64()
        );
        for site in target["sites"].as_array().expect("sites is an array") {
            for field in [
                "outstanding_bytes",
                "outstanding_blocks",
                "oldest_age_ns",
                "median_age_ns",
                "allocated_bytes",
                "allocated_blocks",
                "freed_blocks",
            ] {
                assert!(site[field].is_u64(), "{field} is a number in {site:#}");
            }
            due(site, &["stack", "stack_end"]);
            for frame in site["stack"].as_array().expect("stack is an array") {
                due(
                    frame,
                    &["function", "file", "line", "module", "build_id", "address", "inlined"],
                );
                assert!(frame["address"].as_str().is_some_and(|text| number(text).is_some()));
                assert!(frame["inlined"].is_boolean(), "inlined is a boolean in {frame:#}");
            }
        }
    }
}
