//! What a session keeps of its jobs, so that they come back when its process has died.
//!
//! ```text
//! jobs/<id>/job.json          the record; without it the folder is none of a job
//! jobs/<id>/<digest>.wasm      what it runs
//! uploads/<id>_<name>         components that were uploaded
//! checkpoints/<id>/…          of jobs that name no folder
//! ```
//!
//! Each is put whole and durable, or not at all ([`platform::Store`]).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use platform::Store;
use serde::{Deserialize, Serialize};

use crate::lifecycle::JobStatus;

/// What is asked for when a job is submitted, beside its component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Submission {
    /// The job, where the component has several; none = its first.
    pub job: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Parallel subtasks; none = as the configuration says.
    pub parallelism: Option<u32>,
    /// Final results only; none = as the configuration says.
    pub batch: Option<bool>,
    /// What is granted beyond what its arguments name.
    pub allow: Vec<String>,
    /// Values of the configuration.
    pub config: BTreeMap<String, String>,
    /// The checkpoint or savepoint that it goes on from.
    pub restore: Option<String>,
    /// State that nobody in the job asks for is left out.
    pub allow_non_restored: bool,
}

/// What is kept of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobRecord {
    /// Its id: 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The digest of its component.
    pub component: String,
    /// What was asked for.
    pub submission: Submission,
    /// Where it was when the record was written.
    pub status: JobStatus,
    /// When it came to each state, in milliseconds since the epoch.
    pub timestamps: BTreeMap<String, i64>,
    /// Why it has failed.
    pub error: Option<String>,
    /// The savepoint that it goes on from after its pause.
    pub paused_at: Option<String>,
    /// The first of its checkpoints since it has gone on from there.
    #[serde(default)]
    pub since: Option<u64>,
    /// It goes on when the session comes back: it was paused by the session's end alone.
    pub resumes: bool,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store does not give it.
    #[error("{path} cannot be read: {error}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is no record.
    #[error("{path} is no record of a job: {error}")]
    Json {
        /// Which.
        path: String,
        /// Why.
        error: serde_json::Error,
    },
}

/// Where jobs are kept.
#[derive(Clone)]
pub struct JobStore(Arc<dyn Store>);

impl JobStore {
    /// In this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Keeps a new job: its component first, then the record that makes it one.
    ///
    /// # Errors
    /// If it may not be kept.
    pub fn add(&self, record: &JobRecord, component: &[u8]) -> io::Result<()> {
        self.0.put(&component_path(record), component)?;
        self.put(record)
    }

    /// Keeps what a job is now, which runs another component.
    ///
    /// # Errors
    /// If what it was may be kept.
    pub fn change(&self, record: &JobRecord, component: &[u8]) -> io::Result<()> {
        self.add(record, component)?;
        let now = component_path(record);
        let is_other = |path: &&String| path.ends_with(".wasm") && **path != now;
        let all = self.0.list(&format!("jobs/{}", record.id))?;
        all.iter().filter(is_other).try_for_each(|path| self.0.remove(path))
    }

    /// Keeps what a job is now.
    ///
    /// # Errors
    /// If what it was may be kept.
    pub fn put(&self, record: &JobRecord) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        self.0.put(&path(&record.id, "job.json"), &bytes)
    }

    /// All jobs, the oldest first, and what is no job though it should be one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn all(&self) -> io::Result<(Vec<JobRecord>, Vec<RecordError>)> {
        self.0.sweep("jobs")?;
        let (mut records, mut wrong) = (Vec::new(), Vec::new());
        for path in self.0.list("jobs")?.into_iter().filter(|path| path.ends_with("/job.json")) {
            match self.0.get(&path) {
                Err(error) => wrong.push(RecordError::Io { path, error }),
                Ok(bytes) => match serde_json::from_slice::<JobRecord>(&bytes) {
                    Err(error) => wrong.push(RecordError::Json { path, error }),
                    Ok(record) => records.push(record),
                },
            }
        }
        let began = |record: &JobRecord| record.timestamps.get(JobStatus::Initializing.name()).copied();
        records.sort_by(|a, b| began(a).cmp(&began(b)).then_with(|| a.id.cmp(&b.id)));
        Ok((records, wrong))
    }

    /// What a job runs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn component(&self, record: &JobRecord) -> io::Result<Vec<u8>> {
        self.0.get(&component_path(record))
    }

    /// Forgets a job.
    ///
    /// # Errors
    /// If it may still be there.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.0.remove(&path(id, "job.json"))?;
        self.0.list(&format!("jobs/{id}"))?.iter().try_for_each(|path| self.0.remove(path))
    }

    /// Keeps a component that was uploaded.
    ///
    /// # Errors
    /// If it may not be kept.
    pub fn upload(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.put(&format!("uploads/{name}"), bytes)
    }

    /// The names of those that were.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn uploads(&self) -> io::Result<Vec<String>> {
        let all = self.0.list("uploads")?;
        Ok(all.iter().filter_map(|path| path.strip_prefix("uploads/").map(str::to_owned)).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// If it is not there.
    pub fn uploaded(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.get(&format!("uploads/{name}"))
    }

    /// Removes one.
    ///
    /// # Errors
    /// If it may still be there.
    pub fn remove_upload(&self, name: &str) -> io::Result<()> {
        self.0.remove(&format!("uploads/{name}"))
    }
}

fn component_path(record: &JobRecord) -> String {
    path(&record.id, &format!("{}.wasm", record.component))
}

fn path(id: &str, name: &str) -> String {
    format!("jobs/{id}/{name}")
}

#[cfg(test)]
mod tests {
    use platform::disk::ModelDisk;
    use platform::store::FileStore;
    use platform::{Disk, Faults};

    use super::*;

    fn record(id: &str, began: i64) -> JobRecord {
        JobRecord {
            id: id.into(),
            name: "word_count".into(),
            component: "00".into(),
            submission: Submission { args: vec!["--input".into(), "a".into()], ..Submission::default() },
            status: JobStatus::Running,
            timestamps: BTreeMap::from([("INITIALIZING".into(), began)]),
            error: None,
            paused_at: None,
            since: None,
            resumes: false,
        }
    }

    #[test]
    fn jobs_come_back_after_a_crash_in_the_order_in_which_they_began() {
        let disk = Arc::new(ModelDisk::new());
        let store = |disk: &Arc<ModelDisk>| {
            JobStore::new(Arc::new(FileStore::new(Arc::clone(disk) as Arc<dyn Disk>, Faults::none())))
        };
        let jobs = store(&disk);
        jobs.add(&record("b", 1), b"code").unwrap();
        jobs.add(&record("a", 2), b"code of a").unwrap();
        let ended = JobRecord { status: JobStatus::Failed, error: Some("no".into()), ..record("b", 1) };
        jobs.put(&ended).unwrap();
        disk.crash(&mut platform::Random::of_seed(1));
        let jobs = store(&disk);
        let (all, wrong) = jobs.all().unwrap();
        assert_eq!(all, [ended, record("a", 2)]);
        assert!(wrong.is_empty());
        assert_eq!(jobs.component(&record("a", 2)).unwrap(), b"code of a");
        let changed = JobRecord { component: "01".into(), ..record("a", 2) };
        jobs.change(&changed, b"other code").unwrap();
        disk.crash(&mut platform::Random::of_seed(2));
        let jobs = store(&disk);
        assert_eq!(jobs.component(&changed).unwrap(), b"other code");
        assert!(jobs.component(&record("a", 2)).is_err());
        jobs.remove("a").unwrap();
        assert_eq!(jobs.all().unwrap().0.len(), 1);
    }

    #[test]
    fn a_damaged_record_is_named_and_hides_no_other() {
        let disk: Arc<dyn Disk> = Arc::new(ModelDisk::new());
        let files = Arc::new(FileStore::new(disk, Faults::none()));
        let jobs = JobStore::new(Arc::clone(&files) as Arc<dyn Store>);
        jobs.add(&record("a", 1), b"code").unwrap();
        files.put("jobs/b/job.json", b"{\"id\": 3}").unwrap();
        let (all, wrong) = jobs.all().unwrap();
        assert_eq!(all.len(), 1);
        assert!(wrong[0].to_string().starts_with("jobs/b/job.json is no record of a job"));
    }
}
