//! The words that schemas of JSON are written with.

use serde_json::{Map, Value, json};

/// The schema of this name in the document.
pub(crate) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// A whole number.
pub(super) fn whole() -> Value {
    json!({ "type": "integer" })
}

/// How many.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A number that need not be whole.
pub(super) fn number() -> Value {
    json!({ "type": "number" })
}

pub(super) fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// A list in which nothing ever is.
pub(super) fn nothing() -> Value {
    json!({ "type": "array", "maxItems": 0 })
}

/// An object whose members are named by what they are of: ids, keys.
pub(super) fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

/// This or nothing.
pub(super) fn or_null(mut of: Value) -> Value {
    let Some(kind) = of.get("type").cloned() else { return any([of, json!({ "type": "null" })]) };
    of["type"] = json!([kind, "null"]);
    of
}

pub(super) fn any<const N: usize>(of: [Value; N]) -> Value {
    json!({ "anyOf": of.as_slice() })
}

/// One of these texts.
pub(super) fn one_of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Value {
    json!({ "enum": texts.into_iter().map(|text| json!(text.as_ref())).collect::<Value>() })
}

/// These members and no others. One whose name ends in `?` may be missing.
pub(super) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let mut object = open(members);
    object["additionalProperties"] = json!(false);
    object
}

/// The same, of what is sent: whatever else there is is not looked at.
pub(super) fn open<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, of) in members {
        if !name.ends_with('?') {
            required.push(json!(name));
        }
        properties.insert(name.trim_end_matches('?').to_owned(), of);
    }
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

/// An object that has all of these names, each with such a value.
pub(super) fn each<T: AsRef<str>>(names: impl IntoIterator<Item = T>, of: &Value) -> Value {
    let names: Vec<T> = names.into_iter().collect();
    object(names.iter().map(|name| (name.as_ref(), of.clone())))
}

/// All members of the first, and more.
pub(super) fn with<'a>(mut first: Value, more: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let mut more = open(more);
    if let (Value::Object(first), Value::Object(more)) = (&mut first["properties"], more["properties"].take())
    {
        first.extend(more);
    }
    if let (Value::Array(first), Value::Array(more)) = (&mut first["required"], more["required"].take()) {
        first.extend(more);
    }
    first
}
