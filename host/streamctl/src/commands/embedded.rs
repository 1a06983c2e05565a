//! The REST interface of a job that `run` runs in its own process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cluster::{JobMaster, Session, Tell};
use rest::Server;

/// Serves the job at the first port that is free. Without one the job runs all the same.
pub(super) fn serve(session: &Arc<Session>, master: &Arc<JobMaster>, tell: &dyn Tell) -> Option<Server> {
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
    // Who ends the session ends the job.
    let (ends, job) = (server.ends(), Arc::downgrade(master));
    platform::spawn_task("session-end", async move {
        ends.await;
        job.upgrade().iter().for_each(|job| job.cancel());
    });
    Some(server)
}
