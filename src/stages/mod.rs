//! The ten stages: which steps, in which order, with which commands.
