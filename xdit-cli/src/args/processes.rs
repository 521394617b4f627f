//! The flags of ranks that are processes.

use clap::Args;

/// Ranks that are processes, which a launcher starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ranks")]
pub(crate) struct ProcessArgs {
    /// Port at which rank 0 meets the other ranks, if a launcher such as mpirun, srun or torchrun starts several processes
    /// [default: XDIT_RENDEZVOUS_PORT, MASTER_PORT, or by the rules of the launcher].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub rendezvous_port: Option<u16>,
}
