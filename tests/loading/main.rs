//! Tests without kernels: noise, schedules, token ids and the files of a pipeline, compared with the goldens.

mod diffusion;
mod hostile;
mod noise;
mod schedulers;
mod tokens;
