//! The texts below the flags in help texts, and the sections of man pages.

/// What `xdit-cli --help` says about exit codes, also in the README and in man pages.
pub(crate) const EXIT_CODES: [(u8, &str); 11] = [
    (0, "done (replay: the pixels are identical)"),
    (
        1,
        "a file or the network failed, the result is not finite; replay: differs",
    ),
    (
        2,
        "usage: an unknown flag, a wrong value; replay, info: a PNG has no record",
    ),
    (
        3,
        "model not found, or its licence not yet accepted on the hub",
    ),
    (4, "bad model: a file is missing, damaged or not supported"),
    (5, "out of memory"),
    (
        6,
        "a rank was lost: it ended, did nothing for too long, or never came",
    ),
    (101, "a bug in this program; please report it"),
    (129, "hung up (SIGHUP)"),
    (130, "interrupted (SIGINT)"),
    (143, "terminated (SIGTERM)"),
];

/// The environment variables that the program reads, also in the README.
pub(crate) const ENVIRONMENT: [(&str, &str); 16] = [
    (
        "RAYON_NUM_THREADS, OMP_NUM_THREADS",
        "the number of compute threads; the first one that is set counts",
    ),
    (
        "RUST_LOG, XDIT_LOGGING_LEVEL",
        "what to log without -v and --quiet; warnings by default",
    ),
    (
        "XDIT_CUDA_LIB_DIR",
        "folders that have cuBLASLt, before the system's own; separated as in PATH",
    ),
    (
        "XDIT_NCCL_LIB",
        "NCCL's library, or a folder that has it; otherwise the system's own",
    ),
    (
        "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT",
        "the place of this process among several; launchers set these or their own",
    ),
    (
        "XDIT_LAUNCH, XDIT_RENDEZVOUS_PORT, XDIT_JOB_SECRET, XDIT_RESTART",
        "0: run alone; where ranks meet; what they know; how often they began",
    ),
    ("XDIT_SSH", "what launch runs instead of ssh, as --ssh"),
    (
        "XDIT_CONTROL, XDIT_REPORT",
        "set by launch for its processes: where they hear from it, and where it hears from them",
    ),
    ("NO_COLOR", "no colours"),
    ("TERM", "no progress bars if it is dumb"),
    (
        "HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME",
        "the folder of downloads, as in huggingface_hub; ~/.cache/huggingface/hub by default",
    ),
    (
        "HF_TOKEN, HF_TOKEN_PATH",
        "the hub's token, or the file that contains it, for gated models",
    ),
    (
        "HF_HUB_OFFLINE",
        "1: use only what is in the cache, without the network",
    ),
    ("HF_ENDPOINT", "the address of another hub"),
    (
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "1: no progress bars of downloads",
    ),
    (
        "HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT",
        "seconds to wait for an answer about files, and for the next bytes of a download; 10 by default",
    ),
];

/// The end of `xdit-cli -h`.
pub(crate) const SHORT: &str = "\
xdit-cli COMMAND -h shows the most used flags of a command, COMMAND --help all.";

/// The end of `-h` of a command with more flags than those.
pub(crate) const MORE: &str = "These are the most used flags: --help shows all of them.";

/// The end of `xdit-cli generate -h`.
pub(crate) const GENERATE_SHORT: &str = "\
These are the most used flags: --help shows all of them.
Example:
  xdit-cli generate -p \"a yellow square in the top right on a blue background\"";

/// The end of `xdit-cli generate --help`.
pub(crate) const GENERATE: &str = "\
Same image:
  The same prompt, seed, size, steps, dtype, instruction tier and ranks produce
  the same bytes for any --threads. Ulysses, ring and guidance ranks produce the
  image of one rank up to the last bits. PipeFusion's patches do not
  (--num-pipeline-patch). Processors with other instructions (AVX2, AVX-512,
  NEON) produce the same image up to the last bits.

Exit codes:
  0 done, 1 failure, 2 usage, 3 model not found or gated, 4 bad model,
  5 out of memory, 6 a rank was lost, 129 SIGHUP, 130 SIGINT, 143 SIGTERM.

Partial results:
  No exit code leaves one. An interrupted download leaves blobs/*.part in the
  hub's cache; the next run resumes it.

Example:
  xdit-cli generate -p \"a yellow square in the top right on a blue background\"";

/// The end of `xdit-cli plan --help`.
pub(crate) const PLAN: &str = "\
plan reads only configurations, and downloads nothing else from the hub. The
column \"parameters\" counts the transformer only; the memory at the end counts
everything. Exit codes are those of generate.

Example:
  xdit-cli plan --pipefusion-parallel-degree 2 --show-schedule";

/// The end of `xdit-cli replay --help`.
pub(crate) const REPLAY: &str = "\
Exit codes:
  0 the pixels are identical, 1 they differ or the run failed, 2 IMAGE records
  no run, others as for generate.";

/// The end of `xdit-cli info --help`.
pub(crate) const INFO: &str = "\
Examples:
  xdit-cli info black-forest-labs/FLUX.1-schnell
  xdit-cli info circle.png";

/// The end of `xdit-cli download --help`.
pub(crate) const DOWNLOAD: &str = "\
download fetches only the files that a pipeline needs, several at the same time:
configurations, tokenizers and the safetensors of each component. The next
download resumes an interrupted one. generate downloads missing files itself.

Example:
  xdit-cli download black-forest-labs/FLUX.1-schnell";

/// The end of `xdit-cli devices --help`.
pub(crate) const DEVICES: &str = "\
GPUs need NVIDIA's driver 525 (CUDA 12.0) or newer and compute capability 8.0 or
more. --device of generate takes the names of the first column.";

/// The end of `xdit-cli doctor --help`.
pub(crate) const DOCTOR: &str = "\
Each line is ok, lacks (only runs that need this part fail; the line after >
says what to do) or wrong (settings that no run accepts).
On several ranks, times are those of the slowest link: of a message to another
rank, and of an exchange in which each rank sends so many bytes in equal parts to
all. The time of 8 bytes is the latency.

Exit codes:
  0 done, whatever is missing, 2 a line is wrong; on several ranks also those of
  generate, if they do not come together or one is lost.

Examples:
  xdit-cli doctor
  xdit-cli launch --nproc 4 -- doctor";

/// The end of `xdit-cli launch -h`.
pub(crate) const LAUNCH_SHORT: &str = "\
These are the most used flags: --help shows all of them.
Example:
  xdit-cli launch -- generate -p \"a red circle\" --ulysses-degree 2";

/// The end of `xdit-cli launch --help`.
pub(crate) const LAUNCH: &str = "\
What the processes print is printed; only rank 0 prints. Rank 0 has the standard
input, unless --hosts is given. Signals are passed on.
When a process fails, the others get 8 seconds to end, then SIGTERM, and 5
seconds later SIGKILL. None stays behind, even if launch itself is killed.
With generate --on-rank-loss replan, the others go on without a process that is
killed, stopped or cut off, and finish the image.
Processes get a port, a random secret and their rank in the environment, never
on the command line. Other hosts have their own environment and must have the
current folder.

Exit codes:
  0 the processes are done, 1 ssh failed, 2 usage, 128+N launch got signal N.
  Otherwise that of the process that failed first, 128+N if it died of signal N.
  A process that only lost another one (6) does not count before that one.

Examples:
  xdit-cli launch -- generate -p \"a red circle\" --ulysses-degree 2
  xdit-cli launch --nproc 8 --hosts a,b -- doctor";

/// The end of `xdit-cli completions --help`.
pub(crate) const COMPLETIONS: &str = "\
Where to put the script, before you start a new shell:
  bash        xdit-cli completions bash > \\
                ~/.local/share/bash-completion/completions/xdit-cli
              (the folder must exist; needs the package bash-completion)
  zsh         xdit-cli completions zsh > ~/.zfunc/_xdit-cli
              (with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc)
  fish        xdit-cli completions fish > \\
                ~/.config/fish/completions/xdit-cli.fish
  elvish      xdit-cli completions elvish >> ~/.config/elvish/rc.elv
  powershell  xdit-cli completions powershell >> $PROFILE";

/// The end of `xdit-cli man --help`.
pub(crate) const MAN: &str = "\
Examples:
  xdit-cli man generate | man -l -
  xdit-cli man --output-dir ~/.local/share/man/man1";

/// The end of `xdit-cli --help`.
pub(crate) fn whole() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for (code, meaning) in EXIT_CODES {
        text += &format!("  {code:<3}  {meaning}\n");
    }
    text += "\nEnvironment (flags take precedence):\n";
    for (names, meaning) in ENVIRONMENT {
        text += &format!("  {names}\n      {meaning}\n");
    }
    text += "\nFlags may be written with - or _: --num-inference-steps, --num_inference_steps.\n";
    text + "\n" + SHORT
}
