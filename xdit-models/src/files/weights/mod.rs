//! The weights of a component: requests of models, and sources of tensors.
//!
//! A model requests tensors through a [`Scope`], which adds the prefix of their names. Behind it is a [`WeightSource`]:
//! [`Weights`], the safetensors files of a component, or [`ZeroWeights`], which returns zeros and records the requests.

mod files;
mod header;
mod index;
#[cfg(test)]
pub(crate) mod numbered;
mod stamp;
mod zeros;

use std::fmt::Display;

use xdit_kernels::Tensor;

use crate::error::{Error, Result};

pub use files::Weights;
pub use header::{Header, MAX_HEADER_BYTES, StoredDType, TensorInfo};
pub(crate) use index::{has_variant, missing};
pub(crate) use stamp::Stamp;
pub use zeros::ZeroWeights;

/// Where a model's weights come from.
pub trait WeightSource: Send + Sync {
    /// The tensor `name`, in the dtype it is stored in.
    ///
    /// # Errors
    /// [`Error::BadTensor`] when it is missing, has another shape than `shape` or a dtype other than f32, bf16 and f16,
    /// or holds a NaN or an infinity.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// Whether there is a tensor `name`.
    fn contains(&self, name: &str) -> bool;

    /// Whether any tensor's name starts with `prefix`.
    fn contains_prefix(&self, prefix: &str) -> bool;

    /// Lets the file pages of the tensor `name` leave the resident memory, after its values were packed elsewhere.
    /// Nothing is lost: reading the tensor again reads the file again.
    fn release(&self, name: &str);
}

/// A [`WeightSource`] seen from one module of a model: names are relative to its prefix.
///
/// # Examples
/// ```
/// use xdit_kernels::DType;
/// use xdit_models::weights::{Scope, ZeroWeights};
/// let weights = ZeroWeights::new(DType::BF16);
/// let model = Scope::root(&weights);
/// for i in 0..2 {
///     let norm = model.child("blocks").child(i).child("norm");
///     let scale = norm.tensor("weight", &[64])?;
///     assert_eq!(scale.shape(), [64]);
/// }
/// assert_eq!(weights.asked()[1], ("blocks.1.norm.weight".to_string(), vec![64]));
/// # Ok::<(), xdit_models::Error>(())
/// ```
#[derive(Clone)]
pub struct Scope<'a> {
    source: &'a dyn WeightSource,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// All of `source`, without a prefix.
    #[must_use]
    pub fn root(source: &'a dyn WeightSource) -> Self {
        Self {
            source,
            prefix: String::new(),
        }
    }

    /// The module `name` inside this one.
    #[must_use]
    pub fn child(&self, name: impl Display) -> Self {
        Self {
            source: self.source,
            prefix: format!("{}{name}.", self.prefix),
        }
    }

    /// The module `name` inside this one when there is such a module, else this one: CLIP checkpoints come with and
    /// without `text_model.`.
    #[must_use]
    pub fn child_if_present(&self, name: impl Display) -> Self {
        let child = self.child(name);
        if self.source.contains_prefix(&child.prefix) {
            child
        } else {
            self.clone()
        }
    }

    /// The full name of the tensor `name`.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is a tensor `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.source.contains(&self.full_name(name))
    }

    /// The tensor `name`, in the dtype it is stored in. It shares the file's pages while it lives.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.tensor(&self.full_name(name), shape)
    }

    /// The first of several names under which checkpoints hold the same tensor.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`]; when there is none, the error names the first.
    pub fn tensor_of(&self, names: &[&str], shape: &[usize]) -> Result<Tensor> {
        let name = names
            .iter()
            .find(|name| self.contains(name))
            .or(names.first());
        self.tensor(name.copied().unwrap_or_default(), shape)
    }

    /// What `pack` makes of the tensor `name`; the file's pages are released afterwards.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`], and those of `pack`.
    pub fn pack<T, E>(
        &self,
        name: &str,
        shape: &[usize],
        pack: impl FnOnce(Tensor) -> Result<T, E>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        let packed = pack(self.tensor(name, shape)?)?;
        self.release(name);
        Ok(packed)
    }

    /// Lets the file pages of the tensor `name` leave the resident memory.
    pub fn release(&self, name: &str) {
        self.source.release(&self.full_name(name));
    }
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
