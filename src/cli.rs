//! Arguments, exit codes, choosing a front end.
