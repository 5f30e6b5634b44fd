//! The wire contract only grows: what the last release understood is understood in the same way.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// A line for each RPC, field and enum value of the last release; a release adds its own. What is not released may still change, so
/// that what is newer is not in it.
const RELEASED: &str = include_str!("../../proto/coord/v1/released.txt");
const CHANGELOG: &str = include_str!("../../CHANGELOG.md");

fn released() -> BTreeSet<&'static str> {
    RELEASED.lines().filter(|line| !line.starts_with('#')).collect()
}

/// The newest release of a changelog, if it has one, and whether it has changes that are not released.
fn newest_release(changelog: &str) -> (Option<&str>, bool) {
    let mut sections = changelog.split("\n## ").skip(1).peekable();
    let unreleased = sections.next_if(|section| section.starts_with("Unreleased"));
    let is_change = |line: &str| line.starts_with("- ");
    (
        sections.next().and_then(|section| section.split_whitespace().next()),
        unreleased.is_some_and(|section| section.lines().any(is_change)),
    )
}

fn add_message(message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = message.name();
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().trim_start_matches(".coord.v1.").to_owned(),
            plain => plain.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        };
        lines.insert(format!("{name}.{} = {}: {repeated}{kind}", field.name(), field.number()));
    }
    for inner in &message.nested_type {
        add_message(inner, lines);
    }
}

fn contract() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in FileDescriptorSet::decode(coord_shared::api::DESCRIPTORS).unwrap().file {
        for message in &file.message_type {
            add_message(message, &mut lines);
        }
        for list in &file.enum_type {
            lines.extend(
                list.value.iter().map(|value| format!("{} {} = {}", list.name(), value.name(), value.number())),
            );
        }
        for service in &file.service {
            for call in &service.method {
                let stream = |is_stream: bool| if is_stream { "stream " } else { "" };
                let short = |name: &str| name.trim_start_matches(".coord.v1.").to_owned();
                let (asked, answered) = (stream(call.client_streaming()), stream(call.server_streaming()));
                let (input, output) = (short(call.input_type()), short(call.output_type()));
                lines.insert(format!("{}.{}({asked}{input}) -> {answered}{output}", service.name(), call.name()));
            }
        }
    }
    lines
}

#[test]
fn what_the_last_release_said_means_what_it_meant() {
    let now = contract();
    let released = released();
    assert!(released.len() > 500, "{} lines", released.len());
    let gone: Vec<_> = released.iter().filter(|line| !now.contains(**line)).collect();
    assert!(gone.is_empty(), "a peer of the last release would misunderstand us: {gone:#?}");
}

#[test]
fn a_release_takes_what_it_brought_into_the_list() {
    let (newest, has_more) = newest_release(CHANGELOG);
    let named = RELEASED.lines().find_map(|line| line.strip_prefix("# Release: ")).unwrap();
    assert_eq!(named, newest.unwrap_or("none yet"), "the list is that of another release than CHANGELOG.md's newest");
    let (now, released) = (contract(), released());
    let missing: Vec<_> = now.iter().filter(|line| !released.contains(line.as_str())).collect();
    assert!(has_more || missing.is_empty(), "released, and not in the list: {missing:#?}");
}

#[test]
fn the_newest_release_is_read_from_the_changelog() {
    assert_eq!(newest_release("# Changelog\n\n## Unreleased\n\n### Added\n- This.\n"), (None, true));
    let after = "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-12-24\n- That.\n\n## 0.1.0 - 2026-12-01\n- This.\n";
    assert_eq!(newest_release(after), (Some("0.2.0"), false));
}
