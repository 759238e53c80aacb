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
//! | 6 | `ui` `headless` `lab` |
//! | 5 | `stages` |
//! | 4 | `engine` `watch` `diagnose` |
//! | 3 | `host` `cloud` `registry` `cluster` |
//! | 2 | `record` |
//! | 1 | `model` `spec` |

pub mod cloud;
pub mod engine;
pub mod host;
pub mod model;
pub mod record;
pub mod spec;
