//! A tokenizer that is read: prompts to ids.

use std::any::Any;
use std::sync::Arc;

use super::added;
use super::engine::Engine;
use super::limits::MAX_PROMPT_BYTES;
use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;
use crate::pipeline::memory_limit::refused_thread;

/// How many of the tokens that were cut off are turned into text again.
const SHOWN_TOKENS: usize = 64;

/// Turns prompts into token ids as the transformers class of the same name does.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    engine: Arc<Engine>,
    /// How messages name the tokenizer: its folder or file.
    shown: String,
    pad_id: u32,
    model_max_length: Option<usize>,
    /// Whether padding comes before the prompt.
    pads_left: bool,
    /// Whether it is the start of a long prompt that is cut off.
    truncates_left: bool,
    /// Rows of the text encoder's vocabulary, when they are known.
    rows: usize,
}

/// A prompt as token ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// Exactly as many ids as were asked for: the prompt's, the special tokens around it, padding.
    pub ids: Vec<u32>,
    /// How many of them are not padding.
    pub len: usize,
    /// Which is the first of these: 0, unless the tokenizer pads on the left.
    pub start: usize,
    /// What did not fit.
    pub removed: Option<Removed>,
}

impl Encoded {
    /// Which ids are not padding: transformers' `attention_mask`.
    pub fn attention_mask(&self) -> impl Iterator<Item = bool> {
        let seen = self.start..self.start + self.len;
        (0..self.ids.len()).map(move |i| seen.contains(&i))
    }
}

/// The end of a prompt that was cut off, or its start where the tokenizer cuts on the left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// How many tokens it had.
    pub tokens: usize,
    /// Its text, or the start of it when it is long.
    pub text: String,
}

impl Tokenizer {
    /// The ids of `prompt`: the start of it that fits, special tokens included, padded to `max_length`. Where the files name
    /// the left as the side to cut or to pad on, it is that side.
    ///
    /// # Shapes
    /// [`Encoded::ids`] has `max_length` entries.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when `max_length` does not even hold the special tokens, or the prompt is longer than
    /// 1 MiB; [`Error::BadFile`] when the tokenizer has no token for unknown characters and needs one, makes a text of the
    /// prompt that is more than 16 times as long, or would take too long.
    pub fn encode(&self, prompt: &str, max_length: usize) -> Result<Encoded> {
        if prompt.len() > MAX_PROMPT_BYTES {
            let allowed = format!("at most {MAX_PROMPT_BYTES} bytes long");
            return Err(Error::invalid(
                "prompt",
                format!("a text of {} bytes", prompt.len()),
                allowed,
            ));
        }
        let special = self.special_tokens();
        if max_length < special || max_length > MAX_PROMPT_BYTES {
            let allowed =
                format!("from {special} to {MAX_PROMPT_BYTES}: the special tokens must fit");
            return Err(Error::invalid("max_sequence_length", max_length, allowed));
        }
        guarded(&self.shown, || {
            let bad = |error| Error::bad_file(&self.shown, format!("cannot tokenize: {error}"));
            let ids = self.engine.encode(prompt).map_err(bad)?;
            let fits = ids.len().min(max_length - special);
            let (kept, cut) = match self.truncates_left {
                false => ids.split_at(fits),
                true => {
                    let (cut, kept) = ids.split_at(ids.len() - fits);
                    (kept, cut)
                }
            };
            let removed = self.removed(cut);
            let mut ids = self.engine.template.around(kept);
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.rows) {
                return Err(bad(format!(
                    "id {id} is beyond the text encoder's vocabulary of {}",
                    self.rows
                )));
            }
            let len = ids.len();
            ids.resize(max_length, self.pad_id);
            let start = if self.pads_left { max_length - len } else { 0 };
            ids.rotate_right(start);
            Ok(Encoded {
                ids,
                len,
                start,
                removed,
            })
        })
    }

    /// The tokenizer for a text encoder whose embedding has `rows` rows: a prompt with an id beyond them is an error.
    #[must_use]
    pub fn with_vocab_size(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// How many special tokens stand around every prompt.
    pub(crate) fn special_tokens(&self) -> usize {
        self.engine.template.special()
    }

    /// The longest sequence the model was made for, when its configuration says.
    #[must_use]
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// The id that fills up short prompts.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// One more than the highest id: what the embedding must have rows for.
    #[must_use]
    pub fn id_bound(&self) -> usize {
        self.engine.id_bound()
    }

    fn removed(&self, ids: &[u32]) -> Option<Removed> {
        let shown = ids.get(..SHOWN_TOKENS).unwrap_or(ids);
        // CLIP marks the end of a word inside its tokens.
        let text = self.engine.decode(shown).unwrap_or_default();
        let text = text.replace("</w>", " ");
        (!ids.is_empty()).then(|| Removed {
            tokens: ids.len(),
            text: text.trim().to_owned(),
        })
    }

    /// Adds the special tokens of `tokenizer_config.json` and its like to `engine`, as transformers does.
    pub(super) fn finish(
        mut engine: Engine,
        special: &added::SpecialTokens,
        source: &ModelSource,
        component: &str,
        shown: String,
    ) -> Result<Self> {
        let bad = |reason: String| Error::bad_file(source.shown(component), reason);
        engine.add(special.to_add(&engine.added)).map_err(bad)?;
        let pad = special
            .pad()
            .ok_or_else(|| bad("no pad_token: prompts cannot be padded".into()))?;
        let pad_id = engine
            .id(pad)
            .ok_or_else(|| bad(format!("pad_token `{}` has no id", shorten(pad))))?;
        Ok(Self {
            engine: Arc::new(engine),
            rows: usize::MAX,
            pad_id,
            model_max_length: special.model_max_length(),
            pads_left: special.pads_left,
            truncates_left: special.truncates_left,
            shown,
        })
    }
}

/// Runs `call`, which leads into the tokenizers library; a panic there on a file that it cannot handle is an error.
///
/// It runs on a thread called `tokenizer`, by which a program's panic hook tells such a panic from its own faults.
pub(super) fn guarded<T: Send>(shown: &str, call: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tokenizer".into());
        match thread.spawn_scoped(scope, call) {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|panic| Err(panicked(shown, panic.as_ref()))),
            Err(error) => Err(refused_thread(&format!("tokenizing with {shown}"), &error)),
        }
    })
}

fn panicked(shown: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = shorten(text.unwrap_or("no message"));
    let reason = format!("the tokenizers library cannot handle these files: {text}");
    Error::bad_file(shown, reason)
}
