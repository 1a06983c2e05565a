//! A store in S3, or in a service that speaks as S3 does.
//!
//! An object is there whole or not at all, so nothing is renamed. A request whose reply is lost may have been
//! done: putting an object again under its name changes nothing, and [`Store::put_new`] looks whose object it
//! has met. Requests that fail for the moment (503, a broken connection, no answer in time) are repeated by the
//! `object_store` crate, with growing pauses, for [`PATIENCE`] at most.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore as Remote, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig, WriteMultipart,
};

use super::Store;
use crate::Faults;
use crate::faults::Point;
use crate::network::{runtime, set_up_cryptography};

/// What is larger goes in parts of this size.
const PART_BYTES: usize = 16 << 20;
/// How many parts are on their way at once.
const PARTS_MAX: usize = 4;
/// For how long a request is repeated.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the answer to one request may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a conditional put is tried whose outcome is not known.
const TRIES: u32 = 5;

/// How S3 is reached. What is not said is taken from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, …), or
/// from the machine's role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3 {
    /// The service's URL, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Who asks, and his secret.
    pub credentials: Option<(String, String)>,
    /// The bucket is the first name of the path, and not of the host.
    pub path_style: bool,
}

/// Objects below a prefix of a bucket.
pub struct ObjectStore {
    remote: Arc<dyn Remote>,
    /// As people write it, for errors.
    name: String,
    faults: Faults,
}

impl ObjectStore {
    /// In a bucket of S3's, below these names (none = all of it). Asks nothing yet.
    ///
    /// # Errors
    /// If the endpoint is no URL, or something else cannot be.
    pub fn s3(bucket: &str, prefix: &str, reached: &S3, faults: Faults) -> io::Result<Self> {
        set_up_cryptography();
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        };
        let retry = RetryConfig { backoff, max_retries: 20, retry_timeout: PATIENCE };
        let plain = reached.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let options = ClientOptions::new()
            .with_timeout(ANSWER)
            .with_connect_timeout(Duration::from_secs(5))
            .with_allow_http(plain);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(options)
            .with_virtual_hosted_style_request(!reached.path_style);
        if let Some(endpoint) = &reached.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &reached.region {
            builder = builder.with_region(region);
        }
        if let Some((key, secret)) = &reached.credentials {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        let remote = builder.build().map_err(io::Error::other)?;
        Ok(Self::on(Arc::new(remote), &format!("s3://{bucket}"), prefix, faults))
    }

    /// On any store of that crate.
    fn on(remote: Arc<dyn Remote>, name: &str, prefix: &str, faults: Faults) -> Self {
        let prefix = prefix.trim_matches('/');
        let (remote, name) = match prefix {
            "" => (remote, name.to_owned()),
            _ => {
                let below: Arc<dyn Remote> = Arc::new(PrefixStore::new(remote, Path::from(prefix)));
                (below, format!("{name}/{prefix}"))
            }
        };
        Self { remote, name, faults }
    }

    /// Waits for a reply; the error names the object.
    fn wait<T>(&self, path: &str, reply: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
        let named = |error: Error| io::Error::new(kind(&error), format!("`{}/{path}`: {error}", self.name));
        runtime().block_on(reply).map_err(named)
    }

    async fn upload(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() <= PART_BYTES {
            return self.remote.put(path, PutPayload::from(bytes.to_vec())).await.map(drop);
        }
        let upload = self.remote.put_multipart(path).await?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        for part in bytes.chunks(PART_BYTES) {
            if let Err(error) = parts.wait_for_capacity(PARTS_MAX).await {
                // What cannot be given up either is left for the bucket's own rule for such.
                drop(parts.abort().await);
                return Err(error);
            }
            parts.write(part);
        }
        parts.finish().await.map(drop)
    }

    async fn create(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > PART_BYTES {
            // Parts know no condition.
            return match self.remote.head(path).await {
                Err(Error::NotFound { .. }) => self.upload(path, bytes).await,
                Ok(_) if self.read(path).await? == bytes => Ok(()),
                Ok(_) => Err(anothers(path)),
                Err(error) => Err(error),
            };
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let put =
                self.remote.put_opts(path, PutPayload::from(bytes.to_vec()), PutMode::Create.into()).await;
            let error = match put {
                Ok(_) => return Ok(()),
                // A store without conditions: as good as it can.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    return self.upload(path, bytes).await;
                }
                Err(error) => error,
            };
            match self.read(path).await {
                // The reply to an earlier try was lost.
                Ok(there) if there == bytes => return Ok(()),
                Ok(_) => return Err(anothers(path)),
                Err(Error::NotFound { .. }) if tries < TRIES => {}
                Err(_) => return Err(error),
            }
        }
    }

    async fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        Ok(self.remote.get(path).await?.bytes().await?.into())
    }

    async fn names(&self, below: &str) -> Result<Vec<String>, Error> {
        use futures_util::TryStreamExt;
        let found = self.remote.list(Some(&Path::from(below))).map_ok(|object| object.location.to_string());
        let mut found: Vec<String> = found.try_collect().await?;
        found.sort_unstable();
        Ok(found)
    }
}

fn anothers(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "another process has put it".into() }
}

fn kind(error: &Error) -> io::ErrorKind {
    match error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    }
}

impl Store for ObjectStore {
    fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Point::StoreUpload)?;
        self.wait(path, self.upload(&Path::from(path), bytes))?;
        self.faults.pass(Point::StoreUploaded)
    }

    fn put_new(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Point::StoreUpload)?;
        self.wait(path, self.create(&Path::from(path), bytes))?;
        self.faults.pass(Point::StoreUploaded)
    }

    fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        self.faults.pass(Point::StoreRead)?;
        self.wait(path, self.read(&Path::from(path)))
    }

    fn list(&self, names: &str) -> io::Result<Vec<String>> {
        self.wait(names, self.names(names))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.faults.pass(Point::StoreRemove)?;
        match self.wait(path, self.remote.delete(&Path::from(path))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.faults.pass(Point::StoreRemoved),
        }
    }

    fn sweep(&self, _names: &str) -> io::Result<()> {
        // An object is not there before it is whole.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::Clock;

    fn on(remote: &Arc<InMemory>, faults: &str) -> ObjectStore {
        let faults = Faults::parse(faults, &Clock::simulated()).unwrap();
        ObjectStore::on(Arc::clone(remote) as Arc<dyn Remote>, "memory://bucket", "/jobs/", faults)
    }

    #[test]
    fn keeps_what_is_put() {
        let remote = Arc::new(InMemory::new());
        crate::store::tests::keeps(&on(&remote, ""));
        let whole = ObjectStore::on(remote, "memory://bucket", "", Faults::none());
        assert_eq!(whole.list("").unwrap(), ["jobs/a/two"]);
    }

    #[test]
    fn what_is_large_goes_in_parts() {
        let store = on(&Arc::new(InMemory::new()), "");
        let bytes: Vec<u8> = (0..2 * PART_BYTES + 5).map(|at| (at % 251) as u8).collect();
        store.put("large", &bytes).unwrap();
        assert!(store.get("large").unwrap() == bytes);
    }

    #[test]
    fn errors_name_the_object() {
        let store = on(&Arc::new(InMemory::new()), "");
        let missing = store.get("a/none").unwrap_err().to_string();
        assert!(missing.starts_with("`memory://bucket/jobs/a/none`: "), "{missing}");
    }

    #[test]
    fn a_put_whose_reply_was_lost_can_be_done_again() {
        let remote = Arc::new(InMemory::new());
        let store = on(&remote, "store.uploaded@1=eio");
        assert!(store.put_new("one", b"1").is_err());
        store.put_new("one", b"1").unwrap();
        assert_eq!(store.get("one").unwrap(), b"1");
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_refused() {
        let reached = S3 { endpoint: Some("nowhere".into()), ..S3::default() };
        let store = ObjectStore::s3("bucket", "", &reached, Faults::none());
        // Whether it is built or not, nothing is put there.
        assert!(store.is_err() || store.is_ok_and(|store| store.get("one").is_err()));
    }
}
