//! The REST interface of a job that `run` or `dev` runs in its own process.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Config, JobMaster, Session, Tell};
use platform::Clock;
use rest::{Access, Server};

use crate::Stop;

/// How long the end waits until those who have asked for something have been told what came of it.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How it is to be reached; none = not at all.
pub(super) fn access(config: &Config) -> Result<Option<Arc<Access>>, Stop> {
    match config.rest_ports() {
        None => Ok(None),
        Some(_) => Access::of(config).map(|access| Some(Arc::new(access))).map_err(Stop::Refused),
    }
}

/// Serves the job at the first port that is free. Without one the job runs all the same. `on_end` is called when
/// somebody asks for the session's end.
pub(super) fn serve(
    session: &Arc<Session>,
    master: &JobMaster,
    access: Option<&Arc<Access>>,
    tell: &dyn Tell,
    on_end: impl FnOnce() + Send + 'static,
) -> Option<Server> {
    let (ports, access) = (session.config().rest_ports()?, access?);
    access.warning().iter().for_each(|warning| tell.warn(warning));
    let found = ports.clone().find_map(|port| rest::serve(session, port, access).ok());
    let Some(server) = found else {
        let (first, last) = (ports.start(), ports.end());
        let those = if first == last { first.to_string() } else { format!("{first} to {last}") };
        tell.say(&format!("No REST interface: the ports from {those} are taken."));
        return None;
    };
    tell.say(&format!("REST interface at {}, job {}.", server.url(), master.id()));
    let ends = server.ends();
    platform::spawn_task("session-end", async move {
        ends.await;
        on_end();
    });
    Some(server)
}

/// Ends it, when those who have asked for something have been told what came of it.
pub(super) fn end(server: Server, clock: &Clock) {
    server.tell_all(TOLD_WITHIN, clock);
    server.close(TOLD_WITHIN);
}
