//! A document in the form that was asked for: its rows, its fields, its names. Pure.

use serde_json::{Map, Value};

use super::{Align, Format, Output, aligned, render, yaml};
use crate::failure::Failure;

/// Which fields of each row or thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// The names of all of them.
    Names,
    /// These; a dot leads into a field: `newest.captured_at`.
    Only(Vec<String>),
}

impl Fields {
    /// Reads `--fields`: without a value, their names are asked for.
    pub fn read(text: &str) -> Result<Self, Failure> {
        if text.is_empty() {
            return Ok(Self::Names);
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err(Failure::usage(format!("--fields {text:?} has an empty name"), "write --fields name,state"));
        }
        Ok(Self::Only(names))
    }
}

/// A document as text, and what is said beside it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// For standard output.
    pub text: String,
    /// For standard error; may be empty.
    pub talk: String,
}

/// The rows of a list: an object whose only field is an array.
#[must_use]
pub fn only_list(document: &Value) -> Option<&[Value]> {
    let mut fields = document.as_object()?.values();
    match (fields.next(), fields.next()) {
        (Some(Value::Array(rows)), None) => Some(rows),
        _ => None,
    }
}

/// The name by which other commands take a thing.
#[must_use]
pub fn name(thing: &Value) -> Option<&str> {
    ["name", "id", "run_id", "path"].into_iter().find_map(|field| thing.get(field)?.as_str())
}

/// Writes a document in the form of `out`.
pub fn write(out: &Output, document: &Value, rows: Option<&[Value]>) -> Result<Written, Failure> {
    let things = rows.unwrap_or(std::slice::from_ref(document));
    let text = match (&out.fields, out.format) {
        (Some(Fields::Names), _) => return Ok(names_of_fields(things)),
        (_, Format::Name) => return Ok(names(things)),
        (Some(Fields::Only(names)), Format::Table | Format::Wide) if rows.is_some() => {
            return table(things, names, out.no_headers);
        }
        (Some(Fields::Only(names)), Format::Table | Format::Wide) => {
            let only = only(document, names)?;
            let facts: Vec<(&String, String)> = names.iter().map(|name| (name, cell(&only[name]))).collect();
            aligned(&facts)
        }
        (Some(Fields::Only(names)), form) => {
            let chosen = things.iter().map(|thing| only(thing, names)).collect::<Result<Vec<Value>, Failure>>()?;
            match rows {
                Some(_) if form != Format::Jsonl => whole(form, &Value::Array(chosen)),
                Some(_) | None => chosen.iter().map(|thing| whole(form, thing)).collect(),
            }
        }
        (None, Format::Jsonl) => things.iter().map(|thing| whole(Format::Jsonl, thing)).collect(),
        (None, form) => whole(form, document),
    };
    Ok(Written { text, talk: String::new() })
}

/// A value that nothing is left out of.
fn whole(form: Format, value: &Value) -> String {
    match form {
        Format::Jsonl => format!("{value}\n"),
        Format::Yaml => yaml::write(value),
        Format::Table | Format::Wide | Format::Json | Format::Name => format!("{value:#}\n"),
    }
}

/// A thing with these fields only, under their names as given.
pub fn only(thing: &Value, names: &[String]) -> Result<Value, Failure> {
    let mut chosen = Map::new();
    for name in names {
        let mut value = thing;
        for part in name.split('.') {
            // What is not known yet is null, and so is everything in it.
            if value.is_null() {
                break;
            }
            value = value.get(part).ok_or_else(|| {
                let known = names_of_fields(std::slice::from_ref(thing)).text;
                let known: Vec<&str> = known.lines().collect();
                Failure::usage(format!("there is no field {name:?} here"), format!("there are: {}", known.join(", ")))
            })?;
        }
        chosen.insert(name.clone(), value.clone());
    }
    Ok(Value::Object(chosen))
}

fn table(rows: &[Value], names: &[String], no_headers: bool) -> Result<Written, Failure> {
    let rows = rows.iter().map(|row| only(row, names)).collect::<Result<Vec<Value>, Failure>>()?;
    if rows.is_empty() {
        return Ok(Written { talk: "nothing to list".to_owned(), ..Written::default() });
    }
    let column = |name: &String| {
        let numbers = rows.iter().all(|row| row[name].is_number() || row[name].is_null());
        (name.clone(), if numbers { Align::Right } else { Align::Left })
    };
    let columns: Vec<(String, Align)> = names.iter().map(column).collect();
    let cells = rows.iter().map(|row| names.iter().map(|name| cell(&row[name])).collect()).collect();
    Ok(Written { text: render(&columns, cells, no_headers), talk: String::new() })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

fn names(things: &[Value]) -> Written {
    let text: String = things.iter().filter_map(name).map(|name| format!("{name}\n")).collect();
    let nameless = text.is_empty() && !things.is_empty();
    let talk = if nameless { "this result has no names; -o json has all of it" } else { "" };
    Written { text, talk: talk.to_owned() }
}

/// The fields that things have, and those within them.
fn names_of_fields(things: &[Value]) -> Written {
    let mut known: Vec<String> = Vec::new();
    for thing in things {
        let mut add = |name: String| {
            if !known.contains(&name) {
                known.push(name);
            }
        };
        for (name, value) in thing.as_object().into_iter().flatten() {
            add(name.clone());
            for inner in value.as_object().into_iter().flat_map(Map::keys) {
                add(format!("{name}.{inner}"));
            }
        }
    }
    let talk = if things.is_empty() { "the list is empty: its fields are not known" } else { "" };
    Written { text: known.iter().map(|name| format!("{name}\n")).collect(), talk: talk.to_owned() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::{Fields, Written, only_list, write};
    use crate::output::{Format, Output};

    fn written(format: Format, fields: Option<&str>, document: &Value) -> Written {
        let out = Output { fields: fields.map(|text| Fields::read(text).unwrap()), ..Output::new(format) };
        write(&out, document, only_list(document)).unwrap()
    }

    fn runs() -> Value {
        json!({ "runs": [
            { "id": "a1", "host": "web-1", "bytes": 12, "fault": null },
            { "id": "b2", "host": "db-1", "bytes": 3456, "fault": { "code": "disk_full" } },
        ] })
    }

    #[test]
    fn a_list_is_written_a_row_a_line_and_by_name() {
        let lines = written(Format::Jsonl, None, &runs()).text;
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(serde_json::from_str::<Value>(lines.lines().nth(1).unwrap()).unwrap(), runs()["runs"][1]);
        assert_eq!(written(Format::Name, None, &runs()).text, "a1\nb2\n");
        assert_eq!(written(Format::Name, None, &json!({ "name": "web-1/srv", "id": "x" })).text, "web-1/srv\n");
        assert!(written(Format::Name, None, &json!({ "jobs": 1 })).talk.contains("no names"));
        assert_eq!(written(Format::Jsonl, None, &json!({ "runs": [] })), Written::default());
    }

    #[test]
    fn fields_are_chosen_in_every_form() {
        assert_eq!(
            written(Format::Table, Some("id,bytes,fault.code"), &runs()).text,
            "ID  BYTES  FAULT.CODE\na1     12  -\nb2   3456  disk_full\n"
        );
        assert_eq!(written(Format::Table, Some("id"), &runs()["runs"][0]).text, "id  a1\n");
        assert_eq!(written(Format::Jsonl, Some("id"), &runs()).text, "{\"id\":\"a1\"}\n{\"id\":\"b2\"}\n");
        assert_eq!(written(Format::Yaml, Some("id"), &runs()).text, "- id: a1\n- id: b2\n");
        assert_eq!(written(Format::Json, Some("id"), &json!({ "id": "x", "b": 1 })).text, "{\n  \"id\": \"x\"\n}\n");
    }

    #[test]
    fn the_names_of_fields_can_be_asked_for_and_a_wrong_one_is_told() {
        assert_eq!(written(Format::Table, Some(""), &runs()).text, "bytes\nfault\nhost\nid\nfault.code\n");
        let out = Output { fields: Some(Fields::read("sise").unwrap()), ..Output::new(Format::Json) };
        let error = write(&out, &runs(), only_list(&runs())).unwrap_err();
        assert_eq!(error.exit().code(), 2);
        assert!(format!("{error:?}").contains("bytes, fault, host, id"), "{error:?}");
        assert!(Fields::read("a,,b").is_err());
    }
}
