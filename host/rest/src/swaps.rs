//! Versions of a running job, ours alone: which have run, what differs, and changes from one to another.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use checkpoint::coordinator::CheckpointId;
use cluster::attempts::Code;
use cluster::{JobMaster, Session, SessionError};
use serde::Deserialize;
use serde_json::{Value, json};
use task::swap::{Difference, Probation, Rollback, Standing};

use crate::Served;
use crate::answer::{Answer, Failure, text};
use crate::jars::elsewhere;
use crate::triggers::{body, tells};

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
    /// It may go back.
    probation: Option<Asked>,
}

/// How a version may go back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    /// For so long, in milliseconds.
    time: u64,
    /// So many traps are as at any time.
    #[serde(default)]
    max_traps: u32,
    /// At the row, or from the change's checkpoint.
    #[serde(default)]
    exact: bool,
}

impl Asked {
    fn probation(&self) -> Probation {
        Probation {
            time: Duration::from_millis(self.time),
            max_traps: self.max_traps,
            rollback: if self.exact { Rollback::Exact } else { Rollback::Forward },
        }
    }
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
    let master = served.master(&id)?;
    let versions = master.versions();
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
    Ok(Json(json!({ "versions": versions, "standing": master.standing().map(standing) })))
}

/// How a version on probation stands.
fn standing(of: Standing) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    match of {
        Standing::Changing => json!({ "id": "CHANGING" }),
        Standing::OnProbation { from, time } => {
            json!({ "id": "ON_PROBATION", "from-checkpoint": from, "time": ms(time) })
        }
        Standing::Kept { traps } => json!({ "id": "KEPT", "traps": traps }),
        Standing::GoingBack { trap } => json!({ "id": "GOING_BACK", "trap": text(&trap.error) }),
        Standing::WentBack { trap, at, took } => json!({
            "id": "WENT_BACK",
            "trap": text(&trap.error),
            "from-checkpoint": at,
            "trap-to-old-code": ms(trap.took),
            "trap-to-all-old-code": ms(took),
        }),
        Standing::NotChanged { reason } => json!({ "id": "NOT_CHANGED", "reason": reason }),
    }
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
    let (trigger, result) = served.triggers.begin();
    let difference = elsewhere(&served.session, move |session| {
        let mut code = asked.of(session, &master)?;
        code.allow_non_restored |= asked.allow_non_restored_state;
        let component = code.program.digest().to_owned();
        Ok(if asked.restart {
            let said = move |path: String| json!({ "location": path, "component": component });
            master.restart_as(code, tells(&result, said))?
        } else {
            let said =
                move |checkpoint: CheckpointId| json!({ "checkpoint": checkpoint, "component": component });
            let probation = asked.probation.as_ref().map(Asked::probation);
            master.swap(code, probation, tells(&result, said))?
        })
    });
    let difference = difference.await.inspect_err(|_| served.triggers.withdraw(&trigger))?;
    let told = json!({ "request-id": trigger, "difference": told(&difference)? });
    Ok((StatusCode::ACCEPTED, Json(told)))
}
