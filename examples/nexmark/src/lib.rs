//! The queries of Nexmark, over the persons, auctions and bids of an auction site.
//!
//! ```text
//! streamctl run nexmark.wasm -c q5 -p 2 --events 10000000 --output blackhole
//! streamctl run nexmark.wasm -c events --events 100000 --output events
//! streamctl run nexmark.wasm -c q5 --input events --output hot-items
//! ```
//!
//! Each query is a file in `queries`, under its SQL in the standard form
//! (<https://github.com/nexmark/nexmark>, `nexmark-flink/src/main/resources/queries`).

mod model;
mod queries;
mod tables;

use queries::*;

millstream::jobs!(
    q0::q0,
    q1::q1,
    q2::q2,
    q3::q3,
    q4::q4,
    q5::q5,
    q7::q7,
    q8::q8,
    q9::q9,
    q10::q10,
    q11::q11,
    q12::q12,
    q13::q13,
    q14::q14,
    q15::q15,
    q16::q16,
    q17::q17,
    q18::q18,
    q19::q19,
    q20::q20,
    q21::q21,
    q22::q22,
    tables::events,
    tables::bids
);

#[cfg(test)]
mod tests;
