//! Asks a server: what `streamctl` speaks to sessions with. Each call blocks.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use cluster::Config;
use model::Diagnostic;
use platform::network::{runtime, set_up_cryptography};
use reqwest::header::AUTHORIZATION;
use reqwest::{Certificate, Method};
use serde_json::Value;

use crate::access::{Token, certificates};

/// Where components are uploaded.
const UPLOAD: &str = "/jars/upload";

/// A server, as a client sees it.
#[derive(Clone)]
pub struct Client {
    /// `http` or `https`.
    scheme: &'static str,
    /// `HOST:PORT`.
    address: String,
    token: Option<Token>,
    /// How long an answer may take.
    timeout: Duration,
    http: reqwest::Client,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum ClientError {
    /// Nobody answers.
    Unreachable(Diagnostic),
    /// Who answers does not show to be who is meant.
    Unknown(Diagnostic),
    /// The server refuses: its status and its words.
    Refused(u16, String),
}

impl ClientError {
    /// What a user is told.
    #[must_use]
    pub fn diagnostic(self, what: &str) -> Diagnostic {
        match self {
            Self::Unreachable(error) | Self::Unknown(error) => error,
            Self::Refused(401, why) => Diagnostic::user(what)
                .detail(why)
                .hint("rest.token-file, or MILLSTREAM_REST_TOKEN_FILE, names the file of the server's token"),
            Self::Refused(_, why) => Diagnostic::user(what).detail(why),
        }
    }
}

/// How many times as long an answer may take for which a component has to be compiled.
const FOR_COMPILING: u32 = 10;

impl Client {
    /// Of the server that is asked for, `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`; or else of the one that
    /// the configuration has. What the configuration says of TLS and of the token holds for both.
    ///
    /// # Errors
    /// If the address is none, or the configuration's files are not there; or if the token would be told to whoever
    /// listens on the way.
    pub fn of(config: &Config, asked: Option<&str>) -> Result<Self, Diagnostic> {
        let asked = asked.map_or_else(|| config.rest_address(), str::to_owned);
        let (scheme, rest) = match (asked.strip_prefix("https://"), asked.strip_prefix("http://")) {
            (Some(rest), _) => ("https", rest),
            (None, Some(rest)) => ("http", rest),
            (None, None) if config.is_true("security.ssl.rest.enabled") => ("https", asked.as_str()),
            (None, None) => ("http", asked.as_str()),
        };
        let address = rest.trim_end_matches('/');
        let host = match address.rsplit_once(':') {
            Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => host,
            _ => return Err(Diagnostic::user(format!("`{asked}` is no HOST:PORT"))),
        };
        let token = config.file("rest.token-file").map(Token::read).transpose()?;
        let is_overheard = scheme == "http" && !is_loopback(host);
        if token.is_some() && is_overheard && !config.is_true("rest.insecure") {
            return Err(Diagnostic::user(format!("the token would go to {address} without TLS"))
                .detail("who listens on the way could use it")
                .hint(format!("-m https://{address}; or say -D rest.insecure=true")));
        }
        set_up_cryptography();
        let none =
            |error: reqwest::Error| Diagnostic::internal("there is no HTTP client").detail(error.to_string());
        let http = reqwest::Client::builder().no_proxy();
        let mut http = http.redirect(reqwest::redirect::Policy::none());
        // Who starts a session knows it by its own certificate. Without TLS the system's are not read: a machine may
        // have none.
        let known = config.file("security.ssl.rest.ca").or(config.file("security.ssl.rest.certificate"));
        http = match known {
            _ if scheme == "http" => http.tls_certs_only([]),
            None => http,
            Some(file) => {
                let known = certificates(file)?;
                let known: Result<Vec<_>, _> = known.iter().map(|one| Certificate::from_der(one)).collect();
                http.tls_certs_only(known.map_err(none)?)
            }
        };
        let http = http.build().map_err(none)?;
        let timeout = config.duration("client.timeout");
        Ok(Self { scheme, address: address.to_owned(), token, timeout, http })
    }

    /// Where the server is: `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same, as a URL: `http://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// If the server does not answer, or refuses.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None)
    }

    /// Sends JSON to a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(("application/json".into(), body.to_string().into_bytes())))
    }

    /// Changes what is at a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn patch(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::PATCH, path, None)
    }

    /// Removes what is at a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::DELETE, path, None)
    }

    /// Uploads a component; its id.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn upload(&self, name: &str, bytes: &[u8]) -> Result<String, ClientError> {
        let edge = format!("millstream-{:016x}", platform::Random::unpredictable_seed());
        let name: String = name.chars().map(|c| if c == '"' || c.is_control() { '_' } else { c }).collect();
        let mut body = format!(
            "--{edge}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"{name}\"\r\n\
             Content-Type: application/wasm\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(format!("\r\n--{edge}--\r\n").as_bytes());
        let of = format!("multipart/form-data; boundary={edge}");
        let answer = self.ask(Method::POST, UPLOAD, Some((of, body)))?;
        let path = answer["filename"].as_str().unwrap_or_default();
        Ok(path.rsplit('/').next().unwrap_or_default().to_owned())
    }

    fn ask(&self, method: Method, path: &str, body: Option<(String, Vec<u8>)>) -> Result<Value, ClientError> {
        let timeout = self.timeout.saturating_mul(if path == UPLOAD { FOR_COMPILING } else { 1 });
        let mut request = self.http.request(method, format!("{}{path}", self.url())).timeout(timeout);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header());
        }
        if let Some((of, bytes)) = body {
            request = request.header("content-type", of).body(bytes);
        }
        runtime().block_on(async {
            let response = request.send().await.map_err(|error| self.no_answer(&error, timeout))?;
            let status = response.status();
            let bytes = response.bytes().await.map_err(|error| self.no_answer(&error, timeout))?;
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if status.is_success() {
                return Ok(value);
            }
            let errors = value["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let why: Vec<&str> = errors.collect();
            let why = if why.is_empty() { status.to_string() } else { why.join("\n") };
            Err(ClientError::Refused(status.as_u16(), why))
        })
    }

    fn no_answer(&self, error: &reqwest::Error, timeout: Duration) -> ClientError {
        if let Some(tls) = tls_error(error) {
            return ClientError::Unknown(
                Diagnostic::external(format!("{} does not show to be who is meant", self.url()))
                    .detail(tls.to_string())
                    .hint("security.ssl.rest.ca names the file of the certificates that are trusted (PEM)"),
            );
        }
        if error.is_timeout() {
            return ClientError::Unreachable(
                Diagnostic::external(format!("{} does not answer", self.address))
                    .detail(format!("nothing has come in {timeout:?}"))
                    .hint("-D client.timeout=TIME gives it longer; -m HOST:PORT names another session"),
            );
        }
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        ClientError::Unreachable(
            Diagnostic::external(format!("no session answers at {}", self.address)).detail(why).hint(
                "`streamctl session start -d` starts one; -m HOST:PORT names another, -m https://HOST:PORT one \
                 with TLS",
            ),
        )
    }
}

/// What TLS says to an error, if that is what it comes from.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(of) = cause {
        if let Some(tls) = of.downcast_ref() {
            return Some(tls);
        }
        // An error of input or output does not say that it has another in it.
        let inner = of.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => of.source(),
        };
    }
    None
}

/// Whether a name may be a server's: without what would make it part of something else in a URL.
fn is_host(host: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !host.is_empty() && host.chars().all(is_part)
}

/// Whether what is sent there stays on this machine.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn client(defined: &[&str], asked: Option<&str>) -> Result<Client, Diagnostic> {
        let defined: Vec<String> = defined.iter().map(ToString::to_string).collect();
        Client::of(&Config::load(&defined).unwrap(), asked)
    }

    #[test]
    fn a_server_is_named_with_and_without_a_scheme() {
        let url = |defined: &[&str], asked| client(defined, asked).unwrap().url();
        assert_eq!(url(&[], None), "http://127.0.0.1:8081");
        assert_eq!(url(&["rest.address=::1", "rest.port=1"], None), "http://[::1]:1");
        assert_eq!(url(&[], Some("https://a.example.org:1/")), "https://a.example.org:1");
        let tls = "security.ssl.rest.enabled=true";
        assert_eq!(url(&[tls], Some("a:1")), "https://a:1");
        assert_eq!(url(&[tls], Some("http://a:1")), "http://a:1");
        for wrong in
            ["", "a", "a:", ":1", "a:b", "ftp://a:1", "https://", "a:70000", "a@b:1", "a/b:1", "a?b:1"]
        {
            assert!(client(&[], Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_leaves_this_machine_with_tls_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let token = format!("rest.token-file={}", file.path().display());
        for fine in ["127.0.0.1:1", "localhost:1", "[::1]:1", "https://a:1"] {
            assert!(client(&[&token], Some(fine)).is_ok(), "{fine}");
        }
        let refused = client(&[&token], Some("a:1")).err().unwrap();
        assert_eq!(refused.hint.unwrap(), "-m https://a:1; or say -D rest.insecure=true");
        assert!(client(&[&token, "rest.insecure=true"], Some("a:1")).is_ok());
    }
}
