//! AWS through the real SDK, against moto.

mod bastion;
mod census;
mod errors;
mod faults;
mod identity;
mod kill;
mod moto;
mod network;
mod proxy;
