//! Pointers that callers pass. Each type holds what the CUDA documentation demands of the caller; only C code makes values.

use std::ffi::{CStr, c_char};
use std::sync::Mutex;

use crate::codes::{self, Res};

/// Where a call stores a result: null, or valid for a write.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) -> Res {
        if self.0.is_null() {
            return Err(codes::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver function passes a pointer that is valid for a write, or null.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// The same address for a value of another type, where another argument says which one.
    pub(crate) fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    /// The values that are there, of arguments that a call both reads and writes.
    pub(crate) fn as_in(&self) -> In<T> {
        In(self.0)
    }

    /// Where the value with an index is stored.
    pub(crate) fn at(&self, index: usize) -> Self {
        Self(if self.0.is_null() {
            self.0
        } else {
            self.0.wrapping_add(index)
        })
    }

    /// Stores a value where the caller may pass null.
    pub(crate) fn set_if_wanted(&self, value: T) {
        let _ = self.set(value);
    }

    pub(crate) fn address(&self) -> usize {
        self.0 as usize
    }
}

/// Values that a call reads: null, or valid for as many reads as the call makes.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub(crate) fn at(&self, index: usize) -> Res<T> {
        if self.0.is_null() {
            return Err(codes::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver function passes an array of as many values as the documentation says, or null,
        // and `index` is below that number.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    pub(crate) fn list(&self, len: usize) -> Res<Vec<T>> {
        (0..len).map(|index| self.at(index)).collect()
    }
}

/// A text: null, or a string that ends with a zero.
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(crate) fn bytes(&self) -> Res<&[u8]> {
        if self.0.is_null() {
            return Err(codes::INVALID_VALUE);
        }
        // SAFETY: the caller of the driver function passes a string that ends with a zero and lives during the call, or null.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes())
    }
}

/// A buffer for a text, of a size that another argument gives.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct TextOut(pub(crate) *mut c_char);

impl TextOut {
    /// Stores as much of a text as `size` bytes hold, and a zero; returns the bytes used.
    pub(crate) fn fill(self, size: usize, text: &str) -> usize {
        if self.0.is_null() || size == 0 {
            return 0;
        }
        let len = text.len().min(size - 1);
        // SAFETY: the caller of the driver function passes a buffer of `size` bytes, or null. It does not overlap `text`.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.cast(), len);
            self.0.add(len).write(0);
        }
        len + 1
    }
}

/// Bytes of the host's memory from an address on, which may be any number: `None` if they cannot be read. The system reads
/// them for a pipe, so a wrong address is an error and not a crash.
pub(crate) fn readable(address: usize, len: usize) -> Option<Vec<u8>> {
    static PIPE: Mutex<Option<[i32; 2]>> = Mutex::new(None);
    let mut pipe = PIPE.lock().ok()?;
    if pipe.is_none() {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two numbers.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return None;
        }
        *pipe = Some(ends);
    }
    let [reader, writer] = (*pipe)?;
    let mut out = vec![0; len];
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(4096);
        // SAFETY: the system checks the address, and says EFAULT if it cannot be read.
        let sent = unsafe { libc::write(writer, (address + done) as *const _, piece) };
        let sent = usize::try_from(sent).ok().filter(|sent| *sent > 0)?;
        // SAFETY: `out` has room for `sent` bytes from `done` on, and the pipe holds so many.
        let got = unsafe { libc::read(reader, out[done..].as_mut_ptr().cast(), sent) };
        done += usize::try_from(got).ok().filter(|got| *got > 0)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_addresses_are_no_crash() {
        let bytes: Vec<u8> = (0..9000).map(|i| i as u8).collect();
        assert_eq!(readable(bytes.as_ptr() as usize, 9000), Some(bytes));
        assert_eq!(readable(16, 4), None);
        assert_eq!(readable(usize::MAX - 8, 4), None);
    }

    #[test]
    fn texts_are_cut() {
        let mut buffer = [1_u8; 4];
        assert_eq!(TextOut(buffer.as_mut_ptr().cast()).fill(4, "abcdef"), 4);
        assert_eq!(buffer, *b"abc\0");
    }
}
