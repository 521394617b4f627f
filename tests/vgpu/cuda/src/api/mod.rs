//! The functions that programs call, by the chapters of the driver API's documentation.

mod calls;
mod captures;
mod contexts;
mod copies;
mod current;
mod devices;
mod events;
mod exit;
mod functions;
mod launches;
mod memory;
mod modules;
mod occupancy;
mod pools;
mod private;
mod refused;
mod streams;
mod tensor_maps;
