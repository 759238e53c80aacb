//! A cloud in a file, for the lab and for tests.
