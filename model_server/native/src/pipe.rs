//! A connection's bytes in memory: what was received and not read yet, what was written and not taken yet.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait to be taken; beyond them nothing is written, as on a socket whose peer does not read.
pub const FULL_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Buffers {
    received: BytesMut,
    written: BytesMut,
    stalled: bool,
}

/// Both ends of the pipe; clones are the same pipe.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Mutex<Buffers>>);

impl Pipe {
    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Append what the socket gave.
    pub fn receive(&self, bytes: &[u8]) {
        self.buffers().received.put_slice(bytes);
    }

    /// Give what is written to `use_bytes` and forget it.
    pub fn take<R>(&self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        let mut buffers = self.buffers();
        let result = use_bytes(&buffers.written);
        if buffers.written.capacity() > 4 * FULL_BYTES {
            buffers.written = BytesMut::new();
        }
        buffers.written.clear();
        result
    }

    /// Whether a write was refused since this was last asked: there is more to do once the bytes are taken.
    #[must_use]
    pub fn stalled(&self) -> bool {
        std::mem::take(&mut self.buffers().stalled)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffers = self.buffers();
        if buffers.received.is_empty() {
            return Poll::Pending;
        }
        let size = buffers.received.len().min(into.remaining());
        into.put_slice(&buffers.received[..size]);
        buffers.received.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.buffers();
        if buffers.written.len() >= FULL_BYTES {
            buffers.stalled = true;
            return Poll::Pending;
        }
        let mut size = 0;
        for slice in slices {
            buffers.written.put_slice(slice);
            size += slice.len();
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
