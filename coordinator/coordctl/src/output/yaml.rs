//! YAML of the documents that are JSON: block style, text quoted as JSON quotes it wherever a reader could take it for something else.
//! Every reader of YAML 1.1 or 1.2 gets the values that the JSON has.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// The document, with a line break at its end.
pub fn write(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut text, map, 0),
        Value::Array(list) if !list.is_empty() => array(&mut text, list, 0),
        scalar => text = format!("{}\n", inline(scalar)),
    }
    text
}

fn object(text: &mut String, map: &Map<String, Value>, depth: usize) {
    for (number, (key, value)) in map.iter().enumerate() {
        // The first key of an object in a list stands behind the dash.
        if number > 0 || text.is_empty() || text.ends_with('\n') {
            indent(text, depth);
        }
        text.push_str(&scalar(key));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                object(text, inner, depth + 1);
            }
            Value::Array(inner) if !inner.is_empty() => {
                text.push('\n');
                array(text, inner, depth + 1);
            }
            value => {
                text.push(' ');
                text.push_str(&inline(value));
                text.push('\n');
            }
        }
    }
}

fn array(text: &mut String, list: &[Value], depth: usize) {
    for value in list {
        indent(text, depth);
        text.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => object(text, inner, depth + 1),
            Value::Array(inner) if !inner.is_empty() => {
                // A list in a list begins on a line of its own.
                text.truncate(text.len() - 1);
                text.push('\n');
                array(text, inner, depth + 1);
            }
            value => {
                text.push_str(&inline(value));
                text.push('\n');
            }
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// What fits behind a key.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => numeral(number),
        Value::String(text) => scalar(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// YAML 1.1 takes `1e16` for text: it wants a point, and a sign in the exponent.
fn numeral(number: &Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return text };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// Text, bare where no reader can take it for anything else.
fn scalar(text: &str) -> String {
    // What YAML 1.1 takes for a truth value or for nothing.
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// In double quotes; everything that does not print is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' '..='~' | '\u{a0}'..='\u{d7ff}' if !matches!(c, '\u{2028}' | '\u{2029}') => out.push(c),
            '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            other => {
                // Writing into a string does not fail.
                let _written = write!(out, "\\u{:04x}", u32::from(other));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use serde_json::{Value, json};

    use super::write;

    #[test]
    fn yaml_reads_well() {
        let value = json!({ "hosts": [{ "name": "web-1", "labels": { "role": "web" }, "state": "on" }], "none": [] });
        let text = "hosts:\n  - labels:\n      role: web\n    name: web-1\n    state: \"on\"\nnone: []\n";
        assert_eq!(write(&value), text);
    }

    #[test]
    fn another_reader_of_yaml_gets_the_values_of_the_json() {
        let words =
            ["yes", "No", "null", "~", "0x1f", "1e3", "12:30", "", " a ", "a: b", "a #b", "- x", "web-1/srv", "="];
        let value = json!([{
            "words": words,
            "text": "line\nnext\ttab \"quoted\" back\\slash \u{7f}\u{85}\u{1b}[2J \u{2028} \u{feff} ä 日本 \u{1f600}",
            "yes": null, "a key": {}, "empty": [], "-": 1,
            "numbers": [0, -1, 18_446_744_073_709_551_615_u64, 0.5, 1e16, 1.5e-9],
            "nested": [[1, [2, 3]], [], [[]], { "a": { "b": [{ "c": true }, { "d": {} }] } }, {}],
            "at": "2026-11-20T14:00:00Z",
        }, {}, "on"]);
        let script = "import sys, json, yaml; print(json.dumps(yaml.safe_load(sys.stdin.buffer.read().decode())))";
        let mut python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with its module yaml (python3-yaml) reads what we write");
        python.stdin.take().unwrap().write_all(write(&value).as_bytes()).unwrap();
        let answer = python.wait_with_output().unwrap();
        assert!(answer.status.success(), "python3 needs its module yaml (python3-yaml)\n{}", write(&value));
        assert_eq!(serde_json::from_slice::<Value>(&answer.stdout).unwrap(), value);
    }
}
