//! Versions of a running job, ours alone: which have run, what differs, and changes from one to another.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use checkpoint::coordinator::CheckpointId;
use cluster::attempts::Code;
use cluster::{JobMaster, Session, SessionError};
use model::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json};
use task::swap::Difference;

use crate::Served;
use crate::answer::{Answer, Failure, text};
use crate::jars::elsewhere;
use crate::triggers::{body, put};

/// Another version, as it is asked for.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    /// A component that was uploaded; none = the one that runs.
    component: Option<String>,
    /// The job in it; none = the one of the same name, or its first.
    entry_class: Option<String>,
    /// Its arguments; none = those of the version that runs.
    program_args_list: Option<Vec<String>>,
    /// The version before the one that runs is meant.
    back: bool,
    /// It may be any version: the job is stopped with a savepoint, and started from that.
    restart: bool,
    /// Then state that nobody in it asks for is left out.
    allow_non_restored_state: bool,
}

impl Version {
    fn of(&self, session: &Session, master: &JobMaster) -> Result<Code, SessionError> {
        if self.back {
            return Ok(master.version_before()?);
        }
        let args = self.program_args_list.as_deref();
        session.version(master, self.component.as_deref(), self.entry_class.as_deref(), args)
    }
}

pub(crate) async fn versions(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let versions = served.master(&id)?.versions();
    let versions: Value = versions
        .iter()
        .map(|version| {
            json!({
                "from-checkpoint": version.from,
                "component": version.component,
                "entry-class": version.job,
                "program-args": version.args,
            })
        })
        .collect();
    Ok(Json(json!({ "versions": versions })))
}

/// The difference, and the same as people read it.
fn told(difference: &Difference) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(difference)
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    value["live"] = json!(difference.is_live());
    value["text"] = json!(difference.to_string());
    Ok(value)
}

pub(crate) async fn diff(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let (asked, master): (Version, Arc<JobMaster>) = (body(&bytes)?, served.master(&id)?);
    let difference =
        elsewhere(&served.session, move |session| Ok(master.difference(&asked.of(session, &master)?)?));
    Ok(Json(told(&difference.await?)?))
}

pub(crate) async fn swap(
    State(served): State<Served>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let (asked, master): (Version, Arc<JobMaster>) = (body(&bytes)?, served.master(&id)?);
    let (trigger, result) = served.triggers.begin(None);
    let difference = elsewhere(&served.session, move |session| {
        let mut code = asked.of(session, &master)?;
        code.allow_non_restored |= asked.allow_non_restored_state;
        let component = code.program.digest().to_owned();
        Ok(if asked.restart {
            let answered = Box::new(move |made: Result<String, Diagnostic>| {
                let told = |path| json!({ "location": path, "component": component });
                put(&result, made.map(told).map_err(|error| text(&error)));
            });
            master.restart_as(code, answered)?
        } else {
            let answered = Box::new(move |made: Result<CheckpointId, Diagnostic>| {
                let told = |checkpoint| json!({ "checkpoint": checkpoint, "component": component });
                put(&result, made.map(told).map_err(|error| text(&error)));
            });
            master.swap(code, answered)?
        })
    });
    let told = json!({ "request-id": trigger, "difference": told(&difference.await?)? });
    Ok((StatusCode::ACCEPTED, Json(told)))
}
