//! The sandbox of a process: wasmtime's engine, its limits, the clock that interrupts guests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::Thread;
use std::time::Duration;

use platform::{Platform, spawn_thread};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimitsBuilder,
};

use crate::entries::StateAccess;
use crate::hooks::{Hooks, Host, Rate};
use crate::{CompileLimits, GuestError, Program};

/// What a guest may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Linear memory of an instance, in bytes.
    pub memory_bytes: usize,
    /// CPU time of a call.
    pub call_time: Duration,
    /// Stack of a guest, in bytes.
    pub stack_bytes: usize,
    /// What one call may give back, and what one component may give as its plan, in bytes.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            call_time: Duration::from_secs(1),
            stack_bytes: 512 << 10,
            output_bytes: 64 << 20,
        }
    }
}

/// When a long call gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Yielding {
    /// Every millisecond or two, by the system's clock.
    #[default]
    Epoch,
    /// After so many instructions, about: the same in every run, for simulation.
    Fuel(u64),
}

/// How the sandbox is set up.
#[derive(Clone, Debug, Default)]
pub struct RuntimeConfig {
    /// What a guest may use.
    pub limits: Limits,
    /// When a long call gives way.
    pub yielding: Yielding,
    /// Where compiled code is kept; none = nowhere.
    pub cache_dir: Option<PathBuf>,
    /// What compiling a component may take.
    pub compile: CompileLimits,
}

/// The sandbox of a process.
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) config: RuntimeConfig,
    pub(crate) platform: Platform,
    /// One component is compiled at a time.
    pub(crate) compiling: Mutex<()>,
    calls: Arc<Calls>,
}

/// How many calls are under way. The ticker sleeps when there has been none for a while.
#[derive(Default)]
struct Calls {
    active: AtomicUsize,
    asleep: AtomicBool,
    ticker: OnceLock<Thread>,
}

impl Drop for Calls {
    /// The ticker holds the engine, and with it address space, of which there is enough for a few engines.
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }
}

impl Calls {
    /// Advances the epoch while there are calls; returns when the runtime is gone.
    fn tick(calls: &Weak<Self>, engine: &Engine) {
        let mut idle = 0;
        while let Some(calls) = calls.upgrade() {
            if calls.active.load(Ordering::SeqCst) > 0 {
                idle = 0;
                engine.increment_epoch();
            } else {
                idle += 1;
            }
            if idle < IDLE_TICKS {
                drop(calls);
                std::thread::park_timeout(TICK);
                continue;
            }
            calls.asleep.store(true, Ordering::SeqCst);
            let still_idle = calls.active.load(Ordering::SeqCst) == 0;
            drop(calls);
            if still_idle {
                std::thread::park_timeout(Duration::from_secs(5));
            }
            idle = 0;
        }
    }
}

/// How often guests are interrupted.
const TICK: Duration = Duration::from_millis(1);
/// After so many ticks without a call the ticker sleeps.
const IDLE_TICKS: u32 = 100;
/// Instances that can live at once: a chain each, and one that is asked for its plan.
const INSTANCES_MAX: u32 = 8_192;
/// Core modules that one component may be made of: Python's are some 40. Instances of such
/// components use up the places of several others.
const CORE_INSTANCES_MAX: u32 = 64;
/// Core modules that a component has on average, when as many live as can.
const CORE_INSTANCES: u32 = 4;

/// What code is compiled for.
pub(crate) fn settings(yielding: Yielding) -> Config {
    let mut wasm = Config::new();
    wasm.concurrency_support(false)
        .wasm_component_model(true)
        .memory_init_cow(true)
        .cranelift_nan_canonicalization(matches!(yielding, Yielding::Fuel(_)));
    match yielding {
        Yielding::Epoch => wasm.epoch_interruption(true),
        Yielding::Fuel(_) => wasm.consume_fuel(true),
    };
    wasm
}

fn engine(config: &RuntimeConfig) -> Result<Engine, GuestError> {
    let mut wasm = settings(config.yielding);
    wasm.max_wasm_stack(config.limits.stack_bytes).async_stack_size(config.limits.stack_bytes + (256 << 10));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(CORE_INSTANCES * INSTANCES_MAX)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX)
        .total_stacks(INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(4)
        .max_tables_per_component(CORE_INSTANCES_MAX)
        .table_elements(20_000)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .max_memory_size(config.limits.memory_bytes.max(64 << 10))
        .linear_memory_keep_resident(64 << 10)
        .max_unused_warm_slots(16);
    wasm.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&wasm).map_err(|error| GuestError::Internal(format!("{error:#}")))
}

impl Runtime {
    /// Sets up the sandbox.
    ///
    /// # Errors
    /// If the system does not give the address space.
    pub fn new(platform: Platform, config: RuntimeConfig) -> Result<Arc<Self>, GuestError> {
        let engine = engine(&config)?;
        let calls = Arc::new(Calls::default());
        if config.yielding == Yielding::Epoch {
            let (weak, engine) = (Arc::downgrade(&calls), engine.clone());
            let ticker = spawn_thread("epoch", move || Calls::tick(&weak, &engine));
            // Set once, here.
            drop(calls.ticker.set(ticker.thread().clone()));
        }
        Ok(Arc::new(Self { engine, config, platform, compiling: Mutex::new(()), calls }))
    }

    /// Makes a program of a component's bytes: checks, compiles (or finds compiled), links.
    ///
    /// # Errors
    /// If it is no component of this contract, or imports what is not granted.
    pub fn load(self: &Arc<Self>, bytes: &[u8]) -> Result<Program, GuestError> {
        Program::load(self, bytes)
    }

    /// The limits of its guests.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.config.limits
    }

    /// A store for one instance.
    pub(crate) fn store(&self, hooks: Arc<dyn Hooks>) -> Result<Store<Host>, GuestError> {
        let limits = self.config.limits;
        let host = Host {
            hooks,
            clock: self.platform.clock.clone(),
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory_bytes)
                .instances(64)
                .memories(8)
                .tables(64)
                .build(),
            memory_refused: false,
            memory_max: limits.memory_bytes,
            memory_bytes: 0,
            boundary: Duration::ZERO,
            rate: Rate::new(self.platform.clock.now()),
            state: StateAccess::none(),
        };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| host);
        store.set_hostcall_fuel(limits.output_bytes);
        let internal = |error: wasmtime::Error| GuestError::Internal(format!("{error:#}"));
        match self.config.yielding {
            Yielding::Epoch => {
                store.set_epoch_deadline(1);
                store.epoch_deadline_async_yield_and_update(1);
            }
            Yielding::Fuel(interval) => {
                store.set_fuel(u64::MAX).map_err(internal)?;
                store.fuel_async_yield_interval(Some(interval)).map_err(internal)?;
            }
        }
        Ok(store)
    }

    /// Marks a call as under way until the mark is dropped.
    pub(crate) fn begin_call(&self) -> CallMark {
        self.calls.active.fetch_add(1, Ordering::SeqCst);
        if self.calls.asleep.load(Ordering::SeqCst)
            && self.calls.asleep.swap(false, Ordering::SeqCst)
            && let Some(ticker) = self.calls.ticker.get()
        {
            ticker.unpark();
        }
        CallMark(Arc::clone(&self.calls))
    }
}

/// A call is under way.
pub(crate) struct CallMark(Arc<Calls>);

impl Drop for CallMark {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each holds a quarter of the address space.
    #[test]
    fn a_runtime_that_is_gone_holds_no_address_space() {
        for _ in 0..6 {
            let runtime = Runtime::new(Platform::system(), RuntimeConfig::default()).unwrap();
            // Until its ticker sleeps.
            std::thread::park_timeout(3 * TICK * IDLE_TICKS);
            drop(runtime);
        }
    }
}
