//! What a session has answered, taken apart: whatever else answers at its address is told apart from one.

use model::Diagnostic;
use rest::client::Client;
use serde_json::Value;

use crate::Stop;

/// So much of a strange answer is shown.
const SHOWN: usize = 200;

/// A server's words, which it says as lines, again as an error.
pub(super) fn refused(not: &str, why: &str) -> Diagnostic {
    say_again(Diagnostic::user(not), why)
}

/// The same, of what has failed.
pub(super) fn has_failed(not: &str, why: &str) -> Diagnostic {
    say_again(Diagnostic::external(not), why)
}

fn say_again(error: Diagnostic, why: &str) -> Diagnostic {
    let (mut details, mut hint) = (Vec::new(), None);
    for line in why.lines() {
        match line.strip_prefix("hint: ") {
            Some(text) => hint = Some(text.to_owned()),
            None => details.push(line.strip_prefix("detail: ").unwrap_or(line)),
        }
    }
    let error = error.detail(details.join("\n"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A session's answer has not got this.
pub(super) fn strange(client: &Client, said: &Value, what: &str) -> Stop {
    let shown: String = said.to_string().chars().take(SHOWN).collect();
    let detail = match said {
        Value::Null => "what answers there does not answer in JSON, or not to its end".to_owned(),
        _ => format!("its answer has no {what}: {shown}"),
    };
    Stop::Failed(
        Diagnostic::external(format!("no session is at {}", client.address()))
            .detail(detail)
            .hint("-m HOST:PORT names the REST interface of a session"),
    )
}

/// A text of an answer.
pub(super) fn text<'a>(client: &Client, said: &'a Value, name: &str) -> Result<&'a str, Stop> {
    said[name].as_str().ok_or_else(|| strange(client, said, &format!("`{name}`")))
}

/// A list of an answer.
pub(super) fn list<'a>(client: &Client, said: &'a Value, name: &str) -> Result<&'a [Value], Stop> {
    said[name].as_array().map(Vec::as_slice).ok_or_else(|| strange(client, said, &format!("`{name}`")))
}

/// A number of an answer.
pub(super) fn number(client: &Client, said: &Value, name: &str) -> Result<u64, Stop> {
    said[name].as_u64().ok_or_else(|| strange(client, said, &format!("`{name}`")))
}

/// Whether what was begun is done.
pub(super) fn is_done(client: &Client, said: &Value) -> Result<bool, Stop> {
    match said["status"]["id"].as_str() {
        Some("COMPLETED") => Ok(true),
        Some("IN_PROGRESS") => Ok(false),
        _ => Err(strange(client, said, "`status`")),
    }
}
