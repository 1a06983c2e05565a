//! What `wit-bindgen` makes of `wit/`.
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in wit/")]
#![allow(unreachable_pub, unused_imports, dead_code, reason = "generated")]
#![allow(clippy::restriction, reason = "generated")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "windowed-job",
    generate_all,
    pub_export_macro: true,
});
