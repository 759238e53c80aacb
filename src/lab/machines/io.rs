//! File descriptors of the lab's processes: pipes, files of the virtual root, and the null device.
//!
//! Nothing here is a descriptor of the operating system that a process could inherit: there are no processes.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fs::Fs;

/// A lock whose holder panicked still guards usable data here.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much as a Linux pipe holds.
const PIPE: usize = 64 * 1024;

struct PipeState {
    bytes: VecDeque<u8>,
    limit: usize,
    readers: usize,
    writers: usize,
    wakers: Vec<Waker>,
}

impl PipeState {
    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// A pipe, or rather a bounded queue of bytes with counted ends.
pub(super) fn pipe() -> (PipeReader, PipeWriter) {
    pipe_of(PIPE)
}

/// A pipe that holds at most `limit` bytes.
pub(super) fn pipe_of(limit: usize) -> (PipeReader, PipeWriter) {
    let state = PipeState { bytes: VecDeque::new(), limit, readers: 1, writers: 1, wakers: Vec::new() };
    let shared = Arc::new(Mutex::new(state));
    (PipeReader(shared.clone()), PipeWriter(shared))
}

pub(super) struct PipeReader(Arc<Mutex<PipeState>>);
pub(super) struct PipeWriter(Arc<Mutex<PipeState>>);

impl Clone for PipeReader {
    fn clone(&self) -> Self {
        lock(&self.0).readers += 1;
        Self(self.0.clone())
    }
}
impl Clone for PipeWriter {
    fn clone(&self) -> Self {
        lock(&self.0).writers += 1;
        Self(self.0.clone())
    }
}
impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.readers -= 1;
        state.wake();
    }
}
impl Drop for PipeWriter {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.writers -= 1;
        state.wake();
    }
}

/// A file that is open; its position is shared by every copy of the descriptor.
pub(super) struct OpenFile {
    pub file: Mutex<std::fs::File>,
    pub fs: Fs,
    pub append: bool,
}

impl OpenFile {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        lock(&self.file).read(buf)
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = lock(&self.file);
        let length = file.metadata()?.len();
        let at = if self.append { file.seek(SeekFrom::End(0))? } else { file.stream_position()? };
        self.fs.grow((at + bytes.len() as u64).saturating_sub(length))?;
        file.write(bytes)
    }
}

/// A descriptor.
#[derive(Clone)]
pub(super) enum Fd {
    Null,
    Zero,
    Random,
    In(PipeReader),
    Out(PipeWriter),
    File(Arc<OpenFile>),
}

fn bad_descriptor() -> io::Error {
    io::Error::other("Bad file descriptor")
}

impl AsyncRead for Fd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &*self {
            Fd::Null => Poll::Ready(Ok(())),
            Fd::Out(_) => Poll::Ready(Err(bad_descriptor())),
            Fd::Zero => {
                buf.initialize_unfilled().fill(0);
                buf.advance(buf.remaining());
                Poll::Ready(Ok(()))
            }
            Fd::Random => {
                let room = buf.initialize_unfilled();
                room.fill_with(|| fastrand::u8(..));
                let count = room.len();
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
            Fd::In(pipe) => {
                let mut state = lock(&pipe.0);
                if state.bytes.is_empty() {
                    if state.writers == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    state.wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
                let (front, _) = state.bytes.as_slices();
                let count = front.len().min(buf.remaining());
                buf.put_slice(&front[..count]);
                state.bytes.drain(..count);
                state.wake();
                Poll::Ready(Ok(()))
            }
            Fd::File(file) => {
                let room = buf.initialize_unfilled();
                let count = file.read(room)?;
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Fd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &*self {
            Fd::Null | Fd::Zero | Fd::Random => Poll::Ready(Ok(bytes.len())),
            Fd::In(_) => Poll::Ready(Err(bad_descriptor())),
            Fd::Out(pipe) => {
                let mut state = lock(&pipe.0);
                if state.readers == 0 {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                let room = state.limit.saturating_sub(state.bytes.len());
                if room == 0 && !bytes.is_empty() {
                    state.wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
                let count = room.min(bytes.len());
                state.bytes.extend(bytes.iter().take(count));
                state.wake();
                Poll::Ready(Ok(count))
            }
            Fd::File(file) => Poll::Ready(file.write(bytes)),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the C library calls an error, without Rust's "(os error N)".
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.kind(), text.find(" (os error")) {
        (_, Some(at)) => text[..at].to_owned(),
        (io::ErrorKind::NotFound, None) => "No such file or directory".to_owned(),
        (io::ErrorKind::StorageFull, None) => "No space left on device".to_owned(),
        (io::ErrorKind::BrokenPipe, None) => "Broken pipe".to_owned(),
        (io::ErrorKind::PermissionDenied, None) => "Permission denied".to_owned(),
        (io::ErrorKind::NotADirectory, None) => "Not a directory".to_owned(),
        (io::ErrorKind::IsADirectory, None) => "Is a directory".to_owned(),
        (io::ErrorKind::AlreadyExists, None) => "File exists".to_owned(),
        (io::ErrorKind::DirectoryNotEmpty, None) => "Directory not empty".to_owned(),
        _ => text,
    }
}

/// A descriptor that reads these bytes.
pub(super) fn bytes(bytes: Vec<u8>) -> Fd {
    let state = PipeState { bytes: bytes.into(), limit: 0, readers: 1, writers: 0, wakers: Vec::new() };
    Fd::In(PipeReader(Arc::new(Mutex::new(state))))
}
