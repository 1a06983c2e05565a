//! The REST interface of a job that `run` runs in its own process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cluster::{JobMaster, Session, Tell};
use rest::Server;

/// Serves the job at the first port that is free. Without one the job runs all the same. `on_end` is called when
/// somebody asks for the session's end.
pub(super) fn serve(
    session: &Arc<Session>,
    master: &JobMaster,
    tell: &dyn Tell,
    on_end: impl FnOnce() + Send + 'static,
) -> Option<Server> {
    let config = session.config();
    let ports = config.rest_ports()?;
    let address: IpAddr = config.get("rest.address").0.parse().ok()?;
    let found = ports.clone().find_map(|port| rest::serve(session, SocketAddr::new(address, port)).ok());
    let Some(server) = found else {
        let (first, last) = (ports.start(), ports.end());
        let those = if first == last { first.to_string() } else { format!("{first} to {last}") };
        tell.say(&format!("No REST interface: the ports from {those} are taken."));
        return None;
    };
    tell.say(&format!("REST interface at http://{}, job {}.", server.address, master.id()));
    let ends = server.ends();
    platform::spawn_task("session-end", async move {
        ends.await;
        on_end();
    });
    Some(server)
}
