//! Answers: JSON, and errors in Flink's form.

use axum::Json;
use axum::body::to_bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cluster::session::is_id;
use cluster::{JobMaster, SessionError};
use model::Diagnostic;
use serde_json::{Value, json};
use std::sync::Arc;
use task::Job;

use crate::Served;

/// An error, as a client gets it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

/// What a request comes to.
pub(crate) type Answer = Result<Json<Value>, Failure>;

impl Failure {
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "errors": [self.1] }))).into_response()
    }
}

impl From<Diagnostic> for Failure {
    fn from(error: Diagnostic) -> Self {
        Self(StatusCode::BAD_REQUEST, text(&error))
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NoJob(id) => Self::not_found(format!("Job {id} not found")),
            SessionError::NoUpload(id) => Self::not_found(format!("Jar file {id} does not exist")),
            SessionError::Ending => Self(StatusCode::SERVICE_UNAVAILABLE, "The session is ending.".into()),
            SessionError::Refused(error) => error.into(),
        }
    }
}

/// The error as one text, as people read it.
pub(crate) fn text(error: &Diagnostic) -> String {
    let detail = error.detail.iter().map(|detail| format!("detail: {detail}"));
    let hint = error.hint.iter().map(|hint| format!("hint: {hint}"));
    [error.message.clone()].into_iter().chain(detail).chain(hint).collect::<Vec<_>>().join("\n")
}

/// Nothing is at this path.
pub(crate) async fn no_such_path(uri: Uri) -> Failure {
    Failure::not_found(format!("Unable to load requested file {}.", uri.path()))
}

/// So much is looked at of what a part of the server says of its own accord.
const SAID_BYTES: usize = 64 << 10;

/// Gives errors of the server's own parts (of a path or a query that cannot be read, of a form) the form of all others.
pub(crate) async fn in_one_form(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|of| of == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let said = to_bytes(response.into_body(), SAID_BYTES).await.unwrap_or_default();
    Failure(status, String::from_utf8_lossy(&said).into_owned()).into_response()
}

/// An id of a job, as Flink reads it.
pub(crate) fn job_id(id: &str) -> Result<&str, Failure> {
    match is_id(id) {
        true => Ok(id),
        false => Err(Failure::bad(format!(
            "Bad request, could not parse parameters: Cannot resolve path parameter (jobid) from value \"{}\".",
            id.chars().take(100).collect::<String>()
        ))),
    }
}

impl Served {
    /// A job of this process.
    pub(crate) fn master(&self, id: &str) -> Result<Arc<JobMaster>, Failure> {
        Ok(self.session.master(job_id(id)?)?)
    }

    /// The attempt of a job that runs, or the last that did.
    pub(crate) fn running(&self, id: &str) -> Result<(Arc<JobMaster>, Arc<Job>), Failure> {
        let master = self.master(id)?;
        let job = master.job().ok_or_else(|| Failure::not_found(format!("Job {id} has not begun to run")))?;
        Ok((master, job))
    }
}
