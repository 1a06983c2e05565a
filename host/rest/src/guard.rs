//! Who may ask: who speaks to the server by its own name, shows its token where it has one, and says in time and in
//! so many bytes what is asked.
//!
//! A page of another site that a browser shows can send requests to a server on the same machine. They have the
//! `Origin` of that site; or, where its name has been pointed at this machine, that name in `Host`. Both are refused.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use crate::answer::Failure;
use crate::{Served, UPLOAD_BYTES};

/// The body of a request that is no upload may have so many bytes.
const BODY_BYTES: usize = 1 << 20;
/// A body has to be here after so long.
const BODY_TIME: Duration = Duration::from_secs(20);
/// What is not wanted of a body is read for so long.
const UNWANTED_TIME: Duration = Duration::from_secs(2);
/// Who uploads waits for so long for a place.
const PLACE_TIME: Duration = Duration::from_secs(5);

pub(crate) async fn guard(State(served): State<Served>, request: Request, next: Next) -> Response {
    if let Err(failure) = may_ask(&served, &request) {
        return refused(failure, request.into_body()).await;
    }
    // Held until the component has been compiled.
    let is_upload = request.uri().path().ends_with("/jars/upload");
    let place = if is_upload { place(&served).await.map(Some) } else { Ok(None) };
    let _place = match place {
        Ok(place) => place,
        Err(failure) => return refused(failure, request.into_body()).await,
    };
    let most = if is_upload { UPLOAD_BYTES } else { BODY_BYTES };
    let (head, mut body) = request.into_parts();
    let too_late =
        |_| Failure(StatusCode::REQUEST_TIMEOUT, format!("The request's body took over {BODY_TIME:?}."));
    match timeout(BODY_TIME, whole(&mut body, most)).await.map_err(too_late).flatten() {
        Ok(bytes) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Err(failure) => refused(failure, body).await,
    }
}

/// Whether whoever asks may.
fn may_ask(served: &Served, request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = authority.or_else(|| header(headers, HOST.as_str()));
    let host = host.ok_or_else(|| Failure::bad("The request names no host."))?;
    if !is_own(&host, served.address.ip(), &served.access.name) {
        return Err(Failure(StatusCode::FORBIDDEN, format!("This server is not {host}.")));
    }
    if let Some(origin) = header(headers, ORIGIN.as_str())
        && origin.split_once("://").map(|(_, of)| of) != Some(host.as_str())
    {
        return Err(Failure(StatusCode::FORBIDDEN, format!("Requests of {origin} are refused.")));
    }
    match &served.access.token {
        Some(token) if !bearer(headers).is_some_and(|shown| token.is(&shown)) => {
            let why = "The request does not show this server's token.";
            Err(Failure(StatusCode::UNAUTHORIZED, why.to_owned()))
        }
        _ => Ok(()),
    }
}

/// The answer to a request whose body nobody wants. Most of it is on its way: a client that is cut off while it writes
/// does not hear why.
async fn refused(failure: Failure, mut body: Body) -> Response {
    let rest = async { while next_frame(&mut body).await.is_some_and(|frame| frame.is_ok()) {} };
    drop(timeout(UNWANTED_TIME, rest).await);
    failure.into_response()
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// A place among those who upload.
async fn place(served: &Served) -> Result<SemaphorePermit<'_>, Failure> {
    let too_many =
        || Failure(StatusCode::SERVICE_UNAVAILABLE, "Too many components are being uploaded.".into());
    match timeout(PLACE_TIME, served.uploads.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(too_many()),
    }
}

/// The token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let shown = header(headers, AUTHORIZATION.as_str())?;
    let (scheme, token) = shown.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// All of a body, which may have so many bytes.
async fn whole(body: &mut Body, most: usize) -> Result<Vec<u8>, Failure> {
    let too_large =
        || Failure(StatusCode::PAYLOAD_TOO_LARGE, format!("The request's body has over {most} bytes."));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = next_frame(body).await {
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

/// Whether a server that listens at `address` may be spoken to so, with or without a port.
///
/// A page of another site can point its own name at the server's address, but not make the browser ask by the address
/// itself. So where other machines reach it, any address does; of names, this machine's own and the one that it is
/// configured to have.
fn is_own(host: &str, address: IpAddr, name: &str) -> bool {
    let asked = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let asked = asked.trim_start_matches('[').trim_end_matches(']');
    if asked.eq_ignore_ascii_case("localhost") || (!name.is_empty() && asked.eq_ignore_ascii_case(name)) {
        return true;
    }
    asked.parse::<IpAddr>().is_ok_and(|asked| asked.is_loopback() || !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::is_own;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let here = IpAddr::from([127, 0, 0, 1]);
        for own in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "[::1]"] {
            assert!(is_own(own, here, "127.0.0.1"), "{own}");
        }
        for other in ["example.org", "localhost.example.org:8081", "10.0.0.1:8081", "", "127.0.0.1.nip.io"] {
            assert!(!is_own(other, here, "127.0.0.1"), "{other}");
        }
    }

    #[test]
    fn one_for_other_machines_has_addresses_and_one_name() {
        let (all, name) = (IpAddr::from([0, 0, 0, 0]), "jobs.example.org");
        for own in
            ["jobs.example.org:8081", "Jobs.Example.org", "10.0.0.1:8081", "[2001:db8::1]:8081", "localhost"]
        {
            assert!(is_own(own, all, name), "{own}");
        }
        // Names that somebody else may have pointed here.
        for other in ["example.org", "evil.jobs.example.org", "10.0.0.1.nip.io:8081", "", ":8081"] {
            assert!(!is_own(other, all, name), "{other}");
        }
        assert!(is_own("jobs.example.org", IpAddr::from([127, 0, 0, 1]), name), "by a proxy on this machine");
    }
}
