//! The weights of a pipeline that are in memory.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use xdit_kernels::Device;
use xdit_pipefusion::Blocks;

use crate::error::Result;
use crate::files::source::ModelSource;
use crate::files::weights::{Scope, Stamp, Weights};
use crate::layers::Packing;
use crate::models::dit::{Dit, DitShape};
use crate::observer::{Observer, Phase, PhaseEvent};
use crate::pipeline::device_memory;
use crate::pipeline::memory_limit;
use crate::pipeline::options::LoadOptions;
use crate::pipeline::ways_out;
use crate::text::EncoderSize;
use crate::vae::{VaeConfig, VaeDecoder, decoder_bytes};

/// The transformer and the autoencoder.
#[derive(Debug)]
pub(crate) struct LoadedModel<D> {
    /// The blocks that the transformer has.
    blocks: Blocks,
    pub(crate) transformer: D,
    pub(crate) vae: VaeDecoder,
}

/// Weights, and the device that holds them.
pub(crate) type PlacedModel<D> = (Device, Arc<LoadedModel<D>>);

/// Builds the models of a family from their weights, according to its configurations.
pub(crate) trait ModelLoader {
    /// The transformer.
    type Dit: Dit;
    /// The text encoders.
    type Encoders: Debug + Send + Sync;

    /// Returns the folders of the text encoders of this pipeline.
    fn encoder_names(&self) -> Vec<&'static str>;

    /// Returns the memory of each text encoder, in the order of the folders.
    fn encoder_sizes(&self) -> Vec<EncoderSize>;

    /// Builds the text encoders from their weights, in the order of the folders.
    fn pack_encoders(
        &self,
        weights: &[Weights],
        packing: &mut Packing<'_>,
    ) -> Result<Self::Encoders>;

    /// Builds some blocks of the transformer.
    fn pack_transformer(
        &self,
        blocks: &Blocks,
        weights: &Weights,
        packing: &mut Packing<'_>,
    ) -> Result<Self::Dit>;

    /// Returns the shape of the transformer.
    fn shape(&self) -> &dyn DitShape;

    /// Returns the configuration of the autoencoder.
    fn vae(&self) -> &VaeConfig;
}

/// The configurations of a pipeline, and those of its weights that are in memory.
#[derive(Debug)]
pub(crate) struct ModelStore<R: ModelLoader> {
    pub(crate) configs: R,
    source: ModelSource,
    options: LoadOptions,
    /// Not set before the first call that encodes here, and never where they are read for each call and let go before it denoises.
    encoders: OnceLock<R::Encoders>,
    /// On each device once, by the first call with ranks there at the latest.
    loaded: Mutex<Vec<PlacedModel<R::Dit>>>,
    /// Locked while encoders are read, and while those that are not kept are in memory, so that there is one copy of them.
    encoding: Mutex<()>,
    /// The state of the weights' files when they were first opened.
    stamps: Vec<Stamp>,
}

/// What the first call reads, because only the call determines what this process needs of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Later {
    /// The transformer, of which a stage has some blocks, and the autoencoder.
    pub(crate) transformer: bool,
    /// The text encoders, which the first rank of each replica of a group reads.
    pub(crate) encoders: bool,
}

const DRAWING: [&str; 2] = ["transformer", "vae"];

impl<R: ModelLoader> ModelStore<R> {
    /// Loads the weights in `source`, except those that the first call reads.
    pub(crate) fn load(
        configs: R,
        source: &ModelSource,
        options: &LoadOptions,
        later: Later,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let _span = tracing::info_span!("load").entered();
        let mut store = Self {
            configs,
            source: source.clone(),
            options: options.clone(),
            encoders: OnceLock::new(),
            loaded: Mutex::default(),
            encoding: Mutex::new(()),
            stamps: Vec::new(),
        };
        let names = store.configs.encoder_names();
        // Reads only headers, so that a missing file is an error now and not after the prompts are encoded.
        let of_drawing = store.open(&DRAWING)?;
        let of_encoders = store.open(&names)?;
        let opened = of_drawing.iter().chain(&of_encoders);
        store.stamps = opened.flat_map(Weights::stamps).cloned().collect();
        // What the call reads is checked there.
        let drawing = match later.transformer {
            true => 0,
            false => store.drawing_bytes(&of_drawing, &store.all_blocks())?,
        };
        let encoders = match later.encoders {
            true => 0,
            false => store.encoder_bytes(&of_encoders)?,
        };
        let (device, what) = (&options.device, "loading the weights");
        if options.low_memory {
            store.check_memory(device, what, encoders)?;
            store.check_memory(device, what, drawing)?;
            return Ok(store);
        }
        if later.transformer && later.encoders {
            return Ok(store);
        }
        store.check_memory(device, what, drawing.saturating_add(encoders))?;
        let all = [
            (&of_drawing, later.transformer),
            (&of_encoders, later.encoders),
        ];
        let now = all.iter().filter(|(_, later)| !later);
        let now: Vec<&[Weights]> = now.map(|(weights, _)| &weights[..]).collect();
        let (drawing, encoders) = store.packed(device, &now, observer, |packing| {
            let drawing = match later.transformer {
                true => None,
                false => Some(store.pack_drawing(&of_drawing, &store.all_blocks(), packing)?),
            };
            let encoders = match later.encoders {
                true => None,
                false => Some(store.configs.pack_encoders(&of_encoders, packing)?),
            };
            Ok((drawing, encoders))
        })?;
        let drawing = drawing.map(|model| (device.clone(), Arc::new(model)));
        store.loaded = Mutex::new(drawing.into_iter().collect());
        store.encoders = encoders.map_or_else(OnceLock::new, OnceLock::from);
        Ok(store)
    }

    /// Returns an error if a weights file has changed since it was loaded. Some tables stay in the file, and later reads would
    /// get another model's values.
    pub(crate) fn check_files(&self) -> Result<()> {
        self.stamps.iter().try_for_each(Stamp::check)
    }

    /// Returns the bytes that these blocks of the transformer and the decoder will take. Compares both with the headers of the
    /// files: every required tensor must exist, with its shape and a supported dtype. No weight is read.
    fn drawing_bytes(&self, weights: &[Weights], blocks: &Blocks) -> Result<u64> {
        let packing = &mut Packing::sizes_only(self.options.dtype);
        self.pack_drawing(&unread(weights), blocks, packing)?;
        Ok(packing.bytes())
    }

    /// Returns the bytes that the encoders will take, after the same comparison.
    fn encoder_bytes(&self, weights: &[Weights]) -> Result<u64> {
        let packing = &mut Packing::sizes_only(self.options.dtype);
        self.configs.pack_encoders(&unread(weights), packing)?;
        Ok(packing.bytes())
    }

    /// Returns all blocks of the transformer.
    pub(crate) fn all_blocks(&self) -> Blocks {
        (0..self.configs.shape().block_count()).into()
    }

    /// Returns the components whose weights are on a device, with their bytes as plans count them.
    pub(crate) fn held(&self, device: &Device) -> Vec<(&'static str, u64)> {
        let dtype = self.options.dtype;
        let mut held = Vec::new();
        if self.encoders.get().is_some() && *device == self.options.device {
            let sizes = self.configs.encoder_sizes();
            let bytes = sizes.iter().map(|size| size.bytes(dtype));
            held.push(("text encoders", bytes.fold(0, u64::saturating_add)));
        }
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = loaded.iter().find(|(of, _)| of == device) {
            let transformer = self.configs.shape().stage_bytes(&model.blocks, dtype);
            held.push(("transformer", transformer));
            let vae = decoder_bytes(self.configs.vae(), dtype, &self.options.device);
            held.push(("VAE", vae));
        }
        held
    }

    /// Returns the bytes on a device that a call which needs these blocks there does not have to find: weights that it uses, and
    /// weights that are let go before it reads its own.
    pub(crate) fn spared(&self, device: &Device, blocks: &Blocks) -> u64 {
        let held = self.held(device).into_iter().map(|(_, bytes)| bytes);
        let held = held.fold(0, u64::saturating_add);
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let model = loaded.iter().find(|(of, _)| of == device);
        match model {
            // Blocks stay that the call has no use for.
            Some((_, model)) if model.blocks.holds(blocks) => {
                let shape = self.configs.shape();
                let [all, used] =
                    [&model.blocks, blocks].map(|of| shape.stage_bytes(of, self.options.dtype));
                held.saturating_sub(all.saturating_sub(used))
            }
            _ => held,
        }
    }

    fn open(&self, names: &[&str]) -> Result<Vec<Weights>> {
        let variant = self.options.variant.as_deref();
        let open = |name: &&str| self.source.open_weights(name, variant);
        names.iter().map(open).collect()
    }

    fn check_memory(&self, device: &Device, what: &str, bytes: u64) -> Result<()> {
        if device_memory::is_gpu(device) {
            let room = self
                .options
                .memory_limit
                .or_else(|| device.available_memory());
            let checked = device_memory::fits(&device.to_string(), what, bytes, room);
            let ways = ways_out::on_gpu(self.options.dtype, self.options.low_memory, None);
            return ways_out::with_ways(checked, &ways);
        }
        let checked = memory_limit::check(what, bytes, self.options.memory_limit, 0);
        let (dtype, low_memory) = (self.options.dtype, self.options.low_memory);
        let ways = ways_out::lighter_weights(dtype, low_memory);
        ways_out::with_ways(checked, &ways)
    }

    /// Builds a model on a device from these weights with `pack`, and reports progress over their bytes.
    fn packed<T>(
        &self,
        device: &Device,
        weights: &[&[Weights]],
        observer: &mut dyn Observer,
        pack: impl FnOnce(&mut Packing<'_>) -> Result<T>,
    ) -> Result<T> {
        let files = weights.iter().copied().flatten();
        let total = files.map(Weights::total_bytes).sum();
        observer.phase(Phase::Load, PhaseEvent::Start { total });
        let cancel = observer.cancel_token();
        let mut done = 0;
        let mut on_packed = |bytes: u64| {
            done += bytes;
            observer.phase(
                Phase::Load,
                PhaseEvent::Advance {
                    done: done.min(total),
                    total,
                },
            );
        };
        let packing = Packing::new(self.options.dtype, device.clone()).cancelled_by(cancel);
        let made = pack(&mut packing.on_packed(&mut on_packed))?;
        observer.phase(Phase::Load, PhaseEvent::End);
        Ok(made)
    }

    fn pack_drawing(
        &self,
        weights: &[Weights],
        blocks: &Blocks,
        packing: &mut Packing<'_>,
    ) -> Result<LoadedModel<R::Dit>> {
        let [transformer, vae] = weights else {
            return Err(
                xdit_kernels::Error::shape("load", "transformer and vae", weights.len()).into(),
            );
        };
        Ok(LoadedModel {
            blocks: blocks.clone(),
            transformer: self
                .configs
                .pack_transformer(blocks, transformer, packing)?,
            vae: VaeDecoder::load(self.configs.vae(), &Scope::root(vae), packing)?,
        })
    }

    /// Returns these blocks of the transformer and the autoencoder on a device. Loads them if they are not in its memory.
    pub(crate) fn loaded(
        &self,
        device: &Device,
        blocks: &Blocks,
        observer: &mut dyn Observer,
    ) -> Result<Arc<LoadedModel<R::Dit>>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut here = loaded.iter().filter(|(of, _)| of == device);
        if let Some((_, held)) = here.find(|(_, held)| held.blocks.holds(blocks)) {
            return Ok(held.clone());
        }
        // Drops other blocks first.
        loaded.retain(|(of, _)| of != device);
        let _span = tracing::info_span!("load").entered();
        let weights = self.open(&DRAWING)?;
        let what = match *blocks == self.all_blocks() {
            true => "loading the weights",
            false => "loading the weights of a stage",
        };
        self.check_memory(device, what, self.drawing_bytes(&weights, blocks)?)?;
        let made = self.packed(device, &[&weights], observer, |packing| {
            self.pack_drawing(&weights, blocks, packing)
        })?;
        let made = Arc::new(made);
        loaded.push((device.clone(), made.clone()));
        Ok(made)
    }

    fn read_encoders(&self, observer: &mut dyn Observer) -> Result<R::Encoders> {
        if self.options.low_memory {
            self.let_models_go();
        }
        let weights = self.open(&self.configs.encoder_names())?;
        let device = &self.options.device;
        let what = "loading the text encoders";
        self.check_memory(device, what, self.encoder_bytes(&weights)?)?;
        self.packed(device, &[&weights], observer, |packing| {
            self.configs.pack_encoders(&weights, packing)
        })
    }

    /// Drops the models of earlier calls from the device of the encoders, except those with which another call draws now.
    fn let_models_go(&self) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |(of, model): &PlacedModel<R::Dit>| {
            *of != self.options.device || Arc::strong_count(model) > 1
        };
        loaded.retain(stays);
    }

    /// Encodes prompts with `read`. Loads the encoders if they are not kept in memory.
    pub(crate) fn with_encoders<T>(
        &self,
        observer: &mut dyn Observer,
        read: impl FnOnce(&R::Encoders, &mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        let (_one_copy, loaded);
        let encoders = match self.encoders.get() {
            Some(encoders) => encoders,
            None => {
                let one_copy = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
                // Another call may have read them meanwhile.
                match self.encoders.get() {
                    Some(encoders) => encoders,
                    None => {
                        loaded = self.read_encoders(observer)?;
                        match self.options.low_memory {
                            true => {
                                _one_copy = one_copy;
                                &loaded
                            }
                            false => self.encoders.get_or_init(|| loaded),
                        }
                    }
                }
            }
        };
        let _span = tracing::info_span!("encode").entered();
        read(encoders, observer)
    }
}

/// Returns the blocks of a model whose stages have consecutive blocks.
pub(crate) fn one_range(blocks: &Blocks) -> Result<Range<usize>> {
    match blocks.ranges() {
        [one] => Ok(one.clone()),
        other => {
            Err(xdit_kernels::Error::shape("load", "blocks that follow each other", other).into())
        }
    }
}

/// Returns the same files for a comparison with their headers, which reads no weight.
fn unread(weights: &[Weights]) -> Vec<Weights> {
    weights.iter().map(Weights::unread).collect()
}

#[cfg(test)]
mod tests;
