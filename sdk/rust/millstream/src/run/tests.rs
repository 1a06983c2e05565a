//! Chains as the host opens and calls them.
