//! The command line as its users see it: the built binary, its output, its exit codes, its files.

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod auto_device;
mod bad_input;
mod broken_model;
mod columns;
mod comforts;
mod completions;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod devices;
mod disk;
mod doctor;
mod empty_prompt;
#[cfg(all(feature = "hub", unix))]
mod fake_hub;
mod first_picture;
mod flux_folder;
mod generate;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu_choice;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu_memory;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu_processes;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu_slow;
mod help;
mod hostile;
mod hostile_picture;
mod hub;
#[cfg(all(feature = "hub", unix))]
mod hub_download;
mod hub_online;
mod hunyuan;
mod hunyuan_bad_input;
mod hunyuan_masks;
mod info;
#[cfg(unix)]
mod job;
#[cfg(unix)]
mod launch;
#[cfg(target_os = "linux")]
mod launch_runs;
mod lost_ranks;
mod man;
mod memory;
mod memory_limits;
mod messages;
mod no_t5;
mod not_finite;
mod numbers;
mod odd_folder;
mod old_pictures;
mod picture_record;
mod pipefusion;
mod places;
mod plan;
#[cfg(unix)]
mod process_errors;
#[cfg(unix)]
mod processes;
mod program;
mod prompt_file;
mod ranks;
mod replay;
mod sd3;
mod sd3_bad_input;
mod signals;
mod stalls;
mod tokenizers;
mod tracer;
mod unread;
mod unused;
