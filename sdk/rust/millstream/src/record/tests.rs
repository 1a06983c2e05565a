//! Rows through columns and back.
