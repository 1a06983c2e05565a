//! Who may reach the server, and how: where it listens, its TLS, and the token that requests have to show.

use std::fs::{File, Permissions};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderValue;
use cluster::Config;
use model::Diagnostic;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};

/// A file of certificates, of a key or of a token has so many bytes at most.
const FILE_BYTES: u64 = 1 << 20;
/// A token has so many characters at least, and at most.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 4_096;
/// What others must not do with a secret file: anything at all; what its group must not: write it.
const OPEN_TO_OTHERS: u32 = 0o027;

/// How a server is reached.
pub struct Access {
    /// Where it listens.
    pub(crate) address: IpAddr,
    /// None = no TLS.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// None = who reaches it may ask.
    pub(crate) token: Option<Token>,
    /// The name by which it is asked, beside those of this machine.
    pub(crate) name: String,
}

impl Access {
    /// What the configuration says.
    ///
    /// # Errors
    /// If files are missing or no such files, or others could read a secret; or if the server could be reached from
    /// other machines without TLS or without a token, and that is not asked for.
    pub fn of(config: &Config) -> Result<Self, Diagnostic> {
        let address = config.rest_bind_address()?;
        let tls = match config.is_true("security.ssl.rest.enabled") {
            true => Some(Arc::new(tls(config)?)),
            false => None,
        };
        let token = config.file("rest.token-file").map(Token::read).transpose()?;
        let name = config.get("rest.address").0.to_owned();
        let this = Self { address, tls, token, name };
        match this.is_open() && !config.is_true("rest.insecure") {
            false => Ok(this),
            true => Err(Diagnostic::user(format!("the REST interface at {address} would be open to others"))
                .detail(format!("who reaches it runs code; it has {}", this.lacks()))
                .hint(
                    "set security.ssl.rest.enabled, .certificate and .key, and rest.token-file; or listen on \
                     this machine alone (127.0.0.1); or say -D rest.insecure=true",
                )),
        }
    }

    /// Whether other machines reach it without TLS or without a token.
    fn is_open(&self) -> bool {
        !self.address.is_loopback() && (self.tls.is_none() || self.token.is_none())
    }

    fn lacks(&self) -> &'static str {
        match (&self.tls, &self.token) {
            (None, None) => "no TLS and no token",
            (None, Some(_)) => "no TLS",
            (Some(_), _) => "no token",
        }
    }

    /// What whoever starts it should know.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.is_open().then(|| {
            let lacks = self.lacks();
            format!("the REST interface at {} has {lacks}: who reaches it runs code", self.address)
        })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// TLS 1.2 and 1.3 with the certificate that the configuration names.
fn tls(config: &Config) -> Result<ServerConfig, Diagnostic> {
    let named = |key: &str| {
        config.file(key).ok_or_else(|| {
            Diagnostic::user(format!("the REST interface is to speak TLS, and `{key}` is missing"))
                .hint("security.ssl.rest.certificate and security.ssl.rest.key name files (PEM)")
        })
    };
    let (certificate, key) = (named("security.ssl.rest.certificate")?, named("security.ssl.rest.key")?);
    let no = |path: &Path, what: &str, why: &dyn std::fmt::Display| {
        Diagnostic::user(format!("`{}` is no {what}", path.display())).detail(why.to_string())
    };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&secret(key)?);
    let private = private.map_err(|error| no(key, "private key (PEM)", &error))?;
    let wrong = |error: rustls::Error| no(certificate, "certificate of the key", &error);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(wrong)?;
    let mut tls = builder.with_no_client_auth().with_single_cert(chain, private).map_err(wrong)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// The certificates in a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let (bytes, _) = read(path)?;
    let no = || Diagnostic::user(format!("`{}` has no certificate (PEM)", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(no()),
        Ok(found) => Ok(found),
        Err(error) => Err(no().detail(error.to_string())),
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Permissions), Diagnostic> {
    let read = || {
        let file = File::open(path)?;
        let permissions = file.metadata()?.permissions();
        let mut bytes = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok((bytes, permissions))
    };
    read().map_err(|error: std::io::Error| {
        Diagnostic::user(format!("cannot read `{}`", path.display())).detail(error.to_string())
    })
}

/// What is in a file that others must not be able to read.
fn secret(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let (bytes, permissions) = read(path)?;
    match permissions.mode() & OPEN_TO_OTHERS {
        0 => Ok(bytes),
        _ => Err(Diagnostic::user(format!(
            "`{}` is a secret, and others can read or change it",
            path.display()
        ))
        .detail(format!("its mode is {:03o}", permissions.mode() & 0o777))
        .hint(format!("chmod 600 {}", path.display()))),
    }
}

/// What whoever asks has to know. It is nowhere shown.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The first line of a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Diagnostic> {
        let bytes = secret(path)?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim();
        match token.bytes().all(|byte| byte.is_ascii_graphic())
            && (TOKEN_MIN..=TOKEN_MAX).contains(&token.len())
        {
            true => Ok(Self(token.to_owned())),
            false => Err(Diagnostic::user(format!("`{}` has no token", path.display()))
                .detail(format!("one is a line of {TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters"))
                .hint(format!(
                    "(umask 077; head -c 32 /dev/urandom | base64 > {}) makes one",
                    path.display()
                ))),
        }
    }

    /// Whether this is it. How long that takes says nothing of where they differ: digests are compared, and these in
    /// constant time.
    pub(crate) fn is(&self, shown: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(shown.as_bytes())
    }

    /// As a request shows it.
    pub(crate) fn header(&self) -> HeaderValue {
        let shown = HeaderValue::from_str(&format!("Bearer {}", self.0));
        let mut shown = shown.expect("its characters are visible ones");
        shown.set_sensitive(true);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(defined: &[&str]) -> Result<Access, Diagnostic> {
        let defined: Vec<String> = defined.iter().map(ToString::to_string).collect();
        Access::of(&Config::load(&defined).unwrap())
    }

    fn file(mode: u32, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn other_machines_are_kept_out_unless_somebody_says_otherwise() {
        for address in ["127.0.0.1", "::1", "localhost", "127.8.8.8"] {
            assert_eq!(access(&[&format!("rest.address={address}")]).unwrap().warning(), None, "{address}");
        }
        let token = file(0o600, "0123456789abcdef\n");
        let token = format!("rest.token-file={}", token.path().display());
        for address in ["0.0.0.0", "::", "10.1.2.3", "::ffff:127.0.0.1"] {
            let address = format!("rest.bind-address={address}");
            for (also, lacks) in [("rest.port=1", "no TLS and no token"), (token.as_str(), "it has no TLS")] {
                let refused = access(&[&address, also]).err().unwrap();
                assert!(refused.detail.unwrap().contains(lacks), "{address}");
                assert!(refused.hint.unwrap().contains("rest.insecure"), "{address}");
            }
            let open = access(&[&address, "rest.insecure=true"]).unwrap();
            assert!(open.warning().unwrap().contains("who reaches it runs code"), "{address}");
        }
    }

    #[test]
    fn a_token_is_a_secret_of_some_length() {
        let good = file(0o600, "0123456789abcdef\n");
        let token = Token::read(good.path()).unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "0123456789abcdef\n"] {
            assert!(!token.is(other), "{other}");
        }
        for text in ["", "short", "0123456789abcdef 0123456789abcdef", "0123456789\u{e9}bcdefg"] {
            let refused = Token::read(file(0o600, text).path()).err().unwrap();
            assert!(refused.message.ends_with("has no token"), "{refused:?}");
        }
        for mode in [0o604, 0o644, 0o602, 0o620, 0o666] {
            let refused = Token::read(file(mode, "0123456789abcdef").path()).err().unwrap();
            assert!(refused.hint.unwrap().starts_with("chmod 600 "), "{mode:o}");
        }
        for mode in [0o600, 0o400, 0o440, 0o640] {
            assert!(Token::read(file(mode, "0123456789abcdef").path()).is_ok(), "{mode:o}");
        }
        assert!(Token::read(Path::new("/nowhere/token")).is_err());
    }

    #[test]
    fn tls_needs_a_certificate_and_its_key() {
        let tls = "security.ssl.rest.enabled=true";
        let missing = access(&[tls]).err().unwrap();
        assert!(missing.message.contains("`security.ssl.rest.certificate` is missing"), "{missing:?}");
        let none = file(0o600, "nothing");
        let named = |key: &str| format!("security.ssl.rest.{key}={}", none.path().display());
        let wrong = access(&[tls, &named("certificate"), &named("key")]).err().unwrap();
        assert!(wrong.message.ends_with("has no certificate (PEM)"), "{wrong:?}");
    }
}
