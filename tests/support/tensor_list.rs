//! The tensors that loaders ask for, beside the lists of published checkpoints.

use std::collections::BTreeSet;

use xdit_kernels::DType;
use xdit_models::ConfigFile;
use xdit_models::layers::Packing;
use xdit_models::text::{T5Config, T5Encoder};
use xdit_models::vae::{VaeConfig, VaeDecoder};
use xdit_models::weights::{Scope, ZeroWeights};

use crate::goldens::bytes;

/// What the loaders of a model's components ask for, as `component name [shape]` lines.
#[derive(Debug, Default)]
pub struct AskedTensors(BTreeSet<String>);

impl AskedTensors {
    /// Adds what `load` asks for with this configuration.
    ///
    /// # Panics
    /// If it asks for a tensor twice.
    pub fn component(
        mut self,
        component: &str,
        json: &str,
        load: impl Fn(&ConfigFile, &Scope<'_>, &mut Packing<'_>),
    ) -> Self {
        let file = format!("{component}/config.json");
        let config = ConfigFile::parse(file, json.as_bytes()).unwrap();
        let weights = ZeroWeights::new(DType::BF16);
        load(&config, &Scope::root(&weights), &mut Packing::names_only());
        for (name, shape) in weights.asked() {
            // Zeros have every name, so T5's own embedding is found; checkpoints hold it as the shared one.
            let name = name.replace("encoder.embed_tokens.", "shared.");
            let line = format!("{component} {name} {shape:?}");
            assert!(self.0.insert(line), "{component} {name}: asked for twice");
        }
        self
    }

    /// Adds what a T5 encoder asks for.
    ///
    /// # Panics
    /// As [`component`](Self::component).
    pub fn t5(self, component: &str, json: &str) -> Self {
        self.component(component, json, |config, scope, packing| {
            T5Encoder::load(&T5Config::read(config).unwrap(), scope, packing).unwrap();
        })
    }

    /// Adds what the decoder of the autoencoder asks for.
    ///
    /// # Panics
    /// As [`component`](Self::component).
    pub fn vae(self, json: &str) -> Self {
        self.component("vae", json, |config, scope, packing| {
            VaeDecoder::load(&VaeConfig::read(config).unwrap(), scope, packing).unwrap();
        })
    }

    /// Takes an optional prefix from the names of a component. Zeros have every prefix, so loaders find it; the lists, made
    /// with transformers 5, have none.
    #[must_use]
    pub fn without_prefix(self, component: &str, prefix: &str) -> Self {
        let found = format!("{component} {prefix}");
        let short = |line: String| match line.strip_prefix(&found) {
            Some(rest) => format!("{component} {rest}"),
            None => line,
        };
        Self(self.0.into_iter().map(short).collect())
    }

    /// Returns the number of elements of the transformer's tensors, which are the parameters of its model card. Lines that begin
    /// with one of `unread` are listed and not asked for; those that begin with one of `buffers` are no parameters.
    ///
    /// # Panics
    /// If the tensors are not those of the list `MODEL-tensors.txt.gz`.
    pub fn as_listed(&self, model: &str, unread: &[&str], buffers: &[&str]) -> u64 {
        let list = String::from_utf8(bytes(&format!("{model}-tensors.txt.gz"))).unwrap();
        let begins = |line: &str, with: &[&str]| with.iter().any(|start| line.starts_with(start));
        let lines = list.lines().filter(|line| !begins(line, unread));
        let listed: BTreeSet<String> = lines.map(ToString::to_string).collect();
        let missing: Vec<_> = listed.difference(&self.0).collect();
        let extra: Vec<_> = self.0.difference(&listed).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{model}: not asked for: {missing:#?}\nnot there: {extra:#?}"
        );
        let learned = listed
            .iter()
            .filter(|line| line.starts_with("transformer "));
        let learned = learned.filter(|line| !begins(line, buffers));
        learned.map(|line| elements(line)).sum()
    }
}

/// The elements of the tensor in a line.
fn elements(line: &str) -> u64 {
    let (_, shape) = line.split_once('[').expect("a shape");
    let dims = shape.trim_end_matches(']').split(", ");
    dims.map(|dim| dim.parse::<u64>().expect("a dim")).product()
}
