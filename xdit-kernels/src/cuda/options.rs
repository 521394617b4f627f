use std::path::PathBuf;

/// How a GPU is used. Changed by its `with_…` methods.
///
/// # Examples
/// ```
/// use xdit_kernels::CudaOptions;
/// let options = CudaOptions::default().with_library_folders(["/opt/cuda/lib64".into()]);
/// assert_eq!(options, CudaOptions::default().with_tf32(false).with_library_folders(["/opt/cuda/lib64".into()]));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CudaOptions {
    pub(super) library_folders: Vec<PathBuf>,
    pub(super) tf32: bool,
}

impl CudaOptions {
    /// Folders in which cuBLASLt is looked for before the system's own places: of a Python package, for example.
    #[must_use]
    pub fn with_library_folders(self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            library_folders: folders.into_iter().collect(),
            ..self
        }
    }

    /// Whether products of f32 may round their operands to TF32 (10 bits after the point), which is several times as fast. Off
    /// by default.
    #[must_use]
    pub fn with_tf32(self, tf32: bool) -> Self {
        Self { tf32, ..self }
    }
}
