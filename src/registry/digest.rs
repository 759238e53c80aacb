//! SHA-256 digests as registries write them: `sha256:` and 64 lower-case hex digits.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256, digest};

/// The digest of a whole text.
pub fn of(bytes: &[u8]) -> String {
    render(digest(&SHA256, bytes).as_ref())
}

/// Whether this is a digest that we can check and put into a URL.
pub fn is_valid(text: &str) -> bool {
    hex(text).is_some()
}

/// The hex digits of a valid digest.
pub fn hex(text: &str) -> Option<&str> {
    text.strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// A digest that grows with its content.
#[derive(Clone)]
pub struct Running(Context);

impl Default for Running {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Running {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub fn finish(self) -> String {
        render(self.0.finish().as_ref())
    }
}

fn render(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
