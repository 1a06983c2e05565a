//! Jobs of a session: started, listed, stopped, looked at, by its REST interface. Flink's texts.

use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use cluster::session::is_id;
use cluster::{Config, JobStatus};
use model::Diagnostic;
use platform::Clock;
use rest::client::{Client, ClientError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{has_failed, is_done, list as list_of, number, strange, text};
use crate::cli::{
    At, CancelArgs, CheckpointArgs, Execution, ListArgs, OneJob, RunArgs, SavepointArgs, SavepointForm,
    StopArgs,
};
use crate::terminal::answer;
use crate::{Done, Stop};

/// How often is looked whether what was asked for is done.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(50);

/// A client of the session that is meant.
pub(super) fn client(jobmanager: Option<&str>, define: &[String]) -> Result<Client, Stop> {
    let config = Config::load(define).map_err(Stop::Refused)?;
    Client::of(&config, jobmanager).map_err(Stop::Refused)
}

impl At {
    pub(super) fn client(&self) -> Result<Client, Stop> {
        client(self.jobmanager.as_deref(), &self.define)
    }
}

/// The id, if it is one.
pub(super) fn job_id(id: &str) -> Result<&str, Stop> {
    match is_id(id) {
        true => Ok(id),
        false => Err(Stop::Refused(
            Diagnostic::user(format!("Cannot parse JobID from \"{id}\"."))
                .detail("The expected format is [0-9a-fA-F]{32}, e.g. fd72014d4c864993a2e5a9287b4a9c5d."),
        )),
    }
}

/// A job's state, as the server says it.
pub(super) fn status_of(said: &Value) -> Option<JobStatus> {
    JobStatus::deserialize(said).ok()
}

pub(super) fn failed(what: String) -> impl FnOnce(ClientError) -> Stop {
    move |error| {
        let error = error.diagnostic(&what);
        Stop::Failed(match &error.detail {
            Some(why) if error.message == what && error.hint.is_none() => has_failed(&what, why),
            _ => error,
        })
    }
}

/// Says that it is done.
fn done(at: &At, id: &str, what: &str) {
    match at.json {
        true => answer(&format!("{}\n", json!({ "id": id }))),
        false => answer(&format!("{what} job {id}.\n")),
    }
}

/// Says a line of an answer, unless that is to be JSON.
pub(super) fn say(at: &At, text: &str) {
    if !at.json {
        answer(&format!("{text}\n"));
    }
}

/// A component that a session has for as long as this lives: a job of it has its own copy.
pub(super) struct Uploaded<'a> {
    client: &'a Client,
    pub(super) id: String,
}

impl<'a> Uploaded<'a> {
    pub(super) fn new(
        client: &'a Client,
        file: &Path,
        told: impl FnOnce(ClientError) -> Stop,
    ) -> Result<Self, Stop> {
        let bytes = super::load::read(file)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let id = client.upload(&name, &bytes).map_err(told)?;
        match id.is_empty() {
            true => Err(strange(client, &Value::Null, "`filename`")),
            false => Ok(Self { client, id }),
        }
    }
}

impl Drop for Uploaded<'_> {
    fn drop(&mut self) {
        drop(self.client.delete(&format!("/jars/{}", self.id)));
    }
}

/// Runs a job in a session.
pub(crate) fn run(args: &RunArgs) -> Done {
    let client = client(args.jobmanager.as_deref(), &args.job.define)?;
    let told = |error: ClientError| match error {
        ClientError::Refused(401, _) => Stop::Refused(error.diagnostic("the job is not run")),
        ClientError::Refused(_, why) => Stop::Refused(Diagnostic::user(why)),
        error => Stop::Failed(error.diagnostic("the job is not run")),
    };
    let upload = Uploaded::new(&client, &args.job.file, told)?;
    // The last definition of a key is the one that counts.
    let defined = args.job.define.iter().filter_map(|define| define.split_once('='));
    let config: serde_json::Map<String, Value> =
        defined.map(|(key, value)| (key.trim().to_owned(), json!(value.trim()))).collect();
    let begun = client.post(
        &format!("/jars/{}/run", upload.id),
        &json!({
            "entryClass": args.job.job,
            "programArgsList": args.job.args,
            "parallelism": args.job.parallelism,
            "savepointPath": args.from_savepoint,
            "allowNonRestoredState": args.allow_non_restored_state,
            "flinkConfiguration": config,
            "allow": args.job.allow,
            "batch": args.job.execution.map(|execution| matches!(execution, Execution::Batch)),
        }),
    );
    drop(upload);
    let begun = begun.map_err(told)?;
    let id = text(&client, &begun, "jobid")?.to_owned();
    answer(&format!("Job has been submitted with JobID {id}\n"));
    if args.detached {
        return Ok(());
    }
    let result = loop {
        let status = client.get(&format!("/jobs/{id}/execution-result"));
        let status = status.map_err(failed(format!("Job {id} cannot be followed")))?;
        if is_done(&client, &status)? {
            break status["job-execution-result"].clone();
        }
        Clock::system().sleep(LOOKED_EVERY);
    };
    match text(&client, &result, "application-status")? {
        "SUCCEEDED" => {
            let runtime = &result["net-runtime"];
            answer(&format!(
                "Program execution finished\nJob with JobID {id} has finished.\nJob Runtime: {runtime} ms\n\n"
            ));
            Ok(())
        }
        "CANCELED" => Err(Stop::Failed(Diagnostic::external(format!("Job was cancelled (JobID: {id})")))),
        _ => {
            let why = result["failure-cause"]["stack-trace"].as_str().unwrap_or_default();
            Err(Stop::Failed(has_failed(&format!("Job failed (JobID: {id})"), why)))
        }
    }
}

/// Days and times as Flink's lists have them: `18.05.2021 13:31:34`, in UTC.
fn time_of(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().format("%d.%m.%Y %H:%M:%S").to_string()
}

/// Lists jobs.
pub(crate) fn list(args: &ListArgs) -> Done {
    let client = args.at.client()?;
    say(&args.at, "Waiting for response...");
    let jobs = client.get("/jobs/overview").map_err(failed("Failed to retrieve job list.".into()))?;
    let mut jobs = list_of(&client, &jobs, "jobs")?.to_vec();
    if args.at.json {
        answer(&format!("{}\n", Value::from(jobs)));
        return Ok(());
    }
    jobs.sort_by_key(|job| job["start-time"].as_i64());
    let is_scheduled =
        |job: &Value| matches!(status_of(&job["state"]), Some(JobStatus::Created | JobStatus::Initializing));
    let has_ended = |job: &Value| status_of(&job["state"]).is_some_and(JobStatus::is_terminal);
    let line = |job: &Value| {
        let (time, id) = (time_of(job["start-time"].as_i64().unwrap_or_default()), &job["jid"]);
        let (id, name) = (id.as_str().unwrap_or_default(), job["name"].as_str().unwrap_or_default());
        format!("{time} : {id} : {name} ({})\n", job["state"].as_str().unwrap_or_default())
    };
    let mut text = String::new();
    let mut section = |title: &str, none: &str, wanted: &dyn Fn(&Value) -> bool| {
        let lines: String = jobs.iter().filter(|job| wanted(job)).map(line).collect();
        text.push_str(&match lines.is_empty() {
            true => none.to_owned(),
            false => {
                format!("{title}\n{lines}--------------------------------------------------------------\n")
            }
        });
    };
    let both = args.all || args.running == args.scheduled;
    if both || args.running {
        let title = "------------------ Running/Restarting Jobs -------------------";
        section(title, "No running jobs.\n", &|job| !is_scheduled(job) && !has_ended(job));
    }
    if both || args.scheduled {
        let title = "----------------------- Scheduled Jobs -----------------------";
        section(title, "No scheduled jobs.\n", &is_scheduled);
    }
    if args.all {
        let title = "---------------------- Terminated Jobs -----------------------";
        section(title, "", &has_ended);
    }
    answer(&text);
    Ok(())
}

/// Cancels a job, and waits until it has ended.
pub(crate) fn cancel(args: &CancelArgs) -> Done {
    if let Some(target) = &args.with_savepoint {
        return cancel_with_savepoint(args, target.as_deref());
    }
    let (client, id) = (args.at.client()?, job_id(args.id.as_deref().unwrap_or_default())?);
    say(&args.at, &format!("Cancelling job {id}."));
    let not = || format!("Could not cancel job {id}.");
    client.patch(&format!("/jobs/{id}?mode=cancel")).map_err(failed(not()))?;
    loop {
        let status = client.get(&format!("/jobs/{id}/status")).map_err(failed(not()))?;
        let status = status_of(&status["status"]).ok_or_else(|| strange(&client, &status, "`status`"))?;
        if status.is_terminal() {
            break;
        }
        Clock::system().sleep(LOOKED_EVERY);
    }
    done(&args.at, id, "Cancelled");
    Ok(())
}

/// The same, and makes a savepoint before. As in Flink, where only one word follows it is the id.
fn cancel_with_savepoint(args: &CancelArgs, target: Option<&str>) -> Done {
    let (id, target) = match &args.id {
        Some(id) => (id.as_str(), target),
        None => (target.unwrap_or_default(), None),
    };
    let (at, client, id) = (&args.at, args.at.client()?, job_id(id)?);
    let to = target.unwrap_or("default savepoint directory");
    say(at, "DEPRECATION WARNING: Cancelling a job with savepoint is deprecated. Use \"stop\" instead.");
    say(at, &format!("Cancelling job {id} with CANONICAL savepoint to {to}."));
    let not = format!("Could not cancel job {id}.");
    let body = json!({ "target-directory": target, "cancel-job": true, "formatType": "CANONICAL" });
    let begun = client.post(&format!("/jobs/{id}/savepoints"), &body).map_err(failed(not.clone()))?;
    let trigger = text(&client, &begun, "request-id")?;
    let made = wait_for(&client, &format!("/jobs/{id}/savepoints/{trigger}"), &not)?;
    let path = text(&client, &made, "location")?;
    match at.json {
        true => answer(&format!("{}\n", json!({ "id": id, "location": path }))),
        false => answer(&format!("Cancelled job {id}. Savepoint stored in {path}.\n")),
    }
    Ok(())
}

/// Waits for what was triggered; what came of it.
pub(super) fn wait_for(client: &Client, path: &str, not: &str) -> Result<Value, Stop> {
    loop {
        let status = client.get(path).map_err(failed(not.to_owned()))?;
        if is_done(client, &status)? {
            let operation = &status["operation"];
            if let Some(why) = operation["failure-cause"]["stack-trace"].as_str() {
                return Err(Stop::Failed(has_failed(not, why)));
            }
            return Ok(operation.clone());
        }
        Clock::system().sleep(LOOKED_EVERY);
    }
}

fn name_of(form: SavepointForm) -> &'static str {
    match form {
        SavepointForm::Canonical => "CANONICAL",
        SavepointForm::Native => "NATIVE",
    }
}

fn completed(at: &At, client: &Client, operation: &Value) -> Done {
    let path = text(client, operation, "location")?;
    match at.json {
        true => answer(&format!("{}\n", json!({ "location": path }))),
        false => answer(&format!("Savepoint completed. Path: {path}\n")),
    }
    Ok(())
}

/// What was asked for is under way, and not waited for.
fn triggered(at: &At, what: &str, trigger: &str) {
    match at.json {
        true => answer(&format!("{}\n", json!({ "triggerId": trigger }))),
        false => answer(&format!("Successfully trigger {what}, triggerId: {trigger}\n")),
    }
}

/// Stops a job with a savepoint.
pub(crate) fn stop(args: &StopArgs) -> Done {
    let (at, form) = (&args.of.at, name_of(args.form));
    let (client, id) = (at.client()?, job_id(&args.of.id)?);
    let what = if args.drain { "Draining" } else { "Suspending" };
    say(at, &format!("{what} job \"{id}\" with a {form} savepoint."));
    match args.detached {
        true => say(at, &format!("Triggering stop-with-savepoint in detached mode for job {id}.")),
        false => {
            say(at, &format!("Triggering stop-with-savepoint for job {id}."));
            say(at, "Waiting for response...");
        }
    }
    let not = format!("Could not stop with a savepoint job \"{id}\".");
    let body = json!({ "targetDirectory": args.savepoint_path, "drain": args.drain, "formatType": form });
    let begun = client.post(&format!("/jobs/{id}/stop"), &body).map_err(failed(not.clone()))?;
    let trigger = text(&client, &begun, "request-id")?;
    if args.detached {
        triggered(at, "stop-with-savepoint in detached mode", trigger);
        return Ok(());
    }
    completed(at, &client, &wait_for(&client, &format!("/jobs/{id}/savepoints/{trigger}"), &not)?)
}

/// Makes a savepoint, or disposes of one.
pub(crate) fn savepoint(args: &SavepointArgs) -> Done {
    let client = args.at.client()?;
    if let Some(path) = &args.dispose {
        say(&args.at, &format!("Disposing savepoint '{path}'."));
        say(&args.at, "Waiting for response...");
        let not = format!("Failed to dispose the savepoint '{path}'.");
        let body = json!({ "savepoint-path": path });
        let begun = client.post("/savepoint-disposal", &body).map_err(failed(not.clone()))?;
        let trigger = text(&client, &begun, "request-id")?;
        wait_for(&client, &format!("/savepoint-disposal/{trigger}"), &not)?;
        match args.at.json {
            true => answer(&format!("{}\n", json!({ "disposed": path }))),
            false => answer(&format!("Savepoint '{path}' disposed.\n")),
        }
        return Ok(());
    }
    let id = job_id(args.id.as_deref().unwrap_or_default())?;
    match args.detached {
        true => say(&args.at, &format!("Triggering savepoint in detached mode for job {id}.")),
        false => {
            say(&args.at, &format!("Triggering savepoint for job {id}."));
            say(&args.at, "Waiting for response...");
        }
    }
    let not = format!("Failed to trigger a savepoint for the job {id}.");
    let body =
        json!({ "target-directory": args.target, "cancel-job": false, "formatType": name_of(args.form) });
    let begun = client.post(&format!("/jobs/{id}/savepoints"), &body).map_err(failed(not.clone()))?;
    let trigger = text(&client, &begun, "request-id")?;
    if args.detached {
        triggered(&args.at, "manual savepoint", trigger);
        return Ok(());
    }
    completed(&args.at, &client, &wait_for(&client, &format!("/jobs/{id}/savepoints/{trigger}"), &not)?)?;
    say(&args.at, "You can resume your program from this savepoint with the run command.");
    Ok(())
}

/// Makes a checkpoint.
pub(crate) fn checkpoint(args: &CheckpointArgs) -> Done {
    let at = &args.of.at;
    let (client, id) = (at.client()?, job_id(&args.of.id)?);
    let (kind, shown) = if args.full { ("FULL", "(FULL)") } else { ("CONFIGURED", "") };
    say(at, &format!("Triggering checkpoint for job {id}."));
    say(at, "Waiting for response...");
    let not = format!("Failed to trigger a checkpoint for the job {id}.");
    let body = json!({ "checkpointType": kind });
    let begun = client.post(&format!("/jobs/{id}/checkpoints"), &body).map_err(failed(not.clone()))?;
    let trigger = text(&client, &begun, "request-id")?;
    let made = wait_for(&client, &format!("/jobs/{id}/checkpoints/{trigger}"), &not)?;
    let checkpoint = number(&client, &made, "checkpointId")?;
    match at.json {
        true => answer(&format!("{made}\n")),
        false => answer(&format!("Checkpoint{shown} {checkpoint} for job {id} completed.\n")),
    }
    say(at, "You can resume your program from this checkpoint with the run command.");
    Ok(())
}

/// Pauses a job.
pub(crate) fn pause(args: &OneJob) -> Done {
    let (client, id) = (args.at.client()?, job_id(&args.id)?);
    let not = format!("Could not pause job {id}.");
    let begun = client.post(&format!("/jobs/{id}/pause"), &json!({})).map_err(failed(not.clone()))?;
    let trigger = text(&client, &begun, "request-id")?;
    wait_for(&client, &format!("/jobs/{id}/savepoints/{trigger}"), &not)?;
    while client.get(&format!("/jobs/{id}/status")).map_err(failed(not.clone()))?["status"] == "RUNNING" {
        Clock::system().sleep(LOOKED_EVERY);
    }
    done(&args.at, id, "Paused");
    Ok(())
}

/// Goes on with a job.
pub(crate) fn resume(args: &OneJob) -> Done {
    let (client, id) = (args.at.client()?, job_id(&args.id)?);
    let not = format!("Could not resume job {id}.");
    let resumed = client.post(&format!("/jobs/{id}/resume"), &json!({})).map_err(failed(not))?;
    if !resumed.is_object() {
        return Err(strange(&client, &resumed, "object"));
    }
    done(&args.at, id, "Resumed");
    Ok(())
}

/// Shows what a job has said.
pub(crate) fn logs(args: &OneJob) -> Done {
    let (client, id) = (args.at.client()?, job_id(&args.id)?);
    let said = client.get(&format!("/jobs/{id}/logs"));
    let said = said.map_err(failed(format!("The log of job {id} cannot be read.")))?;
    let lines = list_of(&client, &said, "lines")?;
    if args.at.json {
        answer(&format!("{said}\n"));
        return Ok(());
    }
    let lines = lines.iter().filter_map(Value::as_str);
    answer(&lines.map(|line| format!("{line}\n")).collect::<String>());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn times_are_as_flinks_lists_have_them() {
        assert_eq!(time_of(1_621_344_694_000), "18.05.2021 13:31:34");
        assert_eq!(time_of(951_782_399_999), "28.02.2000 23:59:59");
        assert_eq!(time_of(951_782_400_000), "29.02.2000 00:00:00");
        assert_eq!(time_of(0), "01.01.1970 00:00:00");
    }
}
