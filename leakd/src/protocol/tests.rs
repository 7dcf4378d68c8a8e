//! Tests of the protocol's types, against its page in `docs`.

use super::*;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// The examples of the page: the lines of its `json` blocks.
fn examples() -> impl Iterator<Item = &'static str> {
    PAGE.split("```json\n").skip(1).flat_map(|block| {
        block.split("```").next().unwrap_or_default().lines().filter(|line| !line.is_empty())
    })
}

/// Check that every example of the page is a request or an answer, and that
/// each kind of both has one.
#[test]
fn the_page_has_it_right() {
    let mut kinds = std::collections::BTreeSet::new();
    for line in examples() {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        if value.get("ask").is_some() {
            let request = Request::parse(line.as_bytes()).unwrap_or_else(|(_, e)| panic!("{e}"));
            let again = serde_json::to_string(&request).expect("JSON");
            assert_eq!(
                Request::parse(again.as_bytes()).unwrap_or_else(|(_, e)| panic!("{again}: {e}")),
                request
            );
            kinds.insert(format!("ask {}", value["ask"]));
        } else {
            let _: Reply = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            kinds.insert(format!("answer {}", value["answer"]));
        }
    }
    let asks =
        ["status", "targets", "report", "watch", "attach", "kernel", "detach", "scan", "set"];
    for ask in asks {
        assert!(kinds.contains(&format!("ask \"{ask}\"")), "{ask}: {kinds:?}");
    }
    let answers =
        ["status", "targets", "watching", "event", "attached", "kernel_attached", "done", "error"];
    for answer in answers {
        assert!(kinds.contains(&format!("answer \"{answer}\"")), "{answer}: {kinds:?}");
    }
}

/// Check that every field of every answer is in the page.
#[test]
fn the_page_names_every_field() {
    fn names(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                for (name, value) in object {
                    found.push(name.clone());
                    names(value, found);
                }
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let evidence = Evidence { sites: vec![EvidenceSite::default()], span_ms: 1 };
    let trace = TraceView {
        series: vec![(0.0, 1)],
        scope: Some(String::new()),
        evidence: Some(evidence.clone()),
        ..TraceView::default()
    };
    let process =
        ProcessView { series: vec![(0.0, 1)], trace: Some(trace), ..ProcessView::default() };
    let event = Event {
        unit: Some(String::new()),
        evidence: Some(evidence),
        governor: Some(GovernorStep::default()),
        ..Event::default()
    };
    let growing = vec![KernelGrowth::default()];
    let kernel_memory = KernelMemoryView { growing, ..KernelMemoryView::default() };
    let answers = [
        Answer::Status(Status { kernel_memory, ..Status::default() }),
        Answer::Targets(Targets { processes: vec![process], omitted: 0 }),
        Answer::Watching(Welcome::default()),
        Answer::Event { event },
        Answer::Missed { count: 1 },
        Answer::Attached(Attached::default()),
        Answer::KernelAttached(KernelAttached {
            not_traced: vec![NotTraced::default()],
            ..KernelAttached::default()
        }),
        Answer::Done(Done::default()),
        Answer::Error(Failure { code: ErrorCode::Busy, message: String::new() }),
    ];
    let mut found = Vec::new();
    for answer in answers {
        names(&serde_json::to_value(Reply::new(None, answer)).expect("JSON"), &mut found);
    }
    found.sort();
    found.dedup();
    let missing: Vec<_> =
        found.iter().filter(|name| !PAGE.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/PROTOCOL.md: {missing:?}");
}

/// Check that what is no request is refused, with its id where it has one.
#[test]
fn rubbish_is_refused() {
    for line in [
        "",
        "status",
        "{",
        "[]",
        "{\"ask\":\"status\"}",
        "{\"v\":2,\"ask\":\"status\"}",
        "{\"v\":1}",
        "{\"v\":1,\"ask\":\"reboot\"}",
        "{\"v\":1,\"ask\":\"attach\"}",
        "{\"v\":1,\"ask\":\"attach\",\"pid\":-1}",
        "{\"v\":1,\"ask\":\"detach\",\"pid\":1,\"pidd\":1}",
        "{\"v\":1,\"ask\":\"set\",\"modee\":\"off\"}",
        "{\"v\":1,\"ask\":\"kernel\",\"caches\":\"dentry\"}",
        "{\"v\":1,\"ask\":\"kernel\",\"for_ms\":-1}",
        "{\"v\":1,\"ask\":\"report\"}",
        "{\"v\":1,\"ask\":\"report\",\"pid\":1,\"all\":true}",
        "{\"v\":1,\"ask\":\"report\",\"pid\":1,\"tops\":1}",
        "\u{0}\u{1b}[2J",
    ] {
        assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
    }
    let error = Request::parse(b"{\"v\":1,\"id\":7,\"ask\":\"reboot\"}").expect_err("refused");
    assert_eq!(error.0, Some(7.into()));
    // Depth costs stack; serde_json keeps a limit.
    let deep = "[".repeat(50_000);
    assert!(Request::parse(deep.as_bytes()).is_err());
}

/// Check that only what changes something needs the right to.
#[test]
fn changes() {
    let ask = |line: &str| Request::parse(line.as_bytes()).expect(line).ask;
    for line in examples().filter(|line| line.contains("\"ask\"")) {
        let changing = ["attach", "kernel", "detach", "scan", "set"]
            .iter()
            .any(|one| line.contains(&format!("\"ask\":\"{one}\"")));
        assert_eq!(ask(line).changes(), changing, "{line}");
    }
}
