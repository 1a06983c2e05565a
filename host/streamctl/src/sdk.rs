//! What `streamctl new` writes: the template, and the SDK with its contract, both carried inside
//! this binary (`build.rs` lists them).

/// Where the SDK lies in a project.
pub(crate) const VENDOR: &str = "vendor/millstream";

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
