//! Log lines on disk, by source, with random access by line number.
