//! OCI registries: planning, copying and proving a release.
