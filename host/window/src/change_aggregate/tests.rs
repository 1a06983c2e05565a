//! A changelog's aggregates against plain arithmetic.
