//! Who may ask: who speaks to the server by its own name.
//!
//! A page of another site that a browser shows can send requests to a server on the same machine. They have the
//! `Origin` of that site; or, where its name has been pointed at this machine, that name in `Host`. Both are refused.

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::Served;
use crate::answer::Failure;

pub(crate) async fn guard(
    State(served): State<Served>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let headers = request.headers();
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = authority.or_else(|| header(headers, HOST.as_str()));
    let host = host.ok_or_else(|| Failure::bad("The request names no host."))?;
    // Whoever listens elsewhere than on this machine has been told what that means.
    if served.address.ip().is_loopback() && !is_loopback(&host) {
        return Err(Failure(StatusCode::FORBIDDEN, format!("This server is not {host}.")));
    }
    if let Some(origin) = header(headers, ORIGIN.as_str())
        && origin.split_once("://").map(|(_, of)| of) != Some(host.as_str())
    {
        return Err(Failure(StatusCode::FORBIDDEN, format!("Requests of {origin} are refused.")));
    }
    Ok(next.run(request).await)
}

/// A header; none where it is no text.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Whether this name, with or without a port, is this machine's own.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for own in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "[::1]"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["example.org", "localhost.example.org:8081", "10.0.0.1:8081", "", "127.0.0.1.nip.io"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
