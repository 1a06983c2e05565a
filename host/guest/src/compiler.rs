//! Compiles components in a process of its own, within limits: whatever a component does to the compiler, this process
//! goes on.
//!
//! A process of the same binary is started, if its `main` begins with [`serve`]; else the compiler runs here, without
//! limits. It is given the component over a pipe and gives the code back over another; files it cannot write. Who
//! started it looks at its time and memory. Limits that the system holds (CPU time, address space) are above these,
//! for when nobody looks any more.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use platform::{Clock, spawn_thread};
use wasmtime::Engine;

use crate::runtime::{Yielding, settings};
use crate::{GuestError, RuntimeConfig, program};

/// What compiling a component may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Memory of the compiler, in bytes.
    pub memory_bytes: usize,
    /// CPU time of the compiler; by the clock it may take ten times as long.
    pub time: Duration,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, time: Duration::from_secs(60) }
    }
}

/// The first argument of a process that compiles.
const ROLE: &str = "compile-component";
/// Its exit code when the component is refused; its output is why.
const REFUSED: u8 = 3;
/// How often is looked what it takes.
const LOOKED_EVERY: Duration = Duration::from_millis(5);
/// Address space that a process has without a component.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Jobs come first.
const NICE: i32 = 5;
/// How much longer than its CPU time a compiler may take on a busy machine.
const SLOWER: u32 = 10;
/// Ticks of CPU time a second, as Linux tells them to processes.
const TICKS: u32 = 100;

/// A process of this binary can be started as a compiler.
static IS_ABLE: AtomicBool = AtomicBool::new(false);

/// For the beginning of a `main`, before any thread starts: compiles, if this process was started for that, and gives
/// its exit code; else notes that others can be.
#[must_use]
pub fn serve() -> Option<ExitCode> {
    if std::env::args_os().nth(1).is_none_or(|role| role != ROLE) {
        IS_ABLE.store(true, Ordering::Relaxed);
        return None;
    }
    let mut args = std::env::args().skip(2);
    let (yielding, numbers): (_, Vec<u64>) =
        (args.next().unwrap_or_default(), args.filter_map(|arg| arg.parse().ok()).collect());
    let &[address_space, seconds] = numbers.as_slice() else { return Some(ExitCode::from(2)) };
    confine(address_space, seconds);
    let mut bytes = Vec::new();
    if std::io::stdin().read_to_end(&mut bytes).is_err() {
        return Some(ExitCode::from(2));
    }
    let (code, said) = match compile_here(yielding == "fuel", &bytes) {
        Ok(compiled) => (ExitCode::SUCCESS, compiled),
        Err(error) => (ExitCode::from(REFUSED), format!("{error:#}").into_bytes()),
    };
    match std::io::stdout().write_all(&said) {
        Ok(()) => Some(code),
        Err(_) => Some(ExitCode::from(2)),
    }
}

fn compile_here(fuel: bool, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let yielding = if fuel { Yielding::Fuel(1) } else { Yielding::Epoch };
    Engine::new(&settings(yielding))?.precompile_component(bytes)
}

/// Takes from this process what a compiler does not need.
#[expect(unsafe_code, reason = "limits of a process have no safe setter in the standard library")]
fn confine(address_space: u64, seconds: u64) {
    let limits = [
        (libc::RLIMIT_AS, address_space),
        (libc::RLIMIT_CPU, seconds),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
    ];
    for (resource, limit) in limits {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the call reads the structure, which lives until it returns. Where it fails, who started this
        // process still looks at it.
        unsafe { libc::setrlimit(resource, &raw const limit) };
    }
    // SAFETY: both change a number of this process. It ends with who started it.
    unsafe {
        libc::nice(NICE);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    }
}

/// The code of a component.
pub(crate) fn compile(engine: &Engine, config: &RuntimeConfig, bytes: &[u8]) -> Result<Vec<u8>, GuestError> {
    let compiled = match IS_ABLE.load(Ordering::Relaxed) {
        true => Compiler::start(config.yielding, config.compile, bytes)?.code()?,
        false => engine.precompile_component(bytes).map_err(|error| format!("{error:#}")),
    };
    compiled.map_err(|why| program::refused(&why, config.limits.memory_bytes))
}

/// A process that compiles; it ends when this is dropped.
struct Compiler {
    child: Child,
    /// What it says, when it has said all.
    said: Receiver<Vec<u8>>,
    limits: CompileLimits,
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn failed(error: &std::io::Error) -> GuestError {
    GuestError::Internal(format!("the compiler does not start: {error}"))
}

impl Compiler {
    fn start(yielding: Yielding, limits: CompileLimits, bytes: &[u8]) -> Result<Self, GuestError> {
        let kind = if matches!(yielding, Yielding::Fuel(_)) { "fuel" } else { "epoch" };
        let seconds = limits.time.as_secs().saturating_add(2);
        let address_space = ADDRESS_SPACE.saturating_add(limits.memory_bytes as u64);
        // The binary as it runs, also where another lies in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("streamctl").args([ROLE, kind, &address_space.to_string(), &seconds.to_string()]);
        // Secrets may be in the environment.
        command.env_clear();
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (tell, said) = sync_channel(1);
        let this = Self { child, said, limits };
        let at_most = limits.memory_bytes as u64;
        spawn_thread("compiled", move || {
            let mut all = Vec::new();
            let read = stdout.map(|stdout| stdout.take(at_most).read_to_end(&mut all));
            // Nobody hears it where the compiler was given up; what is not whole is not kept by anybody.
            drop(tell.send(if matches!(read, Some(Ok(_))) { all } else { Vec::new() }));
        });
        // It reads all before it looks at any; where it has ended already, it tells why.
        if let Some(mut stdin) = stdin {
            drop(stdin.write_all(bytes));
        }
        Ok(this)
    }

    /// Waits for the code, or why there is none.
    fn code(mut self) -> Result<Result<Vec<u8>, String>, GuestError> {
        let clock = Clock::system();
        let end = clock.now().saturating_add(self.limits.time.saturating_mul(SLOWER));
        let said = loop {
            match self.said.recv_timeout(LOOKED_EVERY) {
                Ok(said) => break said,
                Err(RecvTimeoutError::Disconnected) => break Vec::new(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if cpu_of(self.child.id()) > self.limits.time || clock.now() > end {
                return Err(GuestError::CompileTime(self.limits.time));
            }
            if memory_of(self.child.id()) > self.limits.memory_bytes as u64 {
                return Err(GuestError::CompileMemory(self.limits.memory_bytes));
            }
        };
        let status = self.child.wait().map_err(|error| failed(&error))?;
        if status.success() {
            return Ok(Ok(said));
        }
        match status.code() {
            Some(code) if code == i32::from(REFUSED) => Ok(Err(String::from_utf8_lossy(&said).into_owned())),
            _ => Err(GuestError::Compile(format!("the compiler did not survive it ({})", how(status)))),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGABRT), _) => "it aborted: out of memory, or a bug".into(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("code {}", code.unwrap_or_default()),
    }
}

/// CPU time that a process has taken; 0 where the system does not say.
fn cpu_of(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // User and system, the 14th and 15th words; the second is a name in brackets that may have spaces.
    let words = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u32 = words.skip(11).take(2).filter_map(|word| word.parse::<u32>().ok()).sum();
    Duration::from_secs(1) * ticks / TICKS
}

/// Bytes of memory that are a process's own; 0 where the system does not say.
fn memory_of(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = own.and_then(|own| own.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use platform::Platform;

    use super::*;
    use crate::{Limits, Runtime};

    /// Code is compiled by an engine that cannot run it, for one that can.
    #[test]
    fn code_that_one_engine_compiles_is_for_the_other() {
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let of = |yielding| hash(&Engine::new(&settings(yielding)).unwrap());
        for yielding in [Yielding::Epoch, Yielding::Fuel(1_000)] {
            let limits = Limits { stack_bytes: 1 << 20, memory_bytes: 64 << 20, ..Limits::default() };
            let config = RuntimeConfig { limits, yielding, ..RuntimeConfig::default() };
            let runtime = Runtime::new(Platform::system(), config).unwrap();
            assert_eq!(hash(&runtime.engine), of(yielding), "{yielding:?}");
        }
        assert_ne!(of(Yielding::Epoch), of(Yielding::Fuel(1)));
    }

    #[test]
    fn the_system_says_what_a_process_has() {
        assert!(memory_of(std::process::id()) > 1 << 16);
        let clock = Clock::system();
        let end = clock.now() + Duration::from_secs(20);
        let before = cpu_of(std::process::id());
        while cpu_of(std::process::id()) < before + Duration::from_millis(50) {
            assert!(clock.now() < end, "it takes no CPU time");
        }
        assert_eq!((memory_of(u32::MAX), cpu_of(u32::MAX)), (0, Duration::ZERO));
    }
}
