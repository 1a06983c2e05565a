//! Asks a server: what `streamctl` speaks to sessions with. Each call blocks.

use std::time::Duration;

use model::Diagnostic;
use platform::network::{runtime, set_up_cryptography};
use reqwest::Method;
use serde_json::Value;

/// A server, as a client sees it.
#[derive(Clone)]
pub struct Client {
    address: String,
    http: reqwest::Client,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum ClientError {
    /// Nobody answers.
    Unreachable(Diagnostic),
    /// The server refuses: its status and its words.
    Refused(u16, String),
}

impl ClientError {
    /// What a user is told.
    #[must_use]
    pub fn diagnostic(self, what: &str) -> Diagnostic {
        match self {
            Self::Unreachable(error) => error,
            Self::Refused(_, why) => Diagnostic::user(what).detail(why),
        }
    }
}

/// How long an answer may take: a component has to be compiled for some.
const TIMEOUT: Duration = Duration::from_secs(120);

impl Client {
    /// Of the server at `HOST:PORT`.
    ///
    /// # Errors
    /// If there can be no client.
    pub fn new(address: &str) -> Result<Self, Diagnostic> {
        set_up_cryptography();
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build();
        let http =
            http.map_err(|error| Diagnostic::internal("there is no HTTP client").detail(error.to_string()))?;
        Ok(Self { address: address.to_owned(), http })
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
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
        let answer = self.ask(Method::POST, "/jars/upload", Some((of, body)))?;
        let path = answer["filename"].as_str().unwrap_or_default();
        Ok(path.rsplit('/').next().unwrap_or_default().to_owned())
    }

    fn ask(&self, method: Method, path: &str, body: Option<(String, Vec<u8>)>) -> Result<Value, ClientError> {
        let unreachable = |error: reqwest::Error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            ClientError::Unreachable(
                Diagnostic::external(format!("no session answers at {}", self.address))
                    .detail(why)
                    .hint("`streamctl session start -d` starts one; -m HOST:PORT names another"),
            )
        };
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if let Some((of, bytes)) = body {
            request = request.header("content-type", of).body(bytes);
        }
        runtime().block_on(async {
            let response = request.send().await.map_err(unreachable)?;
            let status = response.status();
            let bytes = response.bytes().await.map_err(unreachable)?;
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
}
