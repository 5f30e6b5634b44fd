//! Headers of the archive that are no JSON, too much of it, or something else than the footer says.

use serde_json::{Value, json};

use super::{Case, Change, Expect, Make};

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let texts: [(&str, Make<String>); 9] = [
        ("no header", String::new),
        ("a header that is no JSON", || "{".to_owned()),
        ("a header of null", || "null ".to_owned()),
        ("a header that is a list", || "[]".to_owned()),
        ("lists 100,000 deep", || "[".repeat(100_000)),
        ("objects 100,000 deep", || "{\"a\":".repeat(100_000)),
        ("a header that is no UTF-8", || "{\"tool\":\"\u{0}\"}".to_owned()),
        ("a header of 5 MiB", || format!("{{\"tool\":\"{}\"}}", "x".repeat(5 << 20))),
        ("a number of a million digits", || format!("{{\"ordinal\":{}}}", "9".repeat(1 << 20))),
    ];
    for (name, text) in texts {
        cases.push(header(name, Expect::Refused, move |header| *header = Value::String(text())));
    }
    let fields: [(&str, Expect, &str, Make<Value>); 14] = [
        ("another level", Expect::Refused, "level", || json!("incremental")),
        ("another folder of ours", Expect::Refused, "dot_coord", || json!(7)),
        ("a root that is no path", Expect::Refused, "root", || json!(7)),
        ("a root with half an escape", Expect::Contained, "root", || json!("/%F")),
        ("no sources", Expect::Contained, "sources", || json!([])),
        ("sources outside", Expect::Contained, "sources", || json!(["../outside", "/", "%00"])),
        ("a million sources", Expect::Contained, "sources", || json!(vec!["a"; 500_000])),
        ("patterns that match for ever", Expect::Contained, "excludes", || {
            json!([format!("{}b", "**/".repeat(500)), "{".repeat(5000)])
        }),
        ("rules that are none", Expect::Contained, "rules", || json!({"larger_than": 0, "if_present": ["../x", ""]})),
        ("a digest of another length", Expect::Refused, "selection", || json!("00")),
        ("a time that no calendar has", Expect::Refused, "captured_at", || json!("9999999-99-99T99:99:99Z")),
        (
            "mounts outside",
            Expect::Contained,
            "mounts",
            || json!([{"path": "../outside", "file_system": "ext4", "identity": "x", "mount_point": "/", "place": "/"}]),
        ),
        ("a name for the terminal", Expect::Contained, "tool", || json!("\u{1b}]0;owned\u{7}\u{1b}[2J")),
        (
            "an archive that was rebuilt and lost 2^63 names",
            Expect::Contained,
            "rebuilt",
            || json!({"lost": 1_u64 << 63, "renumbered": true}),
        ),
    ];
    for (name, expect, field, value) in fields {
        cases.push(header(&format!("a header with {name}"), expect, move |header| header[field] = value()));
    }
    cases.push(header("a header with a field of 3 MiB that nobody knows", Expect::Clean, |header| {
        header["later"] = json!("x".repeat(3 << 20));
    }));
    let heads: [(&str, Change<Vec<u8>>); 4] = [
        ("a head of one block", |head| head.truncate(512)),
        ("a head whose header is 2^32 bytes long", |head| head[512..516].fill(0xff)),
        ("a head that begins with a pax header that is not there", |head| {
            head[156] = b'x';
            head.truncate(1024);
        }),
        ("a head of zeros", |head| head.fill(0)),
    ];
    for (name, change) in heads {
        cases.push(Case::lie(name, Expect::Refused, move |forge| forge.lies.head = Some(Box::new(change))));
    }
    cases
}

fn header(name: &str, expect: Expect, change: impl Fn(&mut Value) + Send + Sync + Clone + 'static) -> Case {
    Case::lie(name, expect, move |forge| forge.lies.header = Some(Box::new(change.clone())))
}
