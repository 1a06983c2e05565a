//! The interface as an OpenAPI document, made of the table of routes: whoever builds a client has what there is to
//! know about it. Schemas of answers are exact, those of what is sent let be whatever else there is.

mod schema;
mod schemas;

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::routes::{Content, Route, routes};
use schema::named;

/// What is said with the statuses of errors.
const ERRORS: [(u16, &str); 10] = [
    (400, "What is asked makes no sense, or does not work now."),
    (401, "The server wants a token."),
    (403, "The server has another name, or a page of another site asks."),
    (404, "There is no such thing, or nothing to say of it yet."),
    (408, "The body did not come in time."),
    (409, "The job has ended otherwise."),
    (410, "This way to end a job is no more."),
    (413, "The body is too large."),
    (500, "The server has a fault."),
    (503, "The session ends, and takes nothing new; or others are served."),
];
/// What any request may get.
const ALWAYS: [u16; 5] = [400, 401, 403, 408, 413];

/// The document: OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let of = paths.entry(route.path).or_insert_with(|| json!({}));
        of[route.method.as_str().to_ascii_lowercase()] = operation(&route);
        if route.is_at_root {
            of["servers"] = json!([{ "url": "/" }]);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millstream",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Flink's REST interface over a session, with and without /v1. What takes a while is \
                triggered, and looked at under the id that is answered. Errors have the form of `Errors`. A server \
                that was set up with a token wants it as `Authorization: Bearer TOKEN`.",
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }, { "url": "/v1" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas::all().into_iter().map(|(name, of)| (name.to_owned(), of)).collect::<Map<_, _>>(),
        },
    })
}

/// Answers it.
pub(crate) async fn answer() -> Json<Value> {
    Json(document())
}

/// The names in braces.
fn parameters_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// Statuses of errors that a route may have.
fn refusals(route: &Route) -> Vec<u16> {
    let mut all: Vec<u16> = ALWAYS.into_iter().chain(route.refusals.iter().copied()).collect();
    if parameters_of(route.path).next().is_some() {
        all.push(404);
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn content(of: Content) -> Value {
    match of {
        Content::Json(name) => json!({ "application/json": { "schema": named(name) } }),
        Content::Form(name) => json!({ "multipart/form-data": { "schema": named(name) } }),
        Content::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
    }
}

fn operation(route: &Route) -> Value {
    let in_path = parameters_of(route.path).map(|name| {
        let (schema, about) = parameter(name);
        json!({ "name": name, "in": "path", "required": true, "schema": schema, "description": about })
    });
    let in_query = route.query.iter().map(|(name, about)| {
        json!({ "name": name, "in": "query", "schema": { "type": "string" }, "description": about })
    });
    let mut responses = Map::new();
    let done = if route.status == 202 { "It is under way." } else { "It is this." };
    responses
        .insert(route.status.to_string(), json!({ "description": done, "content": content(route.answer) }));
    for status in refusals(route) {
        let about = ERRORS.iter().find(|(of, _)| *of == status).map_or("An error.", |(_, about)| *about);
        responses.insert(
            status.to_string(),
            json!({ "description": about, "content": content(Content::Json("Errors")) }),
        );
    }
    let note = if route.is_ours { " Flink has not got it." } else { "" };
    let mut operation = json!({
        "operationId": operation_id(&route.method, route.path),
        "summary": format!("{}{note}", route.about),
        "tags": [route.path.split('/').nth(1).unwrap_or_default()],
        "parameters": in_path.chain(in_query).collect::<Value>(),
        "responses": responses,
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "content": content(body) });
    }
    operation
}

/// A parameter of a path: what it may be, and what it is.
fn parameter(name: &str) -> (Value, &'static str) {
    let number = |most: u64| json!({ "type": "integer", "minimum": 0, "maximum": most });
    let part = json!({ "type": "string", "minLength": 1 });
    match name {
        "jobid" | "applicationid" => (schemas::job_id(), "The job's id: 32 hex digits."),
        "checkpointid" => (number(i64::MAX.unsigned_abs()), "The checkpoint's number."),
        "subtaskindex" => (number(u64::from(u32::MAX)), "The subtask's number."),
        "vertexid" => (part, "The vertex' id."),
        "triggerid" => (part, "What was answered when it was triggered."),
        "jarid" => (part, "The last part of the name that was answered when it was uploaded."),
        "taskmanagerid" => (part, "The TaskManager's id."),
        _ => (part, "The file's name."),
    }
}

/// A name for functions of clients: `getJobsJobidPlan`.
fn operation_id(method: &Method, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut id = method.as_str().to_ascii_lowercase();
    for word in words {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_ascii_uppercase());
        id.push_str(rest);
    }
    id
}
