//! Holds the model, the JSON schema and the documentation to each other.

use std::collections::BTreeSet;

use leakd_common::event::StackEnd;
use leakd_common::target::COUNTERS;
use serde_json::Value;

use super::fixture::*;
use super::input::TargetSnapshot;
use super::memory::Memory;
use super::model::{Ended, Report, SeenFrom, Unprobed};
use super::{build, json};
use crate::watch::growth::Trend;

const SCHEMA: &str = include_str!("../../../docs/report.schema.json");
const DOCUMENTATION: &str = include_str!("../../../docs/REPORT.md");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn as_json(report: &Report) -> Value {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).unwrap();
    assert!(bytes.ends_with(b"}\n"));
    serde_json::from_slice(&bytes).unwrap()
}

/// Reports that use every field, every enumeration and every absent value.
fn reports() -> Vec<Report> {
    let mut full: TargetSnapshot = target(leaky_sites());
    full.counters.counts = std::array::from_fn::<u64, COUNTERS, _>(|index| 1_000 + index as u64);
    let mut reports = vec![
        report(target(leaky_sites())),
        report(full.clone()),
        report(target(Vec::new())),
        report(super::fixture::kernel()),
        build(super::input::Snapshot { targets: Vec::new(), ..snapshot(full.clone()) }, &SETTINGS),
    ];
    let ends = (1..=12).map(StackEnd::from_number);
    for (end, ended) in ends.zip([Ended::Running, Ended::Exited, Ended::Exec].into_iter().cycle()) {
        let mut target = full.clone();
        target.ended = ended;
        target.seen_from = SeenFrom::Start;
        target.bad_frees = Some(bad_frees());
        target.memory = target.memory.map(|memory| Memory { unseen_bytes: None, ..memory });
        target.sample_bytes = 512 << 10;
        target.sites[0].end = end;
        target.sites[0].outermost = Some("/usr/lib/libold.so".into());
        let reason = "no .eh_frame and no .debug_frame".into();
        target.without_table.insert("/usr/lib/libold.so".into(), reason);
        target.unprobed.push(Unprobed {
            symbol: "_Znwm".into(),
            module: "/usr/lib/libjemalloc.so.2".into(),
            reason: "it may throw".into(),
        });
        target.sites[1].ages = None;
        target.sites[2].key = leakd_common::site::OVERFLOW_SITE;
        target.sites[3].frames = vec![vec![crate::symbol::Frame::default()]];
        target.sites[3].site.lifetimes[31] = 5;
        reports.push(report(target));
    }
    let mut limited = target(leaky_sites());
    limited.limit = Some(limit());
    limited.memory_growth = Some(growth(Trend::Growing));
    reports.push(report(limited));
    reports
}

/// Check that generated reports are valid by the schema, and that they say
/// the same when they are read again.
#[test]
fn reports_are_valid() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for report in reports() {
        let document = as_json(&report);
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(serde_json::from_value::<Report>(document).unwrap(), report);
    }
}

/// Check that the schema refuses what it should: a field that is missing, one
/// that is unknown, a number where an address belongs.
#[test]
fn schema_is_strict() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good = as_json(&report(target(leaky_sites())));
    let changes: [fn(&mut Value); 5] = [
        |document| drop(document.as_object_mut().unwrap().remove("kernel")),
        |document| document["targets"][0]["surprise"] = 1.into(),
        |document| document["targets"][0]["sites"][0]["stack"][0]["address"] = 4096.into(),
        |document| document["schema"] = "leakd.report/2".into(),
        |document| document["targets"][0]["sites"][0]["outstanding_bytes"] = (-1).into(),
    ];
    for change in changes {
        let mut document = good.clone();
        change(&mut document);
        assert!(!validator.is_valid(&document));
    }
}

/// Names of all fields in a document, by path, array indices left out.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                // The names in `lost` are causes, not fields; what a call stack has
                // is documented at the call sites.
                let is_stack = member.get("stack_end").is_some() && path.ends_with("_at");
                if !path.ends_with("coverage.lost") && !is_stack {
                    fields(member, &path, found);
                }
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
        _ => {}
    }
}

/// Names of all properties that the schema has, in the same form.
fn properties(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        if reference.ends_with("/call_stack") {
            return;
        }
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return properties(root, target, path, found);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        properties(root, choice, path, found);
    }
    if schema["items"].is_object() {
        properties(root, &schema["items"], path, found);
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        properties(root, member, &path, found);
        found.insert(path);
    }
}

/// Check that schema and documentation name every field, and no other.
#[test]
fn every_field_is_documented() {
    let mut reported = BTreeSet::new();
    for report in reports() {
        fields(&as_json(&report), "", &mut reported);
    }
    let mut specified = BTreeSet::new();
    properties(&schema(), &schema(), "", &mut specified);
    assert_eq!(reported, specified, "model and schema differ");

    // Tables of the documentation: "| `field` | ..." below "## ... `path`".
    let mut documented = BTreeSet::new();
    let mut path = String::new();
    for line in DOCUMENTATION.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            path = heading.split('`').nth(1).unwrap_or_default().replace("[]", "");
        }
        if let Some(row) = line.strip_prefix("| `")
            && !path.is_empty()
        {
            let field = row.split('`').next().unwrap();
            let place = if path == "report" { String::new() } else { format!("{path}.") };
            documented.insert(format!("{place}{field}"));
        }
    }
    assert_eq!(reported, documented, "model and docs/REPORT.md differ");
}

/// Check that a call stack by itself is specified as that of a call site.
#[test]
fn call_stacks_are_alike() {
    let schema = schema();
    let [stack, site] = ["call_stack", "site"].map(|name| &schema["$defs"][name]["properties"]);
    assert_eq!(stack.as_object().unwrap().len(), 2);
    for (name, member) in stack.as_object().unwrap() {
        assert_eq!(member, &site[name], "{name}");
    }
}

/// Check that every property of the schema has a description.
#[test]
fn schema_describes_its_properties() {
    fn check(schema: &Value, path: &str) {
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let text = member["description"].as_str().unwrap_or_default();
            assert!(text.len() > 5, "{path}.{name} has no description");
            check(member, &format!("{path}.{name}"));
        }
    }
    check(&schema(), "");
    for (name, definition) in schema()["$defs"].as_object().unwrap() {
        check(definition, name);
    }
}

/// Check that one report is always written the same way.
#[test]
fn json_is_stable() {
    let mut bytes = Vec::new();
    let mut sites = leaky_sites();
    sites.truncate(2);
    json::write(&report(target(sites)), &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(text);
}
