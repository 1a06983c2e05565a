//! A component, checked, compiled and linked: what it says of itself, and instances of it.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use model::job_graph::JobGraph;
use platform::thread_cpu_time;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::bindings::exports::millstream::job::{functions, job, keyed_functions, window_functions};
use crate::bindings::millstream::job::{calls, graph, log, metrics, rows, state};
use crate::chain::{Chain, Opening};
use crate::hooks::{Host, LastWords, NoHooks, tame};
use crate::{GuestError, Runtime, cache, compiler, plan};

/// The contract's package, and the version that this host speaks.
const PACKAGE: &str = "millstream:job/";
/// The version that this host speaks.
const VERSION: &str = "0.1.0";
/// The interfaces of the contract that a component may import.
const GRANTED: [&str; 6] = ["log", "metrics", "state", "rows", "graph", "calls"];
/// More imports or exports than this no job needs.
const EXTERNS_MAX: usize = 100;
/// How often a component's memory image is tried.
const IMAGE_ATTEMPTS: usize = 8;
/// A component is at most so large.
const COMPONENT_BYTES_MAX: usize = 256 << 20;

/// A component. Cloning shares it.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) pre: InstancePre<Host>,
    pub(crate) functions: functions::GuestIndices,
    pub(crate) keyed: Option<keyed_functions::GuestIndices>,
    pub(crate) windows: Option<window_functions::GuestIndices>,
    job: job::GuestIndices,
    digest: String,
    source: Arc<[u8]>,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// A job in a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Its name, as `-c` takes it.
    pub name: String,
    /// What it does, in a line.
    pub description: String,
}

/// Why a job has no graph for some arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The text that was asked for: standard output, exit code 0.
    Help(String),
    /// The arguments are wrong: standard error, exit code 2.
    Usage(String),
    /// The job cannot be built: standard error, exit code 2.
    Invalid(String),
}

impl Program {
    pub(crate) fn load(runtime: &Arc<Runtime>, bytes: &[u8]) -> Result<Self, GuestError> {
        match bytes.get(..8) {
            Some(b"\0asm\x01\0\0\0") => return Err(GuestError::CoreModule),
            Some(b"\0asm\x0d\0\x01\0") => {}
            _ => return Err(GuestError::NotAComponent("it does not begin as WebAssembly does".into())),
        }
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(GuestError::TooLarge(format!(
                "{} bytes, of {COMPONENT_BYTES_MAX} at most",
                bytes.len()
            )));
        }
        let component = compile(runtime, bytes)?;
        let ty = component.component_type();
        let imports: Vec<String> = ty.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = ty.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
        if imports.len() > EXTERNS_MAX || exports.len() > EXTERNS_MAX {
            return Err(GuestError::TooLarge(format!(
                "{} imports and {} exports, of {EXTERNS_MAX} at most",
                imports.len(),
                exports.len()
            )));
        }
        check_exports(&exports)?;
        imports.iter().try_for_each(|import| check_import(import))?;
        let pre = link(runtime, &component)?;
        make_image(&component)?;
        let wrong = |interface: &str, error: &wasmtime::Error| GuestError::WrongType {
            interface: interface.to_owned(),
            what: format!("{error:#}"),
        };
        let exported = |interface: &str| exports.contains(&format!("{PACKAGE}{interface}@{VERSION}"));
        let program = Self(Arc::new(Shared {
            runtime: Arc::clone(runtime),
            functions: functions::GuestIndices::new(&pre).map_err(|e| wrong("functions", &e))?,
            keyed: exported("keyed-functions")
                .then(|| keyed_functions::GuestIndices::new(&pre).map_err(|e| wrong("keyed-functions", &e)))
                .transpose()?,
            windows: exported("window-functions")
                .then(|| window_functions::GuestIndices::new(&pre).map_err(|e| wrong("window-functions", &e)))
                .transpose()?,
            job: job::GuestIndices::new(&pre).map_err(|e| wrong("job", &e))?,
            pre,
            digest: blake3::hash(bytes).to_hex().to_string(),
            source: bytes.into(),
            imports,
            exports,
        }));
        program.check_types()?;
        Ok(program)
    }

    /// The jobs in the component, the default one first.
    ///
    /// # Errors
    /// If the guest traps, or runs too long.
    pub fn jobs(&self) -> Result<Vec<JobInfo>, GuestError> {
        let jobs =
            self.ask(async |store, instance| self.0.job.load(&mut *store, instance)?.call_jobs(store).await)?;
        Ok(jobs
            .into_iter()
            .map(|job| JobInfo { name: tame(&job.name, 200), description: tame(&job.description, 2_000) })
            .collect())
    }

    /// The graph of a job for these arguments, or why there is none.
    ///
    /// # Errors
    /// If the guest traps, runs too long, or gives what is no graph.
    pub fn plan(&self, job: &str, args: &[String]) -> Result<Result<JobGraph, Refusal>, GuestError> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let answer = self.ask(async |store, instance| {
            self.0.job.load(&mut *store, instance)?.call_plan(store, job, &args).await
        })?;
        let text = |text: String| tame(&text, 64 << 10);
        match answer {
            Ok(graph) => plan::job_graph(graph).map(Ok),
            Err(job::Refusal::Help(help)) => Ok(Err(Refusal::Help(text(help)))),
            Err(job::Refusal::Usage(usage)) => Ok(Err(Refusal::Usage(text(usage)))),
            Err(job::Refusal::Invalid(why)) => Ok(Err(Refusal::Invalid(text(why)))),
        }
    }

    /// A chain of the component's functions, not yet instantiated.
    #[must_use]
    pub fn open(&self, opening: Opening) -> Chain {
        Chain::new(self.clone(), opening)
    }

    /// Whether it makes values of windows that meet one.
    #[must_use]
    pub fn merges(&self) -> bool {
        self.0.windows.is_some()
    }

    /// The BLAKE3 digest of the component, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// The component's size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.source.len()
    }

    /// The component, as it was loaded.
    #[must_use]
    pub fn source(&self) -> &Arc<[u8]> {
        &self.0.source
    }

    /// The names of what it imports.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.0.imports
    }

    /// The names of what it exports.
    #[must_use]
    pub fn exports(&self) -> &[String] {
        &self.0.exports
    }

    /// Whether the component's types are the contract's; asks an instance, which is then dropped.
    fn check_types(&self) -> Result<(), GuestError> {
        let shared = &self.0;
        self.ask(async |store, instance| {
            let wrong = |interface: &str, error: wasmtime::Error| {
                wasmtime::Error::from(WrongType {
                    interface: interface.to_owned(),
                    what: format!("{error:#}"),
                })
            };
            shared.job.load(&mut *store, instance).map_err(|e| wrong("job", e))?;
            shared.functions.load(&mut *store, instance).map_err(|e| wrong("functions", e))?;
            if let Some(keyed) = &shared.keyed {
                keyed.load(&mut *store, instance).map_err(|e| wrong("keyed-functions", e))?;
            }
            if let Some(windows) = &shared.windows {
                windows.load(&mut *store, instance).map_err(|e| wrong("window-functions", e))?;
            }
            Ok(())
        })
    }

    /// Asks a fresh instance something, within the limits of a call, and waits for the answer.
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Store<Host>, &wasmtime::component::Instance) -> wasmtime::Result<T>,
    ) -> Result<T, GuestError> {
        let runtime = &self.0.runtime;
        let mut store = runtime.store(Arc::new(NoHooks))?;
        let mark = runtime.begin_call();
        let limit = runtime.config.limits.call_time;
        let answered = {
            let asked = pin!(async {
                let instance = self.0.pre.instantiate_async(&mut store).await?;
                question(&mut store, &instance).await
            });
            wait(asked, limit, &runtime.platform.clock)
        };
        drop(mark);
        match answered {
            None => Err(GuestError::TimedOut(limit)),
            Some(answer) => answer.map_err(|error| failure(&error, &store, runtime)),
        }
    }
}

/// Polls to the end; none when it took more CPU time than `limit`.
pub(crate) fn wait<T>(
    mut future: std::pin::Pin<&mut impl Future<Output = T>>,
    limit: Duration,
    clock: &platform::Clock,
) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    let mut spent = Duration::ZERO;
    loop {
        let before = cpu_or(clock);
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return Some(answer);
        }
        spent += cpu_or(clock).saturating_sub(before);
        if spent > limit {
            return None;
        }
    }
}

/// CPU time of this thread; where the system does not tell (or time is simulated), the clock's.
pub(crate) fn cpu_or(clock: &platform::Clock) -> Duration {
    if clock.is_simulated() { clock.now() } else { thread_cpu_time().unwrap_or_else(|| clock.now()) }
}

fn compile(runtime: &Runtime, bytes: &[u8]) -> Result<Component, GuestError> {
    let (engine, config) = (&runtime.engine, &runtime.config);
    let path = config.cache_dir.as_ref().map(|folder| cache::path(folder, engine, bytes));
    let cached = || cache::component(&cache::read(path.as_ref()?)?, engine).ok();
    if let Some(component) = cached() {
        return Ok(component);
    }
    let _one = runtime.compiling.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever was before may have compiled the same.
    if let Some(component) = cached() {
        return Ok(component);
    }
    let code = compiler::compile(engine, config, bytes)?;
    let component = cache::component(&code, engine);
    let component = component.map_err(|error| refused(&format!("{error:#}"), config.limits.memory_bytes))?;
    if let Some(path) = &path {
        cache::write(path, &code);
    }
    Ok(component)
}

/// Why a component is refused, out of wasmtime's words for it; an instance may have so many bytes of memory.
pub(crate) fn refused(text: &str, limit: usize) -> GuestError {
    if let Some(needed) = memory_at_start(text) {
        GuestError::MemoryAtStart { needed, limit }
    } else if text.contains("failed to parse") || text.contains("offset") {
        GuestError::NotAComponent(text.to_owned())
    } else {
        GuestError::Compile(text.to_owned())
    }
}

/// Makes what the component's instances share of their memories, now and not with the first of them.
/// The system refuses to seal it (`EBUSY`) while it looks at a page of it itself: then once more.
fn make_image(component: &Component) -> Result<(), GuestError> {
    let mut made = component.initialize_copy_on_write_image();
    for _ in 1..IMAGE_ATTEMPTS {
        if made.is_err() {
            made = component.initialize_copy_on_write_image();
        }
    }
    made.map_err(|error| GuestError::Internal(format!("no image of its memory: {error:#}")))
}

/// The bytes of a memory that is too large from its start, out of wasmtime's words for it.
fn memory_at_start(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("memory has a minimum byte size of ")?;
    after.split_once(' ')?.0.parse().ok()
}

fn check_exports(exports: &[String]) -> Result<(), GuestError> {
    for interface in ["job", "functions"] {
        let wanted = format!("{PACKAGE}{interface}@{VERSION}");
        if exports.contains(&wanted) {
            continue;
        }
        let prefix = format!("{PACKAGE}{interface}@");
        return Err(match exports.iter().find_map(|export| export.strip_prefix(&prefix)) {
            Some(found) => GuestError::WrongVersion { found: tame(found, 50), expected: VERSION.into() },
            None => GuestError::WrongWorld(wanted),
        });
    }
    Ok(())
}

fn check_import(import: &str) -> Result<(), GuestError> {
    let Some(of_contract) = import.strip_prefix(PACKAGE) else {
        return Err(GuestError::ImportNotGranted(tame(import, 200)));
    };
    match of_contract.split_once('@') {
        Some((_, version)) if version != VERSION => {
            Err(GuestError::WrongVersion { found: tame(version, 50), expected: VERSION.into() })
        }
        Some((interface, _)) if GRANTED.contains(&interface) => Ok(()),
        _ => Err(GuestError::ImportNotGranted(tame(import, 200))),
    }
}

fn link(runtime: &Runtime, component: &Component) -> Result<InstancePre<Host>, GuestError> {
    let mut linker = Linker::<Host>::new(&runtime.engine);
    let linked = (|| {
        rows::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        graph::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        calls::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        state::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        log::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        metrics::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)
    })();
    linked.map_err(|error: wasmtime::Error| GuestError::Internal(format!("{error:#}")))?;
    linker
        .instantiate_pre(component)
        .map_err(|error| GuestError::WrongType { interface: "imports".into(), what: format!("{error:#}") })
}

/// A type mismatch, on its way through wasmtime's error.
#[derive(Debug)]
struct WrongType {
    interface: String,
    what: String,
}

impl std::fmt::Display for WrongType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.interface, self.what)
    }
}

impl std::error::Error for WrongType {}

/// What an error of a call means.
pub(crate) fn failure(error: &wasmtime::Error, store: &Store<Host>, runtime: &Runtime) -> GuestError {
    let limits = runtime.config.limits;
    if let Some(wrong) = error.downcast_ref::<WrongType>() {
        return GuestError::WrongType { interface: wrong.interface.clone(), what: wrong.what.clone() };
    }
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    if store.data().memory_refused {
        return GuestError::OutOfMemory(store.data().memory_max);
    }
    if let Some(error) = error.downcast_ref::<GuestError>() {
        return error.clone();
    }
    if let Some(words) = error.downcast_ref::<LastWords>() {
        return GuestError::Trapped { message: words.0.clone(), backtrace };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => return GuestError::StackOverflow,
        Some(Trap::OutOfFuel | Trap::Interrupt) => return GuestError::TimedOut(limits.call_time),
        Some(trap) => return GuestError::Trapped { message: trap.to_string(), backtrace },
        None => {}
    }
    let text = format!("{:#}", error.root_cause());
    if text.contains("too much data is being copied") {
        return GuestError::OutputTooLarge(limits.output_bytes);
    }
    if text.contains("maximum concurrent") || text.contains("limit of") {
        return GuestError::TooLarge(text);
    }
    if backtrace.is_empty() {
        // Not the guest's code: what it returned could not be read.
        return GuestError::Lied(text);
    }
    GuestError::Trapped { message: text, backtrace }
}

/// How many frames the user sees.
const FRAMES_MAX: usize = 12;

/// Functions between a panic and the user's code.
const OF_PANICS: [&str; 6] =
    ["millstream_sys::", "millstream::logging::", "std::", "core::panicking", "__rustc", "core::option"];

fn frames(backtrace: &WasmBacktrace) -> String {
    let names = backtrace.frames().iter().map(|frame| match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    });
    let mut all: Vec<(String, Option<usize>)> =
        names.zip(backtrace.frames().iter().map(wasmtime::FrameInfo::func_offset)).collect();
    // What Rust does between a panic and the trap says nothing.
    let of_panic = |name: &str| OF_PANICS.iter().any(|start| name.trim_start_matches('<').starts_with(start));
    if let Some(panic) = all.iter().position(|(name, _)| name.contains("rust_begin_unwind")) {
        let more = all[panic..].iter().take_while(|(name, _)| of_panic(name)).count();
        all.drain(..panic + more);
    }
    let mut lines: Vec<String> = all
        .iter()
        .take(FRAMES_MAX)
        .enumerate()
        .map(|(number, (name, offset))| {
            let at = offset.map(|offset| format!(" + {offset:#x}")).unwrap_or_default();
            format!("  {number:>2}: {}{at}", tame(name, 200))
        })
        .collect();
    if all.len() > FRAMES_MAX {
        lines.push(format!("  … {} more", all.len() - FRAMES_MAX));
    }
    format!("wasm backtrace:\n{}", lines.join("\n"))
}
