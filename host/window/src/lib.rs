//! Native keyed aggregates.
