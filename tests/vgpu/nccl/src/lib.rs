//! A double of libnccl.so.2: messages between ranks that are threads of one process, or processes, each on a virtual GPU of its own. The
//! double of libcuda orders them and checks the memory that they use. `tests/vgpu/README.md` says more.

mod abroad;
mod arguments;
mod comms;
mod cuda;
mod exports;
mod group;
mod journal;
mod meetings;
mod messages;
mod misuse;
mod settings;
mod splits;
mod status;
