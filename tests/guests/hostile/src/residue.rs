//! Looks in all of its memory for what another guest may have left there, and leaves the same for the next.

use std::arch::wasm32::{memory_grow, memory_size};
use std::hint::black_box;

const PAGE: usize = 64 << 10;
/// So many pages are asked for.
const PAGES: usize = 16;
/// So much of the stack's far end is nobody's while this runs.
const UNUSED_STACK: usize = 128 << 10;
/// What is left, word by word; no constant of this program is it.
const NEARLY: u64 = 0x5EED_CA4A_21E5_0F0E;

/// How many words of the canary there are before this leaves its own; or, `again`, after that.
pub(crate) fn found(again: bool) -> usize {
    let canary = black_box(NEARLY) ^ black_box(1);
    let grown = memory_grow::<0>(PAGES) * PAGE;
    let before = count(canary);
    fill(1 << 10, UNUSED_STACK, canary);
    fill(grown, grown + PAGES * PAGE, canary);
    if again { count(canary) } else { before }
}

fn count(canary: u64) -> usize {
    let end = memory_size::<0>() * PAGE;
    // SAFETY: all of this is the instance's memory, and plain numbers.
    let is_canary = |at: &usize| unsafe { (*at as *const u64).read_volatile() } == canary;
    (8..end).step_by(8).filter(is_canary).count()
}

fn fill(from: usize, to: usize, canary: u64) {
    for at in (from..to).step_by(8) {
        // SAFETY: nothing of this program lies there: it has just been given, or is where the stack does not come.
        unsafe { (at as *mut u64).write_volatile(canary) };
    }
}
