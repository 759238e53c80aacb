//! # bartizan
//!
//! A terminal cockpit that drives, watches and repairs a disconnected OpenShift installation on AWS, over SSH.
//!
//! Everything that happens is an event; everything that is shown is a fold over events:
//! outside → event → record → reduce → show. Each floor may use the floors below it, never above:
//!
//! | floor | modules |
//! |---|---|
//! | 7 | `cli` |
//! | 6 | `ui` `headless` `export` `lab` |
//! | 5 | `stages` |
//! | 4 | `engine` `watch` `diagnose` |
//! | 3 | `host` `cloud` `registry` `cluster` |
//! | 2 | `record` |
//! | 1 | `model` `spec` |

pub mod cli;
pub mod cloud;
pub mod cluster;
pub mod diagnose;
pub mod engine;
pub mod export;
pub mod headless;
pub mod host;
#[cfg(feature = "lab")]
pub mod lab;
pub mod model;
pub mod record;
pub mod registry;
pub mod spec;
pub mod stages;
pub mod telemetry;
pub mod ui;
pub mod watch;
