//! What a store holds, and what a call need not find because of it.

use super::*;
use crate::models::flux;
use crate::pipeline::configurations::Configurations;

/// A store of the tiny Flux whose first call reads the transformer.
fn store(low_memory: bool) -> ModelStore<flux::Configs> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/pipelines/flux-dev"
    );
    let source = ModelSource::folder(folder).unwrap();
    let options = LoadOptions {
        low_memory,
        ..LoadOptions::default()
    };
    let later = Later {
        transformer: true,
        encoders: true,
    };
    let configs = flux::Configs::read(&source).unwrap();
    ModelStore::load(configs, &source, &options, later, &mut ()).unwrap()
}

#[test]
fn what_is_held_counts_the_blocks_that_are_there() {
    let (store, device) = (store(false), Device::cpu());
    let (all, first) = (store.all_blocks(), Blocks::from(0..1));
    let bytes = |blocks: &Blocks| {
        let shape = store.configs.shape();
        shape.stage_bytes(blocks, store.options.dtype)
    };
    let vae = decoder_bytes(store.configs.vae(), store.options.dtype, &device);
    assert!(bytes(&first) < bytes(&all));
    assert_eq!(store.spared(&device, &all), 0);
    store.loaded(&device, &first, &mut ()).unwrap();
    let held = [("transformer", bytes(&first)), ("VAE", vae)];
    assert_eq!(store.held(&device), held);
    // They are used, or let go before others are read.
    assert_eq!(store.spared(&device, &first), bytes(&first) + vae);
    assert_eq!(store.spared(&device, &all), bytes(&first) + vae);
    // All stay for a call that needs one.
    store.loaded(&device, &all, &mut ()).unwrap();
    assert_eq!(store.held(&device)[0], ("transformer", bytes(&all)));
    assert_eq!(store.spared(&device, &first), bytes(&first) + vae);
}

#[test]
fn with_low_memory_encoders_are_not_read_beside_the_models_of_an_earlier_call() {
    let (store, device) = (store(true), Device::cpu());
    let held_while_encoding = |store: &ModelStore<flux::Configs>| {
        let read = |_: &_, _: &mut dyn Observer| Ok(store.held(&device));
        store.with_encoders(&mut (), read).unwrap()
    };
    let model = store.loaded(&device, &store.all_blocks(), &mut ()).unwrap();
    // Another call draws with them: without them here, it would be read twice.
    assert_eq!(held_while_encoding(&store).len(), 2);
    drop(model);
    assert_eq!(held_while_encoding(&store), []);
}
