//! The embedded world for the demo and for tests.

pub mod machines;
pub mod ocp;
pub mod world;
