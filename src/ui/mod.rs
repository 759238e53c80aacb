//! The cockpit: shows a `RunModel` and turns keys into commands.
