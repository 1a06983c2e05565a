//! Components: uploaded, and jobs of them started. Flink calls them jars.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Multipart, Path, State};
use axum::http::StatusCode;
use cluster::session::new_id;
use cluster::{Session, SessionError, Submission};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Served;
use crate::answer::{Answer, Failure};
use crate::triggers::body;

pub(crate) async fn all(State(served): State<Served>) -> Json<Value> {
    let files: Value = served
        .session
        .uploads()
        .iter()
        .map(|upload| {
            let entry = |name: &String| json!({ "name": name, "description": null });
            json!({
                "id": upload.id,
                "name": upload.name,
                "uploaded": upload.at,
                "entry": upload.jobs.iter().map(entry).collect::<Value>(),
            })
        })
        .collect();
    Json(json!({ "address": format!("{}://{}", served.access.scheme(), served.address), "files": files }))
}

/// Does what may take a while, or runs a guest, where no request waits for it.
pub(crate) async fn elsewhere<T: Send + 'static>(
    session: &Arc<Session>,
    what: impl FnOnce(&Arc<Session>) -> Result<T, SessionError> + Send + 'static,
) -> Result<T, Failure> {
    let session = Arc::clone(session);
    let done = tokio::task::spawn_blocking(move || what(&session)).await;
    let done = done.map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(done?)
}

pub(crate) async fn upload(State(served): State<Served>, mut form: Multipart) -> Answer {
    let bad = |error: axum::extract::multipart::MultipartError| Failure(error.status(), error.body_text());
    while let Some(field) = form.next_field().await.map_err(bad)? {
        let Some(name) = field.file_name().map(str::to_owned) else { continue };
        let bytes = field.bytes().await.map_err(bad)?;
        let upload = elsewhere(&served.session, move |session| session.upload(&name, &bytes)).await?;
        return Ok(Json(json!({ "filename": upload.id, "status": "success" })));
    }
    Err(Failure::bad("Exactly 1 file must be sent, received 0."))
}

pub(crate) async fn remove(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    elsewhere(&served.session, move |session| session.remove_upload(&id)).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RunBody {
    entry_class: Option<String>,
    program_args: Option<String>,
    program_args_list: Vec<String>,
    parallelism: Option<u32>,
    savepoint_path: Option<String>,
    allow_non_restored_state: Option<bool>,
    flink_configuration: BTreeMap<String, String>,
    /// Ours alone.
    allow: Vec<String>,
    /// Ours alone: final results only.
    batch: Option<bool>,
}

/// What a body asks to be run.
fn submission(bytes: &Bytes) -> Result<Submission, Failure> {
    let asked: RunBody = body(bytes)?;
    let args = match (asked.program_args, asked.program_args_list) {
        (Some(_), list) if !list.is_empty() => {
            return Err(Failure::bad("Only one of programArgs and programArgsList may be given."));
        }
        (Some(text), _) => text.split_whitespace().map(str::to_owned).collect(),
        (None, list) => list,
    };
    if asked.parallelism == Some(0) {
        return Err(Failure::bad("The parallelism is at least 1."));
    }
    Ok(Submission {
        job: asked.entry_class.filter(|name| !name.is_empty()),
        args,
        parallelism: asked.parallelism,
        batch: asked.batch,
        allow: asked.allow,
        config: asked.flink_configuration,
        restore: asked.savepoint_path.filter(|path| !path.is_empty()),
        allow_non_restored: asked.allow_non_restored_state.unwrap_or_default(),
    })
}

pub(crate) async fn run(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let submission = submission(&bytes)?;
    let job = elsewhere(&served.session, move |session| session.run(&id, submission)).await?;
    Ok(Json(json!({ "jobid": job, "applicationId": job })))
}

/// The plan of a job of a component, which is not run.
pub(crate) async fn plan(State(served): State<Served>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let submission = submission(&bytes)?;
    let planned = elsewhere(&served.session, move |session| session.plan(&id, &submission)).await?;
    Ok(Json(json!({ "plan": crate::jobs::plan_of(&new_id(), &planned.name, &planned) })))
}
