//! The allocator of a program that links this crate: what is free stays with the process for a minute before the
//! system gets it back, a thread of its own gives it back, and memory comes in small pages.
//!
//! State comes and goes with its windows. Giving its memory back at once, to be given zeroed pages a moment
//! later, cost joins and windows a quarter of their CPU time. Left to itself mimalloc gives back all that has been
//! free long enough in whichever thread allocates next, in the middle of a batch. A page of 2 MiB takes up to 6 ms to
//! be zeroed, in the middle of whatever touches it first, and most of it may never be used.

use std::ffi::{c_int, c_long};
use std::time::Duration;

use mimalloc::MiMalloc;
use platform::Clock;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// mimalloc's `purge_delay`, in milliseconds: its number, which is the same in all its versions.
const PURGE_DELAY: c_int = 15;
/// So long, 23 days, that no thread but ours gives memory back.
const NEVER_MS: c_long = 2_000_000_000;
/// How often what is free is given back.
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(60);

/// Linux: no pages of 2 MiB for this process, nor for those that it starts.
#[cfg(target_os = "linux")]
const PR_SET_THP_DISABLE: c_int = 41;

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system's call has no other binding here")]
unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

/// Sets the allocator up, unless the environment has (`MIMALLOC_PURGE_DELAY`, `MIMALLOC_ALLOW_THP`), and starts the
/// thread that gives memory back. Before any other thread starts.
#[expect(unsafe_code, reason = "the allocator's own functions have no other binding here")]
pub fn set_up() {
    #[cfg(target_os = "linux")]
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        let (yes, none): (std::ffi::c_ulong, std::ffi::c_ulong) = (1, 0);
        // SAFETY: the call takes four numbers after its own, and sets a flag of the process. An older system refuses.
        unsafe { prctl(PR_SET_THP_DISABLE, yes, none, none, none) };
    }
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: it stores a number under an option that exists; no other thread is there yet that could.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, NEVER_MS) }
    platform::spawn_thread("memory", || {
        let clock = Clock::system();
        loop {
            clock.sleep(GIVEN_BACK_EVERY);
            // SAFETY: any thread may call it at any time. It takes free memory piece by piece, and holds no lock that
            // another thread waits for.
            unsafe { libmimalloc_sys::mi_collect(true) }
        }
    });
}
