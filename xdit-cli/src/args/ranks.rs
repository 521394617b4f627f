//! The flags of ranks, with their names in xDiT, and their plan.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use xdit_models::Degrees;
use xdit_models::{OnRankLoss, Parallel, PipeFusion, StageSplit};

use crate::report::failure::Failure;
use crate::report::pipefusion::PlacementName;

/// The ranks of a run.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Ranks")]
pub(crate) struct ParallelArgs {
    /// Ranks for each image.
    ///
    /// They share it by exchanging heads for tokens. Ranks are threads that this program starts; the compute threads are divided
    /// among them.
    #[arg(
        long,
        value_name = "U",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub ulysses_degree: usize,
    /// Ranks that share each image by passing keys and values around a ring; multiplies with --ulysses-degree.
    #[arg(
        long,
        value_name = "R",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub ring_degree: usize,
    /// Two ranks share the branches of guidance (--cfg-degree 2): one computes the prompt, one the negative prompt. Needs
    /// guidance above 1: SD3 and HunyuanDiT --guidance-scale; Flux --true-cfg-scale with --negative-prompt.
    #[arg(long)]
    pub use_cfg_parallel: bool,
    /// Ranks for the branches of guidance; 2 is the same as --use-cfg-parallel [default: 1].
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2), allow_negative_numbers = true)]
    pub cfg_degree: Option<u8>,
    /// Stages of PipeFusion.
    ///
    /// Each stage has some of the model's blocks, and ranks of its own. The image changes after the warm-up unless
    /// --num-pipeline-patch is 1.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub pipefusion_parallel_degree: usize,
    /// Patches (bands of rows) that go through the stages one after another. With 2 or more the image changes after the
    /// warm-up: a patch attends to keys and values of the previous step where those of this step are not ready [default: N].
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub num_pipeline_patch: Option<usize>,
    /// Number of first steps that run on the whole image, exactly; at least one does. If all steps do, the image is exact.
    #[arg(
        long,
        value_name = "W",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub warmup_steps: usize,
    /// Number of blocks of each stage, from the first to the last, e.g. 3,5 [default: as --pipefusion-balance].
    #[arg(long, value_name = "A,B,…", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    pub attn_layer_num_for_pp: Vec<usize>,
    /// What to divide evenly among the stages: FLOPs of a step, or bytes of parameters [default: flops].
    #[arg(
        long,
        value_enum,
        value_name = "flops|memory",
        hide_possible_values = true,
        conflicts_with = "attn_layer_num_for_pp"
    )]
    pub pipefusion_balance: Option<Balance>,
    /// linear: each stage has blocks that follow each other. folded: each has blocks from both ends of a U-shaped model, so
    /// that skip connections stay within a stage [default: folded for U-shaped models, else linear].
    #[arg(
        long,
        value_enum,
        value_name = "linear|folded",
        hide_possible_values = true
    )]
    pub pipefusion_placement: Option<PlacementName>,
    /// Run a step on the whole image if keys and values changed by more than X (relative L2) two steps earlier: nearer to
    /// the exact image, slower.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub max_drift: Option<f32>,
    /// Replicas that share the images or the lines of --prompt-file; the images stay the same.
    #[arg(
        long,
        value_name = "D",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub data_parallel_degree: usize,
    /// Order of the axes of the mesh, outermost first: ranks that differ only on the last axis are neighbours. It decides which
    /// ranks exchange what; the images stay the same.
    #[arg(
        long,
        value_name = "AXES",
        default_value = "data,cfg,pipe,ring,ulysses"
    )]
    pub mesh_order: String,
    /// Decode each image on one rank instead of in row bands on all of its ranks.
    #[arg(long)]
    pub no_parallel_vae: bool,
    /// How long a rank may go without finishing an operation before it is lost (--on-rank-loss). Time in which this process is
    /// stopped does not count.
    #[arg(long, value_name = "SECONDS", default_value_t = Self::RANK_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub rank_timeout: u64,
    /// What happens when a rank is lost. fail: the run ends with an error (exit code 6). replan: it continues after the last
    /// finished step, on the nearest legal plan for the ranks that are left. The image is the same unless steps run patch by
    /// patch; then the first steps run whole again. For ranks that are threads of this program, or processes that launch has started.
    #[arg(
        long,
        value_enum,
        value_name = "fail|replan",
        hide_possible_values = true,
        default_value_t = LossPolicy::Fail
    )]
    pub on_rank_loss: LossPolicy,
}

/// `--on-rank-loss`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum LossPolicy {
    /// The run ends.
    Fail,
    /// The run continues on other ranks.
    Replan,
}

impl From<LossPolicy> for OnRankLoss {
    fn from(policy: LossPolicy) -> Self {
        match policy {
            LossPolicy::Fail => Self::Fail,
            LossPolicy::Replan => Self::Replan,
        }
    }
}

/// `--pipefusion-balance`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Balance {
    /// FLOPs of a step.
    Flops,
    /// Bytes of parameters.
    Memory,
}

impl ParallelArgs {
    /// The default of `--rank-timeout`.
    pub(crate) const RANK_TIMEOUT: u64 = 60;

    /// Returns the ranks of the flags.
    ///
    /// # Errors
    /// [`Failure::Usage`] that names a flag whose value is 0, or flags that together ask for too many ranks.
    pub(crate) fn plan(&self) -> Result<Parallel, Failure> {
        let degrees = Degrees {
            data: self.data_parallel_degree,
            cfg: self.cfg()?,
            pipe: self.pipefusion_parallel_degree,
            ring: self.ring_degree,
            ulysses: self.ulysses_degree,
            order: self.mesh_order.parse()?,
        };
        let plan = Parallel::threads(degrees)
            .pipefusion(self.pipefusion())
            .vae(!self.no_parallel_vae)
            .on_rank_loss(self.on_rank_loss.into())
            .deadline(Duration::from_secs(self.rank_timeout));
        let flags = [
            ("--data-parallel-degree", degrees.data),
            ("--pipefusion-parallel-degree", degrees.pipe),
            ("--ring-degree", degrees.ring),
            ("--ulysses-degree", degrees.ulysses),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, degree)| *degree == 0) {
            return Err(Failure::usage(format!("{flag} 0: must be at least 1")));
        }
        plan.check().map_err(|error| match error {
            xdit_models::Error::Comm(_) => {
                let given = flags.iter().filter(|(_, degree)| *degree > 1);
                let given: Vec<String> = given.map(|(flag, n)| format!("{flag} {n}")).collect();
                Failure::usage(format!("{}: {error}", given.join(" ")))
            }
            other => other.into(),
        })?;
        Ok(plan)
    }

    fn cfg(&self) -> Result<usize, Failure> {
        match (self.use_cfg_parallel, self.cfg_degree) {
            (true, Some(1)) => Err(Failure::usage(
                "--use-cfg-parallel is --cfg-degree 2: leave out --cfg-degree 1",
            )),
            (true, _) => Ok(2),
            (false, degree) => Ok(degree.unwrap_or(1).into()),
        }
    }

    fn pipefusion(&self) -> PipeFusion {
        let stages = match (
            self.attn_layer_num_for_pp.as_slice(),
            self.pipefusion_balance,
        ) {
            ([], Some(Balance::Memory)) => StageSplit::Memory,
            ([], _) => StageSplit::Flops,
            (blocks, _) => StageSplit::Blocks(blocks.to_vec()),
        };
        let mut pipefusion = PipeFusion::default()
            .warmup_steps(self.warmup_steps)
            .stages(stages);
        pipefusion.patches = self.num_pipeline_patch;
        pipefusion.placement = self.pipefusion_placement.map(Into::into);
        pipefusion.max_drift = self.max_drift;
        pipefusion
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::argv::{self, Parsed};
    use crate::args::cli::Command;

    fn plan(flags: &str) -> Result<Parallel, Failure> {
        let words = ["xdit-cli", "generate", "--prompt", "a"].into_iter();
        match argv::parse(words.chain(flags.split_whitespace()).map(Into::into))? {
            Parsed::Run(cli) => match cli.command {
                Command::Generate(args) => args.parallel.plan(),
                other => panic!("not generate: {other:?}"),
            },
            Parsed::Text(text) => panic!("only text: {text}"),
        }
    }

    #[test]
    fn every_flag_arrives() {
        let none = plan("").unwrap();
        assert_eq!(none.degrees, Degrees::default());
        assert_eq!(none.pipefusion, PipeFusion::default());
        let flags = "--pipefusion_parallel_degree 2 --num_pipeline_patch=5 --warmup-steps 0 --max_drift 0.25 \
                     --attn_layer_num_for_pp";
        let expected = |blocks: &[usize]| {
            let stages = StageSplit::Blocks(blocks.to_vec());
            let patches = PipeFusion::default().patches(5).warmup_steps(0);
            patches.max_drift(0.25).stages(stages)
        };
        for (blocks, split) in [("3,5", &[3, 5][..]), ("3 5 --seed 7", &[3, 5]), ("8", &[8])] {
            let all = plan(&format!("{flags} {blocks}")).unwrap();
            assert_eq!(all.degrees.pipe, 2);
            assert_eq!(all.pipefusion, expected(split), "{blocks}");
        }
        let turned = plan("--mesh_order data,cfg,pipe,ulysses,ring --ring-degree 2").unwrap();
        let order = "data,cfg,pipe,ulysses,ring".parse().unwrap();
        let ring = Degrees {
            ring: 2,
            order,
            ..Degrees::default()
        };
        assert_eq!(turned.degrees, ring);
        let memory = plan("--pipefusion-balance memory").unwrap();
        assert_eq!(memory.pipefusion.stages, StageSplit::Memory);
    }

    #[test]
    fn guidance_ranks() {
        for (flags, degree) in [
            ("", 1),
            ("--cfg-degree 1", 1),
            ("--cfg_degree=2", 2),
            ("--use_cfg_parallel", 2),
            ("--use-cfg-parallel --cfg-degree 2", 2),
        ] {
            assert_eq!(plan(flags).unwrap().degrees.cfg, degree, "{flags}");
        }
        for flags in [
            "--use-cfg-parallel --cfg-degree 1",
            "--cfg-degree 0",
            "--cfg-degree 3",
            "--cfg-degree -1",
        ] {
            let failure = plan(flags).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains("--cfg-degree"), "{failure}");
        }
    }

    #[test]
    fn the_flag_that_is_nothing_is_named() {
        let failure = plan("--pipefusion-parallel-degree 0").unwrap_err();
        let message = failure.to_string();
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(
            message,
            "--pipefusion-parallel-degree 0: must be at least 1"
        );
        let failure = plan("--mesh-order ring,ulysses").unwrap_err();
        assert_eq!(
            (failure.exit_code(), failure.to_string().as_str()),
            (
                2,
                "--mesh-order ring,ulysses: must be data,cfg,pipe,ring,ulysses in some order, outermost first"
            )
        );
        let failure = plan("--ring-degree 2000 --ulysses-degree 2").unwrap_err();
        let message = failure.to_string();
        assert_eq!(failure.exit_code(), 2);
        assert!(
            message.starts_with("--ring-degree 2000 --ulysses-degree 2: ")
                && message.contains("at most 1024 ranks"),
            "{message}"
        );
    }
}
