//! AWS through the real SDK, against moto.

mod census;
mod faults;
mod kill;
mod moto;
mod network;
mod proxy;
