//! Decodes images on several ranks together, with one band of rows on each.

use std::num::NonZero;
use std::ops::Range;

use xdit_comm::{Call, Group, Shard, Spec};
use xdit_kernels::attention::{Mask, Segment};
use xdit_kernels::group_norm::GroupSums;
use xdit_kernels::{DType, Tensor, View};
use xdit_usp::{Ring, SequencePlan, ShardOrder};

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::layers::{Progress, Told, attend_by};
use crate::vae::{Bands, Edges, VaeDecoder, Whole, dims};

impl VaeDecoder {
    /// Decodes the same images as [`forward`](Self::forward) on all ranks of a group together. Returns them on the first rank
    /// and `None` on the others. Any number of rows and ranks works; some ranks may have no rows.
    ///
    /// Each rank holds a band of rows at every resolution. Ranks exchange the rows at the borders of bands before each 3×3
    /// convolution, the sums for the group norms, and keys and values for the attention of the middle block. The result differs
    /// from that of one rank only by the order of sums in f32. The activations of a rank take 1/ranks of the memory of a single
    /// rank (one latent row more if the ranks do not divide the rows). At a resolution with w pixels per line and c channels,
    /// it also holds up to six lines of w·c elements: the neighbours' rows as received and normalised, and its own rows as
    /// sent.
    ///
    /// # Shapes
    /// Latents `[b, h, w, latent_channels]`, whole on every rank, to `[b, s·h, s·w, out_channels]`.
    ///
    /// # Collective
    /// Every rank of the group calls it with the same latents.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`Error::Comm`](crate::Error::Comm) if another rank is lost.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// use xdit_comm::threads;
    /// use xdit_kernels::{DType, Device, Tensor};
    /// use xdit_models::ModelSource;
    /// use xdit_models::layers::Packing;
    /// use xdit_models::vae::{VaeConfig, VaeDecoder};
    /// use xdit_models::weights::Scope;
    ///
    /// let demo = ModelSource::demo();
    /// let config = VaeConfig::read(&demo.config("vae/config.json")?)?;
    /// let weights = demo.open_weights("vae", None)?;
    /// let packing = &mut Packing::new(DType::F32, Device::cpu());
    /// let decoder = VaeDecoder::load(&config, &Scope::root(&weights), packing)?;
    /// let latents_bhwc = Tensor::zeros([1, 5, 4, 16], DType::F32, &Device::cpu())?;
    /// let pictures = threads::run(3, move |ranks| {
    ///     decoder.forward_over(&latents_bhwc, &ranks).map_err(xdit_comm::Error::other)
    /// })?;
    /// assert_eq!(pictures[0].as_ref().map(|picture| picture.shape()), Some(&[1, 40, 32, 3][..]));
    /// assert!(pictures[1].is_none() && pictures[2].is_none());
    /// # }
    /// # Ok::<(), xdit_models::Error>(())
    /// ```
    pub fn forward_over(&self, latents_bhwc: &Tensor, ranks: &Group) -> Result<Option<Tensor>> {
        let progress = Progress::new(Some(ranks), latents_bhwc.device(), &CancelToken::NEVER);
        self.decode_over(latents_bhwc, ranks, progress, &CancelToken::NEVER)
    }

    /// The same, in a call with this token, of a rank that reports this progress.
    pub(super) fn decode_over(
        &self,
        latents_bhwc: &Tensor,
        ranks: &Group,
        progress: Progress,
        cancel: &CancelToken,
    ) -> Result<Option<Tensor>> {
        let &[b, h, w, _] = dims(latents_bhwc)?;
        let (count, width) = (ranks.world_size(), NonZero::new(w));
        let Some(width) = width.filter(|_| count > 1 && h > 0) else {
            let leads = ranks.rank() == 0;
            return leads
                .then(|| self.forward_band(latents_bhwc, &Whole(progress), &mut cancel.clone()))
                .transpose();
        };
        let bands = BandRanks {
            group: ranks,
            progress,
            plan: SequencePlan {
                ring: count,
                ulysses: 1,
                order: ShardOrder::Blocks(width),
            },
            height: h,
            width,
        };
        let band = self.forward_band(latents_bhwc, &bands, &mut cancel.clone())?;
        if ranks.rank() > 0 {
            // A message, not a collective: nothing of the band stays behind here while the first rank goes on.
            let sent = Call::send(&band, 0);
            drop(band);
            ranks.start(vec![sent])?.wait()?;
            return Ok(None);
        }
        let scale = self.config().scale_factor();
        let others = (1..count).map(|rank| {
            let rows = scale * bands.band(rank).len;
            let shape = [b, rows, scale * w, self.config().out_channels];
            Call::recv(Spec::new(shape.as_slice(), DType::F32), rank)
        });
        let mut parts = vec![band];
        parts.extend(ranks.start(others.collect())?.wait()?);
        let views: Vec<View<'_>> = parts.iter().map(Tensor::view).collect();
        Ok(Some(Tensor::cat(&views, 1)?))
    }
}

/// The ranks of a group, each with its latent rows of `plan`, and the progress of this rank.
#[derive(Debug)]
struct BandRanks<'a> {
    group: &'a Group,
    progress: Progress,
    plan: SequencePlan,
    /// The number of latent rows.
    height: usize,
    width: NonZero<usize>,
}

impl BandRanks<'_> {
    fn pixels(&self) -> usize {
        self.height * self.width.get()
    }

    /// Returns the latent rows of a rank. Ranks without rows come last.
    fn band(&self, rank: usize) -> Shard {
        let pixels = self.plan.runs(self.pixels(), rank, 0)[0];
        Shard {
            start: pixels.start / self.width,
            len: pixels.len / self.width,
        }
    }

    /// Returns the ranks that hold the rows above and below this rank's rows.
    fn neighbours(&self) -> [Option<usize>; 2] {
        let me = self.group.rank();
        if self.band(me).len == 0 {
            return [None, None];
        }
        let below = (me + 1..self.group.world_size()).next();
        [
            me.checked_sub(1),
            below.filter(|rank| self.band(*rank).len > 0),
        ]
    }
}

impl Bands for BandRanks<'_> {
    fn rows(&self, _: usize) -> Range<usize> {
        let band = self.band(self.group.rank());
        band.start..band.end()
    }

    fn start_edges<'a>(&'a self, x_bhwc: &Tensor) -> Result<Edges<'a>> {
        let neighbours = self.neighbours();
        let [b, h, w, c] = *dims(x_bhwc)?;
        let spec = Spec::new([b, 1, w, c].as_slice(), x_bhwc.dtype());
        // One batch, because neighbours wait for each other's rows.
        let mut batch = Vec::new();
        for (row, peer) in [0, h.saturating_sub(1)].into_iter().zip(neighbours) {
            if let Some(peer) = peer {
                // A copy, so that the message does not keep the whole band in memory.
                let row = x_bhwc.view().narrow(1, row, 1)?.to_tensor()?;
                batch.extend([Call::send(&row, peer), Call::recv(spec, peer)]);
            }
        }
        let pending = self.group.start(batch)?;
        Ok(Box::new(move || {
            let mut rows = pending.wait()?.into_iter();
            Ok(neighbours.map(|peer| peer.and_then(|_| rows.next())))
        }))
    }

    fn sum(&self, sums: GroupSums) -> Result<GroupSums> {
        // In f64, because in f32 the difference of Σx² and (Σx)² loses the precision of the kernel. In rank order, so that all
        // ranks get the same bytes.
        self.progress.settle()?;
        let own = sums.to_vec_blocking()?;
        let all = self.group.control().all_gather_f64(&own)?;
        Ok(GroupSums::total(sums.groups(), &all, sums.device())?)
    }

    fn attend(&self, qkv_blc: &Tensor) -> Result<Tensor> {
        let me = self.group.rank();
        let run = self.plan.runs(self.pixels(), me, 0)[0];
        let segment = Segment {
            stream: 0,
            start: run.start,
            len: run.len,
            total: self.pixels(),
        };
        let told = Told(self.progress.clone());
        let mut ring = Ring::new(self.group.clone(), self.plan, told)?;
        attend_by(&mut ring, &[segment], qkv_blc, 1, None, Mask::default())
    }

    fn progress(&self) -> Result<()> {
        self.progress.note()
    }
}
