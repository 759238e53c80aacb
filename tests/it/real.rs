//! Real parts: sshd, docker-registry, skopeo, journalctl.
