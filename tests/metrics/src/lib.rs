//! What running jobs count: that it adds up, and that documentation and dashboard name what there is.
#![cfg(test)]
#![forbid(unsafe_code)]

mod ends;
mod figures;
mod grafana;
mod page;
mod standing;
mod support;
