//! A loaded tokenizer: converts prompts to ids.

use std::any::Any;
use std::sync::Arc;

use super::added;
use super::engine::Engine;
use super::limits::MAX_PROMPT_BYTES;
use crate::error::{Error, Result, shorten};
use crate::files::source::ModelSource;
use crate::pipeline::memory_limit::refused_thread;

/// The largest number of cut tokens that are converted back to text.
const SHOWN_TOKENS: usize = 64;

/// Converts prompts to token ids, like the transformers class of the same name.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    engine: Arc<Engine>,
    /// The name of the tokenizer in messages: its folder or file.
    shown: String,
    pad_id: u32,
    model_max_length: Option<usize>,
    /// Whether padding comes before the prompt.
    pads_left: bool,
    /// Whether a long prompt is cut at its start.
    truncates_left: bool,
    /// The number of rows of the text encoder's vocabulary, if it is known.
    rows: usize,
}

/// A prompt as token ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// Exactly the requested number of ids: those of the prompt, the special tokens around it, and padding.
    pub ids: Vec<u32>,
    /// The number of ids that are not padding.
    pub len: usize,
    /// The index of the first of these: 0, unless the tokenizer pads on the left.
    pub start: usize,
    /// The part of the prompt that did not fit.
    pub removed: Option<Removed>,
}

impl Encoded {
    /// Returns which ids are not padding: transformers' `attention_mask`.
    pub fn attention_mask(&self) -> impl Iterator<Item = bool> {
        let seen = self.start..self.start + self.len;
        (0..self.ids.len()).map(move |i| seen.contains(&i))
    }
}

/// The part of a prompt that was cut off: its end, or its start if the tokenizer cuts on the left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// The number of its tokens.
    pub tokens: usize,
    /// Its text, or the start of a long text.
    pub text: String,
}

impl Tokenizer {
    /// Returns the ids of `prompt`: its start, with special tokens, padded to `max_length`. If the files say so, the tokenizer
    /// cuts or pads on the left.
    ///
    /// # Shapes
    /// [`Encoded::ids`] has `max_length` entries.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if `max_length` is smaller than the number of special tokens, or the prompt is longer than 1
    /// MiB; [`Error::BadFile`] if the tokenizer needs a token for unknown characters but has none, makes a text that is more
    /// than 16 times as long as the prompt, or takes too long.
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

    /// Sets the number of rows of the text encoder's embedding. A prompt with an id beyond it is an error.
    #[must_use]
    pub fn with_vocab_size(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// Returns the number of special tokens around every prompt.
    pub(crate) fn special_tokens(&self) -> usize {
        self.engine.template.special()
    }

    /// Returns the longest sequence of the model, if its configuration contains it.
    #[must_use]
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Returns the id of padding.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Returns the highest id plus one, which is the number of rows that the embedding needs.
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

    /// Adds the special tokens of `tokenizer_config.json` and similar files to `engine`, as transformers does.
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

/// Runs `call` of the tokenizers library. A panic of the library on a file that it cannot handle is an error.
///
/// The call runs on a thread named `tokenizer`, so that the panic hook of a program can distinguish such a panic from its own.
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
