//! Components written byte by byte: what no compiler would make.

use std::sync::Arc;

use guest::{GuestError, Program, Runtime};
use proptest::prelude::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::support::{component, runtime};

/// A core module of this contract, as text; `{placeholders}` are filled in.
const MODULE: &str = r#"
(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    {realloc}
    (global.get $next)
    (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
  (func (export "millstream:job/job@0.1.0#jobs") (result i32) {jobs})
  (func (export "cabi_post_millstream:job/job@0.1.0#jobs") (param i32) {post})
  (func (export "millstream:job/job@0.1.0#plan") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "millstream:job/functions@0.1.0#open")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "millstream:job/functions@0.1.0#process")
    (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  {more})
"#;

struct Parts<'a> {
    realloc: &'a str,
    jobs: &'a str,
    post: &'a str,
    more: &'a str,
}

const HONEST: Parts<'_> = Parts { realloc: "", jobs: "(i32.const 16)", post: "", more: "" };

fn encode(parts: &Parts<'_>) -> Vec<u8> {
    let text = MODULE
        .replace("{realloc}", parts.realloc)
        .replace("{jobs}", parts.jobs)
        .replace("{post}", parts.post)
        .replace("{more}", parts.more);
    let mut module = wat::parse_str(&text).unwrap();
    let mut resolve = Resolve::default();
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(&wit).unwrap();
    let world = resolve.select_world(&[package], Some("stateless-job")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

fn load(parts: &Parts<'_>) -> Result<Program, GuestError> {
    runtime().load(&encode(parts))
}

/// What `jobs` says when it returns this list: pointer and length.
fn jobs_at(pointer: u32, length: u32) -> Result<usize, GuestError> {
    let jobs = format!(
        "(i32.store (i32.const 16) (i32.const {})) (i32.store (i32.const 20) (i32.const {})) (i32.const 16)",
        pointer.cast_signed(),
        length.cast_signed()
    );
    load(&Parts { jobs: &jobs, ..HONEST })?.jobs().map(|jobs| jobs.len())
}

#[test]
fn an_honest_one_is_taken() {
    assert_eq!(jobs_at(0, 0).unwrap(), 0);
}

#[test]
fn lists_at_across_and_beyond_the_memorys_end() {
    for (pointer, length) in
        [(65_536, 1), (65_520, 2), (0xFFFF_FFF0, 1), (0, u32::MAX), (64, 0x1000_0000), (3, 1)]
    {
        let error = jobs_at(pointer, length).expect_err("it lies");
        assert!(error.is_of_a_row(), "{pointer} {length}: {error}");
    }
}

#[test]
fn a_result_beyond_the_memory() {
    for at in ["65534", "-4", "17"] {
        let jobs = format!("(i32.const {at})");
        assert!(load(&Parts { jobs: &jobs, ..HONEST }).unwrap().jobs().is_err(), "at {at}");
    }
}

#[test]
fn endless_loops_outside_of_functions() {
    let endless = "(loop $again (br $again))";
    let timed_out = |result: Result<(), GuestError>, place: &str| {
        assert!(matches!(result, Err(GuestError::TimedOut(_))), "{place}: {result:?}");
    };
    let start = format!("(func $start {endless}) (start $start)");
    timed_out(load(&Parts { more: &start, ..HONEST }).and_then(|p| p.jobs()).map(drop), "start");
    timed_out(load(&Parts { post: endless, ..HONEST }).unwrap().jobs().map(drop), "post-return");
    let program = load(&Parts { realloc: endless, ..HONEST }).unwrap();
    timed_out(program.plan("a job", &["argument".to_owned()]).map(drop), "realloc");
}

#[test]
fn a_realloc_that_lies() {
    for (what, realloc) in [
        ("null", "(return (i32.const 0))"),
        ("out of range", "(return (i32.const -8))"),
        ("at the end", "(return (i32.const 65535))"),
        ("misaligned", "(return (i32.const 4099))"),
        ("traps", "unreachable"),
    ] {
        let program = load(&Parts { realloc, ..HONEST }).unwrap();
        let error = program.plan("a job", &["argument".to_owned()]).expect_err(what);
        // `plan` itself traps, so some error is certain; what matters is that nothing else happens.
        assert!(error.is_of_a_row(), "{what}: {error}");
    }
}

#[test]
fn memory_at_start_is_within_the_limit() {
    let text = r#"(memory $more 65536)"#;
    let result = load(&Parts { more: text, ..HONEST }).and_then(|program| program.jobs());
    assert!(result.is_err(), "4 GiB at start");
}

#[test]
fn too_much_memory_at_start_is_told_with_the_limit() {
    let refused = |pages: u32| {
        let bytes = wat::parse_str(format!("(component (core module (memory {pages})))")).unwrap();
        runtime().load(&bytes).err().unwrap().diagnostic()
    };
    let told = refused(1_025);
    assert_eq!(told.message, "the component needs 67174400 bytes of memory at its start");
    assert_eq!(told.detail.as_deref(), Some("a guest has 67108864 bytes at most (millstream.guest.memory)"));
    assert_eq!(told.hint.as_deref(), Some("to give guests more: -D millstream.guest.memory=65mb"));
    // All that there can be.
    assert_eq!(refused(65_536).message, "the component needs 4294967296 bytes of memory at its start");
    // As much as there may be: it is refused for something else.
    assert!(refused(1_024).message.contains("is no Millstream job"));
}

#[test]
fn a_core_module_other_bytes_and_half_a_file_are_refused_by_name() {
    let refused = |bytes: &[u8]| runtime().load(bytes).err().unwrap();
    assert!(matches!(refused(b""), GuestError::NotAComponent(_)));
    assert!(matches!(refused(b"PK\x03\x04 a zip file"), GuestError::NotAComponent(_)));
    assert!(matches!(refused(&wat::parse_str("(module)").unwrap()), GuestError::CoreModule));
    let whole = component("hostile");
    assert!(matches!(refused(&whole[..whole.len() / 2]), GuestError::NotAComponent(_)));
    assert!(matches!(refused(&wat::parse_str("(component)").unwrap()), GuestError::WrongWorld(_)));
}

#[test]
fn another_version_and_another_import_are_refused_by_name() {
    let export = |name: &str| format!(r#"(instance $i) (export "{name}" (instance $i))"#);
    let refused = |body: &str| {
        let bytes = wat::parse_str(format!("(component {body})")).unwrap();
        runtime().load(&bytes).err().unwrap()
    };
    match refused(&export("millstream:job/job@9.9.9")) {
        GuestError::WrongVersion { found, .. } => assert_eq!(found, "9.9.9"),
        other => panic!("{other}"),
    }
    for import in [
        "wasi:filesystem/preopens@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "wasi:clocks/wall-clock@0.2.0",
        "wasi:cli/environment@0.2.0",
        "wasi:random/random@0.2.0",
    ] {
        let body = format!(
            r#"(import "{import}" (instance))
               (instance $job) (export "millstream:job/job@0.1.0" (instance $job))
               (instance $functions) (export "millstream:job/functions@0.1.0" (instance $functions))"#
        );
        match refused(&body) {
            GuestError::ImportNotGranted(name) => assert_eq!(name, import),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn thousands_of_imports_or_exports_are_refused() {
    let imports: String = (0..10_000).map(|i| format!(r#"(import "a:b/c{i}" (instance))"#)).collect();
    let exports: String =
        (0..10_000).map(|i| format!(r#"(instance $i{i}) (export "a:b/c{i}" (instance $i{i}))"#)).collect();
    for body in [imports, exports] {
        let bytes = wat::parse_str(format!("(component {body})")).unwrap();
        let error = runtime().load(&bytes).err().unwrap();
        assert!(matches!(error, GuestError::TooLarge(_) | GuestError::NotAComponent(_)), "{error}");
    }
}

fn damaged(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let at = at % damaged.len();
    damaged[at] ^= value;
    damaged
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is done to a component's bytes: an answer, never an end of the process.
    #[test]
    fn damaged_components_are_answered(at in any::<usize>(), value in 1u8..) {
        static BYTES: std::sync::OnceLock<(Vec<u8>, Arc<Runtime>)> = std::sync::OnceLock::new();
        let (bytes, runtime) = BYTES.get_or_init(|| (encode(&HONEST), Arc::clone(runtime())));
        if let Ok(program) = runtime.load(&damaged(bytes, at, value)) {
            drop(program.jobs());
            drop(program.plan("job", &[]));
        }
    }
}
