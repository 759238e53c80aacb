//! Chunks of large blobs: a few of one size, used again and again, so that memory stays what it was.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Each PATCH costs the registry an fsync; below this that is what one waits for.
pub(super) const CHUNK: u64 = 8 << 20;
/// In memory at once: more of them would only wait for the same link.
const MOST: usize = 3;

/// The chunks that may be in memory.
pub(super) struct Chunks {
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// One that is being filled, or sent. Its memory goes back when the last of its bytes is let go.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    /// `None` is never seen: nobody closes the semaphore.
    _room: Option<OwnedSemaphorePermit>,
}

impl Chunks {
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(MOST)), idle: Arc::default() }
    }

    /// Waits until there is room for one more.
    pub async fn empty(&self) -> Chunk {
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let bytes = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Chunk { bytes, idle: Arc::clone(&self.idle), _room: room }
    }
}

impl Chunk {
    /// Bytes that it can still take of `wanted`; `None` when it is full.
    pub fn room(&mut self, wanted: u64) -> Option<usize> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let room = wanted.checked_sub(self.bytes.len()).filter(|room| *room > 0)?;
        // Grown by pieces it would be copied again and again.
        self.bytes.reserve_exact(room);
        Some(room)
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_used_again_when_the_last_slice_is_gone() {
        let chunks = Chunks::new();
        let mut held = Vec::new();
        for _ in 0..MOST {
            let mut chunk = chunks.empty().await;
            assert_eq!(chunk.room(5), Some(5));
            chunk.push(b"abcde");
            assert_eq!(chunk.room(5), None);
            held.push(chunk.into_bytes());
        }
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), chunks.empty());
        assert!(more.await.is_err(), "there is room for {MOST}");
        let tail = held.pop().map(|bytes| bytes.slice(3..)).unwrap();
        assert_eq!(&tail[..], b"de");
        let place = tail.as_ptr() as usize;
        drop(tail);
        let mut again = chunks.empty().await;
        again.push(b"fghij");
        assert_eq!(again.as_ref().as_ptr() as usize + 3, place);
    }
}
