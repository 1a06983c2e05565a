//! `streamctl session`: starts one, ends one, looks at one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster::config::Origin;
use cluster::log::SessionLog;
use cluster::{Config, Session, SessionSettings};
use model::Diagnostic;
use platform::network::runtime;
use platform::{Clock, Platform, available_parallelism};
use rest::Access;
use rest::client::{Client, ClientError};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::answers::number;
use super::jobs::client;
use crate::cli::{At, SessionCommand, SessionStartArgs};
use crate::terminal::{Terminal, answer};
use crate::{Done, Stop};

/// How many jobs that have ended a session remembers. Flink: `jobstore.max-capacity`.
const REMEMBERED: usize = 1_000;
/// How long a session may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a session that has ended answers what it was asked before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// What a session begins with when it says where it is.
const ANNOUNCED: &str = "Session at ";

pub(crate) fn session(command: &SessionCommand, terminal: &Arc<Terminal>) -> Done {
    match command {
        SessionCommand::Start(args) if args.detached => start_detached(args),
        SessionCommand::Start(args) => start(args, terminal),
        SessionCommand::Stop(at) => stop(at),
        SessionCommand::Status(at) => status(at),
    }
}

fn folder_error(folder: &Path, error: &std::io::Error) -> Stop {
    let what = format!("`{}` cannot have a session", folder.display());
    Stop::Failed(Diagnostic::external(what).detail(error.to_string()))
}

/// Holds the folder for this process, until it ends.
fn hold(folder: &Path) -> Result<File, Stop> {
    // What jobs say, and their components, are nobody else's.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| folder_error(folder, &error))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"));
    let lock = lock.map_err(|error| folder_error(folder, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(Stop::Refused(
            Diagnostic::user(format!("there is a session in `{}` already", folder.display()))
                .hint("`streamctl session stop` ends it; -D millstream.session.dir=DIR names another folder"),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(folder_error(folder, &error)),
    }
}

/// From now on what the session and its jobs say goes to standard error, a line an event.
fn log(config: &Config) -> Result<(), Stop> {
    let wanted = config.get("millstream.log.level").0.parse::<Targets>();
    let wanted = wanted.map_err(|error| Stop::Refused(Diagnostic::user(error.to_string())))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let events = tracing_subscriber::registry().with(wanted);
    let begun = match config.get("millstream.log.format").0 {
        "json" => events.with(lines.json().flatten_event(true)).try_init(),
        _ => events.with(lines).try_init(),
    };
    begun
        .map_err(|error| Stop::Failed(Diagnostic::internal("the log cannot begin").detail(error.to_string())))
}

/// Runs a session until it is told to end.
fn start(args: &SessionStartArgs, terminal: &Arc<Terminal>) -> Done {
    let mut platform = Platform::system();
    platform.faults = super::run::faults(&platform.clock).map_err(Stop::Refused)?;
    let config = Config::load(&args.define).map_err(Stop::Refused)?;
    let folder = config.session_dir().map_err(Stop::Refused)?;
    let _lock = hold(&folder)?;
    let slots = args.slots.unwrap_or_else(|| u32::try_from(available_parallelism()).unwrap_or(1));
    if slots == 0 {
        return Err(Stop::Refused(Diagnostic::user("a session has one slot at least")));
    }
    let access = Arc::new(Access::of(&config).map_err(Stop::Refused)?);
    let port = u16::try_from(config.number("rest.port").unwrap_or_default()).unwrap_or_default();
    // Signals are caught before there is anything to end.
    let caught = {
        let _network = runtime().enter();
        [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
    };
    let [interrupt, terminate] = caught;
    let cannot = |error: std::io::Error| {
        Stop::Failed(Diagnostic::external("cannot catch signals").detail(error.to_string()))
    };
    let (mut interrupt, mut terminate) = (interrupt.map_err(cannot)?, terminate.map_err(cannot)?);
    log(&config)?;
    let settings = SessionSettings { folder: Some(folder), slots, remembered: REMEMBERED };
    let session = Session::open(settings, config, platform, Arc::new(SessionLog)).map_err(Stop::Failed)?;
    let server = rest::serve(&session, port, &access).map_err(Stop::Failed)?;
    access.warning().iter().for_each(|warning| terminal.warning(warning));
    terminal.line(&format!("{ANNOUNCED}{}, with {slots} slots.", server.url()));
    runtime().block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = server.ends() => {}
        }
    });
    terminal.line("The session ends; its jobs come back with the next.");
    session.end();
    // Whoever has asked for the end hears of it.
    server.close(ANSWERED_WITHIN);
    Ok(())
}

/// The port at which a session says that it is.
fn announced_port(said: &str) -> Option<&str> {
    let address = said.lines().find_map(|line| line.strip_prefix(ANNOUNCED))?.split(',').next()?;
    address.rsplit_once(':').map(|(_, port)| port)
}

/// Starts a session in a process of its own, and waits until it answers.
fn start_detached(args: &SessionStartArgs) -> Done {
    let mut config = Config::load(&args.define).map_err(Stop::Refused)?;
    let folder = config.session_dir().map_err(Stop::Refused)?;
    Access::of(&config).map_err(Stop::Refused)?;
    // That a session could be asked so is looked at before there is one.
    Client::of(&config, None).map_err(Stop::Refused)?;
    drop(hold(&folder)?);
    let log = folder.join("session.log");
    let opened = || OpenOptions::new().create(true).append(true).open(&log);
    let io = |error: std::io::Error| folder_error(&folder, &error);
    let (out, err) = (opened().map_err(io)?, opened().map_err(io)?);
    // Earlier sessions have said where they were, too.
    let mut says = File::open(&log).map_err(io)?;
    says.seek(SeekFrom::End(0)).map_err(io)?;
    let mut said = Vec::new();
    let mut command = Command::new(std::env::current_exe().map_err(io)?);
    command.args(["session", "start"]).args(args.define.iter().flat_map(|define| ["-D", define]));
    if let Some(slots) = args.slots {
        command.args(["--slots", &slots.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    // Ctrl-C in this terminal is not for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(io)?;
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    let client = loop {
        let has_ended = child.try_wait().map_err(io)?.is_some();
        says.read_to_end(&mut said).map_err(io)?;
        let said = String::from_utf8_lossy(&said);
        // Whoever else answers where it is to be asked is not the one that was started.
        if let Some(port) = announced_port(&said).filter(|_| !has_ended) {
            config.set("rest.port", port, Origin::CommandLine).map_err(Stop::Refused)?;
            let client = Client::of(&config, None).map_err(Stop::Refused)?;
            match client.get("/overview") {
                Ok(_) => break client,
                Err(ClientError::Unreachable(_)) => {}
                // It is there, and not as this configuration says: nobody could ask it.
                Err(error) => {
                    child.kill().map_err(io)?;
                    return Err(Stop::Failed(error.diagnostic("the session does not answer")));
                }
            }
        }
        if has_ended || clock.now() > end {
            if !has_ended {
                child.kill().map_err(io)?;
            }
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.iter().rev().take(5).rev().copied().collect::<Vec<_>>().join("\n");
            return Err(Stop::Failed(
                Diagnostic::external("the session does not start")
                    .detail(last)
                    .hint(format!("its log is {}", log.display())),
            ));
        }
        clock.sleep(LOOKED_EVERY);
    };
    answer(&format!("Session started at {} (process {}).\n", client.url(), child.id()));
    Ok(())
}

/// What a session says of itself; whatever else is at its address is none.
fn overview(client: &Client) -> Result<Value, Stop> {
    let said = client.get("/overview").map_err(|error| Stop::Failed(error.diagnostic("no session")))?;
    number(client, &said, "slots-total")?;
    Ok(said)
}

fn stop(at: &At) -> Done {
    let client = client(at.jobmanager.as_deref(), &at.define)?;
    // Nothing else is told to end.
    overview(&client)?;
    client.delete("/cluster").map_err(|error| Stop::Failed(error.diagnostic("the session does not end")))?;
    let clock = Clock::system();
    let end = clock.now() + PATIENCE;
    while client.get("/overview").is_ok() {
        if clock.now() > end {
            return Err(Stop::Failed(Diagnostic::external("the session does not end")));
        }
        clock.sleep(LOOKED_EVERY);
    }
    match at.json {
        true => answer("{}\n"),
        false => answer("Session ended.\n"),
    }
    Ok(())
}

fn status(at: &At) -> Done {
    let client = client(at.jobmanager.as_deref(), &at.define)?;
    let said = overview(&client)?;
    if at.json {
        answer(&format!(
            "{}\n",
            json!({ "address": client.address(), "url": client.url(), "overview": said })
        ));
        return Ok(());
    }
    let of = |name: &str| said[name].as_u64().unwrap_or_default();
    answer(&format!(
        "Session at {}: {} of {} slots free; jobs: {} running, {} finished, {} cancelled, {} failed\n",
        client.url(),
        of("slots-available"),
        of("slots-total"),
        of("jobs-running"),
        of("jobs-finished"),
        of("jobs-cancelled"),
        of("jobs-failed"),
    ));
    Ok(())
}
