//! Following what is alive: installer log, journals, bootkube, service records. Needs no engine.
