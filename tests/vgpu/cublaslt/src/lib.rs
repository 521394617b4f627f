//! A double of libcublasLt: products of matrices by columns, with bias and activation, on virtual GPUs. The processor
//! computes them; the double of libcuda orders them and checks the memory that they use. `tests/vgpu/README.md` says more.

mod arguments;
mod exports;
mod objects;
mod problem;
mod product;
mod queue;
mod status;
