//! Other code for a running job: `swap`, `diff` and `versions`.

use cluster::attempts::short;
use cluster::{JobStatus, config};
use platform::Clock;
use rest::client::{Client, ClientError};
use serde_json::{Value, json};

use model::Diagnostic;

use super::answers::{list, refused, strange, text};
use super::jobs::{LOOKED_EVERY, Uploaded, failed, job_id, say, status_of, wait_for};
use crate::cli::{OneJob, RollbackKind, SwapArgs, VersionArgs};
use crate::terminal::answer;
use crate::{Done, Stop};

/// Asks about the version that is meant, with its component uploaded for that long.
fn ask(client: &Client, path: &str, version: &VersionArgs, more: Value, not: &str) -> Result<Value, Stop> {
    let told = |error: ClientError| match error {
        ClientError::Refused(401, _) => Stop::Refused(error.diagnostic(not)),
        ClientError::Refused(_, why) => Stop::Refused(refused(not, &why)),
        error => Stop::Failed(error.diagnostic(not)),
    };
    let file = version.file.as_deref();
    let upload = file.map(|file| Uploaded::new(client, file, told)).transpose()?;
    let mut body = json!({
        "component": upload.as_ref().map(|upload| &upload.id),
        "entryClass": version.job,
        "programArgsList": (!version.args.is_empty()).then_some(&version.args),
        "back": version.back,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    client.post(path, &body).map_err(told)
}

/// Changes a running job to another version.
pub(crate) fn swap(args: &SwapArgs) -> Done {
    let of = &args.version;
    let (client, id) = (of.of.at.client()?, job_id(&of.of.id)?);
    let not = format!("Could not change job {id}.");
    let probation = args.probation.as_deref().map(config::time).transpose().map_err(|why| {
        Stop::Refused(Diagnostic::user("the time of the probation makes no sense").detail(why))
    })?;
    let probation = probation.map(|time| {
        let exact = args.rollback == RollbackKind::Exact;
        json!({ "time": time.as_millis(), "maxTraps": args.max_traps, "exact": exact })
    });
    let more = json!({
        "restart": args.restart,
        "allowNonRestoredState": args.allow_non_restored_state,
        "probation": probation,
    });
    let begun = ask(&client, &format!("/jobs/{id}/swap"), of, more, &not)?;
    say(&of.of.at, text(&client, &begun["difference"], "text")?.trim_end());
    say(&of.of.at, "Waiting for response...");
    let trigger = text(&client, &begun, "request-id")?;
    let mut done = wait_for(&client, &format!("/jobs/{id}/swap/{trigger}"), &not)?;
    if let Some(time) = &args.probation {
        say(&of.of.at, &format!("It is on probation for {time}."));
        done["standing"] = verdict(&client, id, &not)?;
    }
    if of.of.at.json {
        done["difference"] = begun["difference"].clone();
        answer(&format!("{done}\n"));
        return Ok(());
    }
    let component = short(text(&client, &done, "component")?);
    match done["location"].as_str() {
        Some(path) => {
            answer(&format!("Restarted job {id} as component {component} from savepoint {path}.\n"))
        }
        None => {
            let checkpoint = &done["checkpoint"];
            answer(&format!("Changed job {id} to component {component} at checkpoint {checkpoint}.\n"));
        }
    }
    Ok(())
}

/// Waits for the end of a probation: how the version stands then, which stays.
fn verdict(client: &Client, id: &str, not: &str) -> Result<Value, Stop> {
    loop {
        let told = client.get(&format!("/jobs/{id}/versions")).map_err(failed(not.to_owned()))?;
        let standing = &told["standing"];
        let why = standing["trap"].as_str().or(standing["reason"].as_str()).unwrap_or_default();
        let status = client.get(&format!("/jobs/{id}/status")).map_err(failed(not.to_owned()))?;
        if status_of(&status["status"]).is_some_and(JobStatus::is_terminal) {
            let told =
                Diagnostic::external(not).detail("the job has ended while the version was on probation");
            return Err(Stop::Failed(told));
        }
        match standing["id"].as_str() {
            Some("CHANGING" | "ON_PROBATION" | "GOING_BACK") => Clock::system().sleep(LOOKED_EVERY),
            Some("KEPT") => return Ok(standing.clone()),
            _ if told.get("standing").is_none() => return Err(strange(client, &told, "`standing`")),
            _ => {
                let told = refused(&format!("Job {id} went back to the version before."), why);
                return Err(Stop::Failed(told));
            }
        }
    }
}

/// Shows what a change to another version would do.
pub(crate) fn diff(args: &VersionArgs) -> Done {
    let (client, id) = (args.of.at.client()?, job_id(&args.of.id)?);
    let not = format!("Job {id} cannot be compared.");
    let difference = ask(&client, &format!("/jobs/{id}/diff"), args, json!({}), &not)?;
    let told = text(&client, &difference, "text")?;
    match args.of.at.json {
        true => answer(&format!("{difference}\n")),
        false => answer(told),
    }
    Ok(())
}

/// Lists the versions of a job.
pub(crate) fn versions(args: &OneJob) -> Done {
    let (client, id) = (args.at.client()?, job_id(&args.id)?);
    let told = client.get(&format!("/jobs/{id}/versions"));
    let told = told.map_err(failed(format!("The versions of job {id} cannot be listed.")))?;
    let versions = list(&client, &told, "versions")?;
    if args.at.json {
        answer(&format!("{told}\n"));
        return Ok(());
    }
    let line = |version: &Value| {
        let of = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
        let args = version["program-args"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let args: String = args.map(|arg| format!(" {arg}")).collect();
        let from = match version["from-checkpoint"].as_u64() {
            None | Some(0) => "from the beginning".to_owned(),
            Some(checkpoint) => format!("from checkpoint {checkpoint}"),
        };
        format!("{from} : {} : {}{args}\n", short(&of("component")), of("entry-class"))
    };
    answer(&versions.iter().map(line).collect::<String>());
    Ok(())
}
