//! What a user would notice, against real parts where there are any. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod architecture;
#[cfg(all(feature = "aws", feature = "lab"))]
mod aws;
mod bootkube;
mod bundle;
mod cloud;
mod cluster;
#[cfg(feature = "lab")]
mod day_two;
mod diagnose;
mod driven;
mod edge;
mod engine;
mod export;
mod host;
mod identity;
mod install_config;
mod journal;
#[cfg(feature = "lab")]
mod lab;
mod network;
#[cfg(feature = "lab")]
mod ocp;
mod pods;
mod ports;
mod preflight;
mod pty;
mod real;
mod record;
#[cfg(feature = "lab")]
mod recoveries;
mod registry;
#[cfg(feature = "lab")]
mod resume;
mod services;
mod spec;
mod sshd;
mod stage;
mod trouble;
mod ui;
mod userdata;
mod usual;
mod watch;
#[cfg(feature = "lab")]
mod whole;
