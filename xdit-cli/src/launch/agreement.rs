//! What the processes of a job exchange on the control plane: small JSON values, one of each rank.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xdit_comm::{Error, Result};
use xdit_models::quote;

use crate::report::failure::Failure;

/// Exchanges one value of each rank by `gather`. Returns them in rank order.
pub(super) fn exchange<T: Serialize + DeserializeOwned>(
    own: &T,
    gather: impl FnOnce(&[u8]) -> Result<Vec<Vec<u8>>>,
) -> Result<Vec<T>> {
    let bytes = serde_json::to_vec(own).map_err(Error::other)?;
    let all = gather(&bytes)?;
    let read = all
        .iter()
        .map(|bytes| serde_json::from_slice(bytes).map_err(Error::other));
    read.collect()
}

/// How a rank is prepared for what all do next.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Readiness {
    /// What must be equal on all ranks.
    pub key: String,
    /// Why it cannot go on, and its exit code.
    pub failure: Option<(String, u8)>,
}

impl Readiness {
    /// Of the outcome of a preparation.
    pub(super) fn of<T>(
        outcome: &std::result::Result<T, Failure>,
        key: impl FnOnce(&T) -> String,
    ) -> Self {
        match outcome {
            Ok(done) => Self {
                key: key(done),
                failure: None,
            },
            Err(failure) => Self {
                key: String::new(),
                failure: Some((failure.to_string(), failure.exit_code())),
            },
        }
    }
}

/// Returns `own`, if all ranks can go on; otherwise the failure of the first rank that cannot, the same on all ranks. `own_rank` is
/// this one, `hosts` are those of all. `differs` says what is wrong where the keys differ, and `code` is the exit code then.
pub(super) fn agreed<T>(
    own: std::result::Result<T, Failure>,
    own_rank: usize,
    all: &[Readiness],
    hosts: &[String],
    (differs, code): (&str, u8),
) -> std::result::Result<T, Failure> {
    let of_rank = |rank: usize, message: String, code| Failure::OfRank {
        rank,
        host: hosts[rank].clone(),
        message,
        code,
    };
    let mut ranks = all.iter().enumerate();
    let failed = ranks.find_map(|(rank, said)| Some((rank, said.failure.clone()?)));
    if let Some((rank, (message, code))) = failed {
        return match own {
            Err(failure) if rank == own_rank => Err(failure),
            _ => Err(of_rank(rank, message, code)),
        };
    }
    match all.iter().position(|rank| rank.key != all[0].key) {
        Some(rank) => Err(of_rank(rank, differs.to_owned(), code)),
        None => own,
    }
}

/// Says in one line which ranks have one GPU, if two have. `gpus` tells that of each rank, and is empty for the processor.
pub(super) fn shared_gpu(gpus: &[Option<String>], hosts: &[String]) -> Option<String> {
    let pairs = (0..gpus.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    let (first, second) = pairs
        .into_iter()
        .find(|(a, b)| gpus[*a].is_some() && gpus[*a] == gpus[*b])?;
    let (gpu, host) = (gpus[first].as_deref()?, quote::name(&hosts[first]));
    Some(format!(
        "ranks {first} and {second} ({host}) have one GPU, {gpu}: NCCL needs one for each rank: --device cuda takes GPU n for the \
         n-th process of a host, or the only one that a process sees (srun --gpus-per-task=1)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_on_one_gpu_are_named() {
        let hosts = ["a", "b", "a"].map(String::from);
        let told =
            |gpus: [Option<&str>; 3]| shared_gpu(&gpus.map(|gpu| gpu.map(str::to_owned)), &hosts);
        assert_eq!(told([None, None, None]), None);
        assert_eq!(told([Some("GPU-1"), Some("GPU-2"), Some("GPU-3")]), None);
        let told = told([Some("GPU-1"), Some("GPU-2"), Some("GPU-1")]).unwrap();
        let start = "ranks 0 and 2 (a) have one GPU, GPU-1: ";
        assert!(told.starts_with(start) && !told.contains('\n'), "{told}");
    }

    #[test]
    fn all_ranks_end_with_the_failure_of_the_first_that_failed() {
        let hosts = ["a", "b", "c"].map(String::from);
        let fine = |key: &str| Readiness {
            key: key.to_owned(),
            failure: None,
        };
        let failed = |text: &str| {
            let failure = Failure::usage(text);
            Readiness::of(&Err::<(), _>(failure), |()| String::new())
        };
        let end = |own: std::result::Result<(), Failure>, rank, all: &[Readiness]| {
            let ended = agreed(own, rank, all, &hosts, ("other files", 4))
                .map_err(|failure| (failure.to_string(), failure.exit_code()));
            ended.err()
        };
        let all = [fine("k"), fine("k"), fine("k")];
        assert_eq!(end(Ok(()), 1, &all), None);
        let all = [fine("k"), failed("no"), failed("nor")];
        let told = Some(("rank 1 (b): no".to_owned(), 2));
        assert_eq!(end(Ok(()), 0, &all), told);
        assert_eq!(end(Err(Failure::usage("nor")), 2, &all), told);
        assert_eq!(
            end(Err(Failure::usage("no")), 1, &all),
            Some(("no".to_owned(), 2))
        );
        let all = [fine("k"), fine("k"), fine("j")];
        let told = Some(("rank 2 (c): other files".to_owned(), 4));
        assert_eq!(end(Ok(()), 0, &all), told);
    }
}
