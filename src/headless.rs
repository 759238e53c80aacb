//! The model as plain lines and as JSON lines.
