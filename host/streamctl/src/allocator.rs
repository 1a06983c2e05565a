//! The allocator: what is free stays with the process for a minute before the system gets it back.
//!
//! State comes and goes with its windows. Giving its memory back at once, to be given zeroed pages a moment
//! later, cost joins and windows a quarter of their CPU time.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// mimalloc's `purge_delay`, in milliseconds: its number, which is the same in all its versions.
const PURGE_DELAY: std::ffi::c_int = 15;
const KEPT_MS: std::ffi::c_long = 60_000;

/// Sets the allocator up, unless the environment has (`MIMALLOC_PURGE_DELAY`). Before any thread starts.
#[expect(unsafe_code, reason = "options of the allocator have no other setter")]
pub(crate) fn set_up() {
    // SAFETY: it stores a number under an option that exists; no other thread is there yet that could.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_MS) }
}
