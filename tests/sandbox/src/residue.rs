//! Memory that one guest has had is another's later, with nothing of the first in it.

use guest::{Program, Refusal};

use crate::support::{component, hostile, runtime};

/// How often memory changes hands.
const REUSES: usize = 10_000;

/// How many words a guest finds that were written to be found.
fn found(program: &Program, when: &str) -> usize {
    match program.plan("plan-residue", &[when.to_owned()]).unwrap() {
        Err(Refusal::Help(found)) => found.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_guest_leaves_in_its_memory_the_next_does_not_see() {
    // Another component: the same with a section of its own at its end, which says nothing.
    let other = [component("hostile").as_slice(), &[0, 3, 1, b'x', 0]].concat();
    let other = runtime().load(&other).unwrap();
    assert_ne!(hostile().digest(), other.digest());
    for reuse in 0..REUSES {
        // Each after itself, and after the other.
        let program = if reuse / 2 % 2 == 0 { hostile() } else { &other };
        assert_eq!(found(program, "before"), 0, "after {reuse} others");
    }
    // It would find what is there.
    assert!(found(&other, "again") > 100_000);
}
