//! What takes a while: a request begins it and gets an id, under which others look how far it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use checkpoint::coordinator::Stop;
use cluster::SavepointAsk;
use cluster::session::{is_id, new_id};
use model::Diagnostic;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use task::Form;

use crate::Served;
use crate::answer::{Answer, Failure, text};

/// What came of it; none = it is under way.
pub(crate) type Result_ = Arc<Mutex<Option<Result<Value, String>>>>;

/// So many are remembered, the last.
const REMEMBERED: usize = 1_000;

/// What was triggered.
#[derive(Default)]
pub(crate) struct Triggers(Mutex<VecDeque<Trigger>>);

struct Trigger {
    id: String,
    result: Result_,
    /// Somebody has asked for the result since it is there.
    is_told: bool,
}

impl Triggers {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Trigger>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new one: its id, and where its result goes.
    pub(crate) fn begin(&self) -> (String, Result_) {
        let (id, result) = (new_id(), Result_::default());
        self.remember(&id, &result);
        (id, result)
    }

    /// The same, with the client's own id, if it has one. None = it is under way or done: whoever asks a second time
    /// means the first.
    fn begin_as(&self, id: Option<String>) -> Result<(String, Option<Result_>), Failure> {
        let Some(id) = id else {
            let (id, result) = self.begin();
            return Ok((id, Some(result)));
        };
        if !is_id(&id) {
            return Err(Failure::bad("A triggerId has 32 hex digits."));
        }
        let result = Result_::default();
        let is_first = self.remember(&id, &result);
        Ok((id, is_first.then_some(result)))
    }

    /// Whether there was none of this id.
    fn remember(&self, id: &str, result: &Result_) -> bool {
        let mut all = self.lock();
        if all.iter().any(|other| other.id == id) {
            return false;
        }
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(Trigger { id: id.to_owned(), result: Arc::clone(result), is_told: false });
        true
    }

    /// Whether somebody has not been told yet what came of what he has triggered.
    pub(crate) fn are_owed(&self) -> bool {
        self.lock().iter().any(|trigger| !trigger.is_told)
    }

    /// Somebody wants to hear of this job's end.
    pub(crate) fn owes_end(&self, job: &str) {
        self.remember(&format!("end of {job}"), &Result_::default());
    }

    /// He has.
    pub(crate) fn told_end(&self, job: &str) {
        self.withdraw(&format!("end of {job}"));
    }

    /// It has not begun, or nothing is owed any more.
    pub(crate) fn withdraw(&self, id: &str) {
        self.lock().retain(|trigger| trigger.id != id);
    }

    fn status(&self, id: &str) -> Answer {
        let mut all = self.lock();
        let found = all.iter_mut().find(|other| other.id == id);
        let found =
            found.ok_or_else(|| Failure::not_found(format!("Operation not found under key: {id}")))?;
        let result = found.result.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.is_told |= result.is_some();
        Ok(Json(match result {
            None => json!({ "status": { "id": "IN_PROGRESS" } }),
            Some(Ok(operation)) => json!({ "status": { "id": "COMPLETED" }, "operation": operation }),
            Some(Err(why)) => json!({
                "status": { "id": "COMPLETED" },
                "operation": { "failure-cause": { "class": "", "stack-trace": why } },
            }),
        }))
    }
}

fn put(result: &Result_, value: Result<Value, String>) {
    result.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(value);
}

/// Puts what came of it, said so.
pub(crate) fn tells<T>(
    result: &Result_,
    said: impl FnOnce(T) -> Value + Send + 'static,
) -> Box<dyn FnOnce(Result<T, Diagnostic>) + Send> {
    let result = Arc::clone(result);
    Box::new(move |made| put(&result, made.map(said).map_err(|error| text(&error))))
}

/// A savepoint, as it is said.
fn location(path: String) -> Value {
    json!({ "location": path })
}

/// A body of JSON; nothing is an empty object.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Failure::bad(format!("Bad request received: {error}")))
}

fn form(name: Option<&str>) -> Result<Option<Form>, Failure> {
    match name {
        None => Ok(None),
        Some("CANONICAL") => Ok(Some(Form::Canonical)),
        Some("NATIVE") => Ok(Some(Form::Native)),
        Some(other) => Err(Failure::bad(format!("There is no savepoint format \"{other}\"."))),
    }
}

fn accepted(id: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({ "request-id": id })))
}

type Begun = Result<(StatusCode, Json<Value>), Failure>;

fn begin(served: &Served, id: &str, trigger: Option<String>, ask: &SavepointAsk, cancels: bool) -> Begun {
    let master = served.master(id)?;
    let (trigger, result) = served.triggers.begin_as(trigger)?;
    let Some(result) = result else { return Ok(accepted(&trigger)) };
    let answered = {
        let (tell, master) = (tells(&result, location), Arc::clone(&master));
        Box::new(move |made: Result<String, Diagnostic>| {
            let is_made = made.is_ok();
            tell(made);
            if cancels && is_made {
                master.cancel();
            }
        })
    };
    if let Err(error) = master.savepoint(ask, answered) {
        put(&result, Err(text(&error)));
    }
    Ok(accepted(&trigger))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SavepointBody {
    target_directory: Option<String>,
    #[serde(default)]
    cancel_job: bool,
    #[serde(rename = "formatType")]
    format_type: Option<String>,
    #[serde(rename = "triggerId")]
    trigger_id: Option<String>,
}

pub(crate) async fn savepoint(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Begun {
    let asked: SavepointBody = body(&bytes)?;
    let ask = SavepointAsk {
        target: asked.target_directory,
        form: form(asked.format_type.as_deref())?,
        stop: None,
    };
    begin(&served, &id, asked.trigger_id, &ask, asked.cancel_job)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckpointBody {
    checkpoint_type: Option<String>,
    trigger_id: Option<String>,
}

pub(crate) async fn checkpoint(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Begun {
    let asked: CheckpointBody = body(&bytes)?;
    let full = match asked.checkpoint_type.as_deref() {
        None | Some("CONFIGURED" | "INCREMENTAL") => false,
        Some("FULL") => true,
        Some(other) => return Err(Failure::bad(format!("There is no type of checkpoint \"{other}\"."))),
    };
    let master = served.master(&id)?;
    let (trigger, result) = served.triggers.begin_as(asked.trigger_id)?;
    let Some(result) = result else { return Ok(accepted(&trigger)) };
    if let Err(error) = master.checkpoint(full, tells(&result, |id| json!({ "checkpointId": id }))) {
        put(&result, Err(text(&error)));
    }
    Ok(accepted(&trigger))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopBody {
    target_directory: Option<String>,
    #[serde(default)]
    drain: bool,
    format_type: Option<String>,
    trigger_id: Option<String>,
}

pub(crate) async fn stop(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Begun {
    let asked: StopBody = body(&bytes)?;
    let stop = Some(if asked.drain { Stop::Drain } else { Stop::Suspend });
    let form = form(asked.format_type.as_deref())?;
    begin(&served, &id, asked.trigger_id, &SavepointAsk { target: asked.target_directory, form, stop }, false)
}

/// What became of a savepoint or checkpoint of a job.
pub(crate) async fn of_job(
    State(served): State<Served>,
    Path((id, trigger)): Path<(String, String)>,
) -> Answer {
    served.session.job(crate::answer::job_id(&id)?)?;
    served.triggers.status(&trigger)
}

/// Ours alone: the job makes a savepoint of the session's own, and gives its slots back.
pub(crate) async fn pause(State(served): State<Served>, Path(id): Path<String>) -> Begun {
    let master = served.master(&id)?;
    let (trigger, result) = served.triggers.begin();
    match master.pause(tells(&result, location)) {
        Ok(()) => Ok(accepted(&trigger)),
        Err(error) => {
            served.triggers.withdraw(&trigger);
            Err(error.into())
        }
    }
}

/// Ours alone.
pub(crate) async fn resume(State(served): State<Served>, Path(id): Path<String>) -> Begun {
    served.master(&id)?.resume()?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DisposalBody {
    savepoint_path: String,
}

pub(crate) async fn dispose(State(served): State<Served>, bytes: Bytes) -> Begun {
    let DisposalBody { savepoint_path } = body(&bytes)?;
    let (trigger, result) = served.triggers.begin();
    let session = Arc::clone(&served.session);
    let tell = tells(&result, |()| json!({}));
    tokio::task::spawn_blocking(move || tell(session.dispose(&savepoint_path)));
    Ok(accepted(&trigger))
}

pub(crate) async fn of_disposal(State(served): State<Served>, Path(trigger): Path<String>) -> Answer {
    served.triggers.status(&trigger)
}
