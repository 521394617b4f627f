//! MPI itself, and communicators.

use super::codes::{MpiResult, check, int, text_of};
use ::mpi::environment::{Threading, Universe, initialize_with_threading};
use ::mpi::ffi::{self, MPI_Comm, MPI_SUCCESS};
use std::{
    ffi::c_int,
    mem::{ManuallyDrop, MaybeUninit},
    sync::{Arc, Mutex, PoisonError},
};

/// Shows that MPI is initialised and not finalised.
#[derive(Debug)]
pub(crate) struct Library {
    /// The most bytes that MPI is told of as one count, which is an `int`.
    pub(super) largest: usize,
    /// Communicators that nothing uses any more.
    unused: Arc<Mutex<Vec<Handle>>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(pub(super) MPI_Comm);

// SAFETY: a handle is a number or an address that only MPI reads, and MPI_THREAD_MULTIPLE lets any thread pass it.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The ranks that exchange tensors, apart from other such groups.
#[derive(Debug)]
pub(crate) struct Comm {
    pub(super) handle: Handle,
    rank: usize,
    size: usize,
    unused: Arc<Mutex<Vec<Handle>>>,
}

impl Drop for Comm {
    /// Operations own the communicator too, so none uses it any more.
    fn drop(&mut self) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.push(self.handle);
    }
}

impl Comm {
    /// Returns this rank, and the number of ranks.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.rank, self.size)
    }
}

/// Finalises MPI, which otherwise stays initialised until the process ends.
pub(crate) struct Finaliser(ManuallyDrop<Universe>);

impl Finaliser {
    /// Waits for all ranks of MPI_COMM_WORLD. `library` must be the last of its kind.
    pub(crate) fn finalise(self, library: Arc<Library>) -> MpiResult<()> {
        let last = Arc::into_inner(library).ok_or("a call of MPI has not returned")?;
        last.free_unused()?;
        drop(last);
        drop(ManuallyDrop::into_inner(self.0));
        Ok(())
    }
}

impl Library {
    /// Initialises MPI.
    pub(crate) fn init(largest: usize) -> MpiResult<(Self, Finaliser)> {
        let (universe, level) = initialize_with_threading(Threading::Multiple)
            .ok_or("MPI is already initialised in this process, which it can be only once")?;
        if level != Threading::Multiple {
            return Err(format!(
                "MPI grants the thread level {level:?} and not MPI_THREAD_MULTIPLE, which this transport needs: build the MPI \
                 installation with support of threads"
            ));
        }
        let library = Self {
            largest: largest.clamp(1, c_int::MAX as usize),
            unused: Arc::default(),
        };
        // Errors come back as codes from now on. SAFETY: initialised.
        let set = unsafe {
            ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN)
        };
        check(set)?;
        Ok((library, Finaliser(ManuallyDrop::new(universe))))
    }

    /// Returns the name and the version of the installation.
    pub(crate) fn version() -> String {
        // SAFETY: a constant of the installation.
        let room = unsafe { ffi::RSMPI_MAX_LIBRARY_VERSION_STRING };
        let mut text = vec![0_u8; usize::try_from(room).unwrap_or(0).max(1 << 14)];
        let mut len = 0;
        // SAFETY: may be called at any time, and `text` has the room that the standard asks for.
        let code = unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast(), &mut len) };
        match code == MPI_SUCCESS as c_int {
            true => text_of(&text, len),
            false => "an MPI installation that does not tell its version".to_owned(),
        }
    }

    /// Returns the rank of this process in MPI_COMM_WORLD, and its size.
    pub(crate) fn world(&self) -> MpiResult<(usize, usize)> {
        // SAFETY: a constant of the installation.
        self.place(Handle(unsafe { ffi::RSMPI_COMM_WORLD }))
    }

    fn place(&self, comm: Handle) -> MpiResult<(usize, usize)> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: initialised, valid.
        check(unsafe { ffi::MPI_Comm_rank(comm.0, &mut rank) })?;
        // SAFETY: as above.
        check(unsafe { ffi::MPI_Comm_size(comm.0, &mut size) })?;
        Ok((rank.unsigned_abs() as usize, size.unsigned_abs() as usize))
    }

    /// Returns the communicator of the ranks of `whole` (or of MPI_COMM_WORLD) that pass the same color, in the order of their keys.
    /// **Waits for all ranks of `whole`.**
    pub(crate) fn split(&self, whole: Option<&Comm>, color: usize, key: usize) -> MpiResult<Comm> {
        let (color, key) = (int(color)?, int(key)?);
        // SAFETY: a constant of the installation.
        let world = unsafe { ffi::RSMPI_COMM_WORLD };
        let whole = whole.map_or(world, |comm| comm.handle.0);
        let mut made = MaybeUninit::uninit();
        // SAFETY: initialised; `whole` is valid; MPI writes the handle if it returns success.
        check(unsafe { ffi::MPI_Comm_split(whole, color, key, made.as_mut_ptr()) })?;
        // SAFETY: written, as checked above.
        let made = unsafe { made.assume_init() };
        // SAFETY: `made` is valid.
        check(unsafe { ffi::MPI_Comm_set_errhandler(made, ffi::RSMPI_ERRORS_RETURN) })?;
        let (rank, size) = self.place(Handle(made))?;
        Ok(Comm {
            handle: Handle(made),
            rank,
            size,
            unused: self.unused.clone(),
        })
    }

    /// Gives back the communicators that nothing uses any more.
    pub(crate) fn free_unused(&self) -> MpiResult<()> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        for mut handle in unused.drain(..) {
            // SAFETY: initialised; the only `Comm` of the handle was dropped, after all its operations had ended.
            check(unsafe { ffi::MPI_Comm_free(&mut handle.0) })?;
        }
        Ok(())
    }
}
