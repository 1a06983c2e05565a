//! Who may ask: who speaks to the server by its own name, and says in time and in so many bytes what is asked.
//!
//! A page of another site that a browser shows can send requests to a server on the same machine. They have the
//! `Origin` of that site; or, where its name has been pointed at this machine, that name in `Host`. Both are refused.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::answer::Failure;
use crate::{Served, UPLOAD_BYTES};

/// The body of a request that is no upload may have so many bytes.
const BODY_BYTES: usize = 1 << 20;
/// A body has to be here after so long.
const BODY_TIME: Duration = Duration::from_secs(20);

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
    let is_upload = request.uri().path().ends_with("/jars/upload");
    let (head, body) = request.into_parts();
    let whole = async {
        if !is_upload {
            return whole(body, BODY_BYTES).await;
        }
        let _place = served.uploads.acquire().await;
        whole(body, UPLOAD_BYTES).await
    };
    let too_late =
        |_| Failure(StatusCode::REQUEST_TIMEOUT, format!("The request's body took over {BODY_TIME:?}."));
    let body = tokio::time::timeout(BODY_TIME, whole).await.map_err(too_late)??;
    Ok(next.run(Request::from_parts(head, Body::from(body))).await)
}

/// All of a body, which may have so many bytes.
async fn whole(mut body: Body, most: usize) -> Result<Vec<u8>, Failure> {
    let too_large =
        || Failure(StatusCode::PAYLOAD_TOO_LARGE, format!("The request's body has over {most} bytes."));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Failure::bad(format!("Bad request received: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
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
