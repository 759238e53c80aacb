//! Signatures → findings → checklists → recovery plans. Knows nothing of where lines come from.
