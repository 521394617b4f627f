//! What handles stand for: layouts, descriptions of products, preferences. Handles are numbers, so a wrong one is an error.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::status::{INVALID_VALUE, NOT_SUPPORTED, Number, Res};

/// A matrix by columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) number: Number,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Numbers from a column to the next one.
    pub(crate) leading: usize,
    pub(crate) batch: usize,
    /// Numbers from a matrix of the batch to the next one.
    pub(crate) stride: i64,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// Whether operands in f32 are rounded to TF32.
    pub(crate) tf32: bool,
    pub(crate) transposed: [bool; 2],
    pub(crate) epilogue: u32,
    /// A device address.
    pub(crate) bias: u64,
    pub(crate) bias_number: Option<Number>,
    pub(crate) bias_stride: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Object {
    Handle,
    Layout(Layout),
    Description(Description),
    /// The most bytes of a workspace.
    Preference(u64),
}

/// All objects by their handles.
#[derive(Debug)]
pub(crate) struct Objects {
    next: usize,
    by_handle: BTreeMap<usize, Object>,
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects {
    next: 0xb1a5_0000,
    by_handle: BTreeMap::new(),
});

pub(crate) fn objects() -> MutexGuard<'static, Objects> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    pub(crate) fn add(&mut self, object: Object) -> usize {
        self.next += 16;
        self.by_handle.insert(self.next, object);
        self.next
    }

    pub(crate) fn remove(&mut self, handle: usize) -> Res {
        self.by_handle
            .remove(&handle)
            .map(|_| ())
            .ok_or(INVALID_VALUE)
    }

    pub(crate) fn at(&mut self, handle: usize) -> Res<&mut Object> {
        self.by_handle.get_mut(&handle).ok_or(INVALID_VALUE)
    }

    pub(crate) fn layout(&mut self, handle: usize) -> Res<&mut Layout> {
        match self.at(handle)? {
            Object::Layout(layout) => Ok(layout),
            _ => Err(INVALID_VALUE),
        }
    }

    pub(crate) fn description(&mut self, handle: usize) -> Res<&mut Description> {
        match self.at(handle)? {
            Object::Description(description) => Ok(description),
            _ => Err(INVALID_VALUE),
        }
    }

    pub(crate) fn preference(&mut self, handle: usize) -> Res<&mut u64> {
        match self.at(handle)? {
            Object::Preference(bytes) => Ok(bytes),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Whether this is a handle of `cublasLtCreate`.
    pub(crate) fn check_handle(&mut self, handle: usize) -> Res {
        match self.at(handle)? {
            Object::Handle => Ok(()),
            _ => Err(INVALID_VALUE),
        }
    }
}

impl Layout {
    pub(crate) fn new(code: u32, rows: u64, columns: u64, leading: i64) -> Res<Self> {
        let size = |n: u64| usize::try_from(n).map_err(|_| INVALID_VALUE);
        Ok(Self {
            number: Number::from_code(code).ok_or(NOT_SUPPORTED)?,
            rows: size(rows)?,
            columns: size(columns)?,
            leading: usize::try_from(leading).map_err(|_| INVALID_VALUE)?,
            batch: 1,
            stride: 0,
        })
    }
}
