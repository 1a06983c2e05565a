//! What each job does with a batch that has the line `bad`.

use std::hint::black_box;

use crate::millstream::job::calls::{Failure, Outcome, Output};
use crate::millstream::job::log::{self, Level};
use crate::millstream::job::metrics;
use crate::millstream::job::rows::{Batch, Column, Values, Varlen};

/// Jobs that are hostile in a call.
pub(crate) const NAMES: [&str; 22] = [
    "loop",
    "memory",
    "grow",
    "stack",
    "output",
    "log",
    "metrics",
    "unreachable",
    "bounds",
    "indirect",
    "panic",
    "length",
    "offsets-fall",
    "offsets-beyond",
    "utf8",
    "columns",
    "type",
    "port",
    "row",
    "validity",
    "node",
    "slow-open",
];

pub(crate) fn deed(name: &str, rows: Batch) -> Outcome {
    match name {
        "loop" => loop {
            black_box(name);
        },
        "memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1u8; 1 << 20]);
                black_box(&kept);
            }
        }
        #[cfg(target_arch = "wasm32")]
        "grow" => {
            // 4 GiB at once, and then page by page.
            core::arch::wasm32::memory_grow::<0>(65_535);
            while core::arch::wasm32::memory_grow::<0>(16) != usize::MAX {}
            core::arch::wasm32::unreachable()
        }
        "stack" => {
            black_box(deeper(1));
            honest(rows)
        }
        "output" => {
            let row = vec![b'x'; 1 << 20];
            let data = row.repeat(17);
            outcome(text(vec![0, data.len() as u32], data))
        }
        "log" => {
            for i in 0..100_000 {
                log::write(Level::Warn, &format!("\x1b[2J\x1b]0;owned\x07flood {i} {}", "x".repeat(20_000)));
            }
            honest(rows)
        }
        "metrics" => {
            for i in 0..100_000 {
                metrics::count(1, &format!("name-{i}"), 1);
            }
            honest(rows)
        }
        #[cfg(target_arch = "wasm32")]
        "unreachable" => core::arch::wasm32::unreachable(),
        "bounds" => {
            let wild = black_box(usize::MAX - 64) as *const u64;
            // SAFETY: there is none; the sandbox has to catch it.
            black_box(unsafe { wild.read_volatile() });
            honest(rows)
        }
        "indirect" => {
            // SAFETY: there is none; the sandbox has to catch it.
            let wild: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(black_box(0x7FFF_FFFFusize)) };
            black_box(wild(1));
            honest(rows)
        }
        "panic" => {
            log::abort("the user's own words, at src/mine.rs:42");
            honest(rows)
        }
        // What it returns is of the right types, and false.
        "length" => outcome(Batch { length: 1_000_000, ..text(vec![0, 1], b"x".to_vec()) }),
        "offsets-fall" => outcome(Batch { length: 2, ..text(vec![0, 3, 1], b"abc".to_vec()) }),
        "offsets-beyond" => outcome(text(vec![0, u32::MAX], b"x".to_vec())),
        "utf8" => outcome(text(vec![0, 2], vec![0xC3, 0x28])),
        "columns" => outcome(Batch { columns: vec![], ..text(vec![0, 1], b"x".to_vec()) }),
        "type" => {
            let column = Column { values: Values::Int64(vec![7]), validity: None };
            outcome(Batch { length: 1, event_times: None, kinds: None, columns: vec![column] })
        }
        "port" => Outcome { outputs: vec![Output { port: 77, rows }], failures: vec![] },
        "row" => failure(1, 1_000_000),
        "node" => failure(999, 0),
        "validity" => {
            let mut batch = text(vec![0, 1], b"x".to_vec());
            batch.columns[0].validity = Some(vec![]);
            outcome(batch)
        }
        _ => honest(rows),
    }
}

fn honest(rows: Batch) -> Outcome {
    outcome(rows)
}

fn outcome(rows: Batch) -> Outcome {
    Outcome { outputs: vec![Output { port: 0, rows }], failures: vec![] }
}

fn failure(node: u32, row: u32) -> Outcome {
    Outcome { outputs: vec![], failures: vec![Failure { node, row, message: "\x1b[31mno".into() }] }
}

fn text(offsets: Vec<u32>, data: Vec<u8>) -> Batch {
    let column = Column { values: Values::Bytes(Varlen { offsets, data }), validity: None };
    Batch { length: 1, event_times: None, kinds: None, columns: vec![column] }
}

#[expect(unconditional_recursion, reason = "that is the deed")]
fn deeper(n: u64) -> u64 {
    let frame = [n; 64];
    black_box(deeper(black_box(frame[(n % 64) as usize] + 1))) + 1
}
