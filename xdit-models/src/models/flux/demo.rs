//! What the demo pipeline was made for: its words and its size (`demo/README.md`).

use std::collections::BTreeSet;

use crate::pipeline::request::Request;
use crate::quote;

/// The words of the captions that it was trained with.
const WORDS: &str = "a above an at background below black blue bottom brown center checkered circle cross cyan diamond gray \
                     green heart in large left of on orange pink purple red right ring small square star striped the to top \
                     triangle white yellow";

/// Height and width of the pictures that it was trained with.
const SIZE: [usize; 2] = [256, 256];

/// Warnings for a size that the demo was not made for, and for words that it does not know.
pub(super) fn warnings(request: &Request, [height, width]: [usize; 2]) -> Vec<String> {
    let mut warnings = Vec::new();
    if [height, width] != SIZE {
        let [h, w] = SIZE;
        warnings.push(format!(
            "the demo was trained on pictures of {h} × {w} only: at {height} × {width} it may not draw what the prompt says"
        ));
    }
    let lists = [Some(&request.prompt), request.prompt_2.as_ref()];
    let negative = [&request.negative_prompt, &request.negative_prompt_2];
    let lists = lists.into_iter().chain(negative.map(Option::as_ref));
    let mut seen: BTreeSet<&str> = WORDS.split(' ').collect();
    let mut unknown: Vec<&str> = Vec::new();
    for text in lists.flatten().flatten() {
        let words = text.split(|c: char| !c.is_alphanumeric());
        unknown.extend(words.filter(|word| !word.is_empty() && seen.insert(*word)));
    }
    if !unknown.is_empty() {
        let list = quote::reason(&unknown.join(", "));
        warnings.push(format!(
            "the demo draws coloured shapes, such as `a yellow square on a blue background`; it does not know {list}"
        ));
    }
    warnings
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::files::source::ModelSource;

    #[test]
    fn the_words_are_those_of_its_tokenizer() {
        let demo = ModelSource::demo();
        let file = demo.read("tokenizer_2/tokenizer.json", 1 << 20);
        let json: serde_json::Value = serde_json::from_slice(&file.unwrap()).unwrap();
        let pieces = json["model"]["vocab"].as_array().unwrap().iter();
        let pieces = pieces.filter_map(|piece| piece[0].as_str()?.strip_prefix('▁'));
        let words: BTreeSet<&str> = pieces.filter(|word| !word.is_empty()).collect();
        assert_eq!(WORDS.split(' ').collect::<BTreeSet<_>>(), words);
    }
}
