//! Answers by the document that the session gives of itself: each that a test gets is looked at.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::session::Session;
use crate::support::Folder;

static DOCUMENT: LazyLock<Value> = LazyLock::new(rest::openapi::document);

/// Whether this segment of a path may be that of the document.
fn is_of(part: &str, of: &str) -> bool {
    of.starts_with('{') || part == of
}

/// The path of the document that this one is, with the fewest parameters.
fn path_of(path: &str) -> Option<&'static String> {
    let path = path.strip_prefix("/v1/").map_or_else(|| path.to_owned(), |rest| format!("/{rest}"));
    let parts: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let all = DOCUMENT["paths"].as_object().unwrap().keys().filter(|of| {
        let of: Vec<&str> = of.split('/').collect();
        of.len() == parts.len() && parts.iter().zip(of).all(|(part, of)| is_of(part, of))
    });
    all.min_by_key(|of| of.matches('{').count())
}

/// What is wrong with an answer; none = nothing.
pub(crate) fn wrong(method: &str, path: &str, (status, kind, body): (u16, &str, &str)) -> Option<String> {
    let Some(of) = path_of(path) else {
        let is_told = status >= 400 && kind == "application/json";
        return (!is_told).then(|| format!("it is not in the document, and answers {status} as {kind}"));
    };
    let operation = &DOCUMENT["paths"][of][method.to_ascii_lowercase()];
    if operation.is_null() {
        return (status < 400).then(|| format!("{of} has no {method}, and answers {status}"));
    }
    let response = &operation["responses"][status.to_string()];
    let Some(content) = response["content"].as_object() else {
        return Some(format!("{status} is not in the document: {body}"));
    };
    let (kind_of, content) = content.iter().next().unwrap();
    if kind.split(';').next() != Some(kind_of) {
        return Some(format!("it is {kind}, not {kind_of}: {body}"));
    }
    if kind_of != "application/json" {
        return None;
    }
    let Ok(value) = serde_json::from_str(body) else { return Some(format!("it is no JSON: {body}")) };
    let why = check(&content["schema"], &value, "");
    why.map(|why| format!("{why}, by {}: {body}", content["schema"]))
}

/// The type of a value, as schemas name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What of a value is not as its schema says. A keyword that is not known here is an error of this test.
fn check(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let not = |what: &str| Some(format!("`{at}` {what}"));
    let fits = |of: &Value| type_of(value) == of || (of == "number" && type_of(value) == "integer");
    for (keyword, of) in schema.as_object().unwrap() {
        let bad = match keyword.as_str() {
            "$ref" => {
                let name = of.as_str().unwrap().rsplit('/').next().unwrap();
                check(&DOCUMENT["components"]["schemas"][name], value, at)
            }
            "type" => match of {
                Value::Array(some) if some.iter().any(fits) => None,
                Value::String(_) if fits(of) => None,
                _ => not(&format!("is of type {}, not {of}", type_of(value))),
            },
            "enum" if of.as_array().unwrap().contains(value) => None,
            "const" if of == value => None,
            "enum" | "const" => not(&format!("is {value}, not {of}")),
            "anyOf" => {
                let each: Vec<Option<String>> =
                    of.as_array().unwrap().iter().map(|of| check(of, value, at)).collect();
                match each.iter().any(Option::is_none) {
                    true => None,
                    false => not(&format!("is none of these: {each:?}")),
                }
            }
            "minimum" | "maximum" => {
                let (least, most) = if keyword == "minimum" { (of, value) } else { (value, of) };
                let is_out = value.is_number() && least.as_f64() > most.as_f64();
                if is_out { not(&format!("is {value}, and the {keyword} is {of}")) } else { None }
            }
            // The only one is that of ids.
            "pattern" => {
                assert_eq!(of, "^[0-9a-fA-F]{32}$");
                let is_id = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                if value.as_str().is_some_and(is_id) { None } else { not("is no id") }
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.enumerate().find_map(|(n, item)| check(of, item, &format!("{at}[{n}]")))
            }
            "minItems" if value.as_array().map(Vec::len) < of.as_u64().map(|n| n as usize) => not("is short"),
            "maxItems" if value.as_array().map(Vec::len) > of.as_u64().map(|n| n as usize) => not("is long"),
            "minItems" | "maxItems" => None,
            "required" if !value.is_object() => None,
            "required" => {
                let missing =
                    of.as_array().unwrap().iter().find(|name| value.get(name.as_str().unwrap()).is_none());
                missing.and_then(|name| not(&format!("has no {name}")))
            }
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                members
                    .filter_map(|(name, member)| Some((name, of.get(name)?, member)))
                    .find_map(|(name, of, member)| check(of, member, &format!("{at}.{name}")))
            }
            "additionalProperties" => {
                let known = |name: &&String| schema["properties"].get(name.as_str()).is_some();
                let mut more = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                match of {
                    Value::Bool(false) => more.next().and_then(|(name, _)| not(&format!("has `{name}`"))),
                    of => more.find_map(|(name, member)| check(of, member, &format!("{at}.{name}"))),
                }
            }
            other => panic!("what is {other}?"),
        };
        if bad.is_some() {
            return bad;
        }
    }
    None
}

#[test]
fn what_is_not_as_the_document_says_is_seen() {
    let seen = |method: &str, path: &str, status: u16, body: &Value| {
        wrong(method, path, (status, "application/json", &body.to_string()))
    };
    let id = "0123456789abcdef0123456789abcdef";
    let jobs = |id: &str, status: &str| json!({ "jobs": [{ "id": id, "status": status }] });
    assert_eq!(seen("GET", "/v1/jobs", 200, &jobs(id, "RUNNING")), None);
    assert_eq!(seen("GET", "/jobs?a=b", 200, &json!({ "jobs": [] })), None);
    assert_eq!(seen("GET", "/nothing/here", 404, &json!({})), None);
    let others = [
        ("GET", "/jobs", 200, jobs("7", "RUNNING"), "`.jobs[0].id` is no id"),
        ("GET", "/jobs", 200, jobs(id, "WALKING"), "\"WALKING\""),
        ("GET", "/jobs", 200, json!({ "jobs": [{ "id": id }] }), "`.jobs[0]` has no \"status\""),
        ("GET", "/jobs", 200, json!({ "jobs": {} }), "`.jobs` is of type object"),
        ("GET", "/jobs", 200, json!({ "jobs": [], "more": 1 }), "has `more`"),
        ("GET", "/jobs", 418, json!({ "errors": ["x"] }), "418 is not in the document"),
        ("GET", "/jobs", 400, json!({ "errors": [] }), "`.errors` is short"),
        ("PUT", "/jobs", 200, json!({}), "has no PUT"),
        ("GET", "/nothing/here", 200, json!({}), "it is not in the document"),
        ("GET", "/datasets", 200, json!({ "dataSets": [1] }), "is long"),
        ("POST", "/jars/upload", 200, json!({ "filename": "", "status": "x" }), "not \"success\""),
    ];
    for (method, path, status, body, expected) in others {
        let why = seen(method, path, status, &body).unwrap_or_default();
        assert!(why.contains(expected), "{method} {path} {body}: {why}");
    }
    let text = wrong("GET", "/jobs", (400, "text/plain", "no"));
    assert_eq!(text.unwrap(), "it is text/plain, not application/json: no");
}

#[test]
fn all_that_is_in_the_document_is_served_and_the_session_gives_the_same() {
    let folder = Folder::new();
    let session = Session::start(&folder, 1, 0);
    assert_eq!(session.get("/openapi.json"), (200, DOCUMENT.clone()));
    let headers = format!("Host: {}\r\n", session.address);
    for (path, of) in DOCUMENT["paths"].as_object().unwrap() {
        let parts = path.split('/').map(|part| match part {
            "{jobid}" | "{applicationid}" => "00000000000000000000000000000001",
            "{checkpointid}" | "{subtaskindex}" => "1",
            part if part.starts_with('{') => "none",
            part => part,
        });
        let asked = parts.collect::<Vec<_>>().join("/");
        let methods = ["get", "post", "patch", "delete"].into_iter().filter(|name| of.get(name).is_some());
        for method in methods.filter(|method| (*method, path.as_str()) != ("delete", "/cluster")) {
            let roots: &[&str] = if of.get("servers").is_some() { &[""] } else { &["", "/v1"] };
            for root in roots {
                let request = format!("{} {root}{asked}", method.to_ascii_uppercase());
                let (_, answer) = session.http(&request, &headers);
                assert!(!answer.contains("Unable to load requested file"), "{request}: {answer}");
            }
        }
    }
}
