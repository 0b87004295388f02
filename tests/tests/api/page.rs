//! `docs/command-line.md`, read: the exit statuses of each command, and the shapes of JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/command-line.md");

/// The cells of each row of a table in `lines`, without the head.
fn rows<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Vec<&'a str>> {
    let cells = |line: &'a str| {
        let inner = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(str::trim).collect::<Vec<_>>())
    };
    lines
        .filter_map(cells)
        .filter(|row| row[0].starts_with('`'))
}

/// Which exit statuses each command may end with.
pub(crate) fn statuses() -> BTreeSet<(String, i32)> {
    let begin = PAGE.find("<!-- statuses:begin -->").unwrap();
    let end = PAGE.find("<!-- statuses:end -->").unwrap();
    rows(PAGE[begin..end].lines())
        .flat_map(|row| {
            let command = row[0].trim_matches('`').to_owned();
            let codes = row[1].split(' ').map(|code| code.parse().unwrap());
            codes
                .map(|code| (command.clone(), code))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Fields with their types, by the name of the shape.
pub(crate) struct Shapes(BTreeMap<&'static str, Vec<(&'static str, &'static str)>>);

impl Shapes {
    pub(crate) fn read() -> Self {
        let sections = PAGE.split("\n### ").skip(1).map(|section| {
            let (name, rest) = section.split_once('\n').unwrap();
            let fields = rows(rest.lines()).map(|row| (row[0].trim_matches('`'), row[1]));
            (name, fields.collect())
        });
        Self(sections.collect())
    }

    /// Names of the shapes that a command prints.
    pub(crate) fn schemas(&self) -> BTreeSet<String> {
        let schemas = self.0.keys().filter(|name| name.starts_with("belljar."));
        schemas.map(|name| (*name).to_owned()).collect()
    }

    /// Fails the test unless `json` is what its schema says. Gives the schema.
    pub(crate) fn check(&self, json: &Value) -> String {
        let schema = json["schema"].as_str().unwrap_or_default();
        let wrong = self.wrong(json, schema, schema);
        assert!(wrong.is_empty(), "{}\n{json:#}", wrong.join("\n"));
        schema.to_owned()
    }

    /// What is wrong with a value that shall be of these types.
    fn wrong(&self, value: &Value, types: &str, at: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for one in types.split(" or ") {
            wrong = self.wrong_for(value, one, at);
            if wrong.is_empty() {
                break;
            }
        }
        wrong
    }

    fn wrong_for(&self, value: &Value, one: &str, at: &str) -> Vec<String> {
        if let Some(inner) = one.strip_prefix("list of ") {
            let Some(items) = value.as_array() else {
                return vec![format!("{at} is no list")];
            };
            let each = items.iter().enumerate();
            return each
                .flat_map(|(n, item)| self.wrong_for(item, inner, &format!("{at}[{n}]")))
                .collect();
        }
        if let Some(inner) = one.strip_prefix("map of ") {
            let Some(items) = value.as_object() else {
                return vec![format!("{at} is no map")];
            };
            let each = items.iter();
            return each
                .flat_map(|(name, item)| self.wrong_for(item, inner, &format!("{at}.{name}")))
                .collect();
        }
        let text = value.as_str().unwrap_or_default();
        let fits = match one {
            "anything" => !value.is_null(),
            "null" => value.is_null(),
            "true" => *value == Value::Bool(true),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            "digest" => {
                belljar_core::Digest::from_hex(text.trim_start_matches("sha256:")).is_ok()
                    && text.starts_with("sha256:")
            }
            "time" => text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T',
            "absent" => false,
            shape => return self.wrong_in(value, shape, at),
        };
        if fits {
            Vec::new()
        } else {
            vec![format!("{at} is no {one}: {value}")]
        }
    }

    fn wrong_in(&self, value: &Value, shape: &str, at: &str) -> Vec<String> {
        let Some(fields) = self.0.get(shape) else {
            return vec![format!("{at}: the page has no shape {shape:?}")];
        };
        let Some(found) = value.as_object() else {
            return vec![format!("{at} is no {shape}: {value}")];
        };
        let unknown = found
            .keys()
            .filter(|name| !fields.iter().any(|(field, _)| field == name))
            .map(|name| format!("{at}.{name} does not stand in the page"));
        let mut wrong: Vec<String> = unknown.collect();
        for (field, types) in fields {
            let at = format!("{at}.{field}");
            match found.get(*field) {
                Some(value) => wrong.extend(self.wrong(value, types, &at)),
                None if types.ends_with(" or absent") => {}
                None => wrong.push(format!("{at} is missing")),
            }
        }
        wrong
    }
}

#[test]
fn a_shape_finds_what_is_missing_unknown_or_of_another_type() {
    let shapes = Shapes::read();
    let fine = serde_json::json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 1});
    assert!(shapes.wrong(&fine, "object", "x").is_empty());
    for (change, value) in [
        ("size", Value::Null),
        ("size", (-1).into()),
        ("digest", "sha256:0".into()),
        ("more", 1.into()),
    ] {
        let mut other = fine.clone();
        other[change] = value;
        assert!(!shapes.wrong(&other, "object", "x").is_empty(), "{other}");
    }
    assert!(!shapes.wrong(&Value::Null, "object", "x").is_empty());
    assert!(shapes.wrong(&Value::Null, "object or null", "x").is_empty());
    assert!(
        !shapes
            .wrong(&serde_json::json!({}), "object", "x")
            .is_empty()
    );
    assert!(
        !shapes
            .wrong(&serde_json::json!([1]), "list of string", "x")
            .is_empty()
    );
    assert!(shapes.schemas().len() > 10);
}
