//! AWS through the real SDK, against moto.

mod census;
mod kill;
mod moto;
mod network;
mod proxy;
