//! AWS through the real SDK, against moto.

mod census;
mod identity;
mod kill;
mod moto;
mod network;
mod proxy;
