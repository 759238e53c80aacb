//! tracing-subscriber: a file and the activity pane, never stdout.
