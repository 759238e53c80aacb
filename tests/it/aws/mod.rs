//! AWS through the real SDK, against moto.

mod census;
mod faults;
mod identity;
mod kill;
mod moto;
mod network;
mod proxy;
