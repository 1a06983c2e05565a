//! The allocator: what is free stays with the process for a minute before the system gets it back, and memory comes
//! from it in small pages.
//!
//! State comes and goes with its windows. Giving its memory back at once, to be given zeroed pages a moment
//! later, cost joins and windows a quarter of their CPU time. A page of 2 MiB takes up to 6 ms to be zeroed, in the
//! middle of whatever touches it first, and most of it may never be used.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// mimalloc's `purge_delay`, in milliseconds: its number, which is the same in all its versions.
const PURGE_DELAY: std::ffi::c_int = 15;
const KEPT_MS: std::ffi::c_long = 60_000;

/// Linux: no pages of 2 MiB for this process, nor for those that it starts.
#[cfg(target_os = "linux")]
const PR_SET_THP_DISABLE: std::ffi::c_int = 41;

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system's call has no other binding here")]
unsafe extern "C" {
    fn prctl(option: std::ffi::c_int, ...) -> std::ffi::c_int;
}

/// Sets the allocator up, unless the environment has (`MIMALLOC_PURGE_DELAY`, `MIMALLOC_ALLOW_THP`). Before any thread
/// starts.
#[expect(unsafe_code, reason = "options of the allocator have no other setter")]
pub(crate) fn set_up() {
    // SAFETY: it stores a number under an option that exists; no other thread is there yet that could.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_MS) }
    #[cfg(target_os = "linux")]
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        let (yes, none): (std::ffi::c_ulong, std::ffi::c_ulong) = (1, 0);
        // SAFETY: the call takes four numbers after its own, and sets a flag of the process. An older system refuses.
        unsafe { prctl(PR_SET_THP_DISABLE, yes, none, none, none) };
    }
}
