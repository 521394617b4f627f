//! The values that the Rust API accepts as prompts.

use std::borrow::Cow;

/// One prompt or a list of prompts: the argument of [`Request::new`](crate::Request::new) and of the other setters of prompts.
///
/// A string of any kind is one prompt. An array, a slice or a vector of strings is a list, with one entry per prompt. An empty
/// string is a prompt too, and is drawn. An empty list is refused when the request is checked.
///
/// For an iterator, collect it into a `Vec` first.
///
/// # Examples
/// ```
/// use xdit_models::{IntoPrompts, Request};
/// assert_eq!(Request::new("a red circle").prompt, ["a red circle"]);
/// assert_eq!(Request::new(["a red circle", "a star"]).prompt.len(), 2);
///
/// let words = vec![String::from("circle"), String::from("star")];
/// let numbered: Vec<String> = words.iter().map(|word| format!("a red {word}")).collect();
/// assert_eq!(Request::new(&numbered).prompt, numbered);
/// assert_eq!(Request::new(numbered).prompt_2(&words[..]).prompt_2, Some(words));
/// assert_eq!("".into_prompts(), [""]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a prompt or a list of prompts",
    label = "expected a string, or an array, a slice or a `Vec` of strings",
    note = "an iterator of strings can be collected first: `.collect::<Vec<_>>()`"
)]
pub trait IntoPrompts {
    /// Returns the prompts in order.
    fn into_prompts(self) -> Vec<String>;
}

impl IntoPrompts for &str {
    fn into_prompts(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoPrompts for String {
    fn into_prompts(self) -> Vec<String> {
        vec![self]
    }
}

impl IntoPrompts for &String {
    fn into_prompts(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl IntoPrompts for Cow<'_, str> {
    fn into_prompts(self) -> Vec<String> {
        vec![self.into_owned()]
    }
}

impl<S: Into<String>> IntoPrompts for Vec<S> {
    fn into_prompts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<S: Into<String>, const N: usize> IntoPrompts for [S; N] {
    fn into_prompts(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<S: AsRef<str>> IntoPrompts for &[S] {
    fn into_prompts(self) -> Vec<String> {
        self.iter().map(|text| text.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<str>> IntoPrompts for &Vec<S> {
    fn into_prompts(self) -> Vec<String> {
        self.as_slice().into_prompts()
    }
}

impl<S: AsRef<str>, const N: usize> IntoPrompts for &[S; N] {
    fn into_prompts(self) -> Vec<String> {
        self.as_slice().into_prompts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    #[test]
    fn every_kind_of_string_is_one_prompt() {
        let owned = String::from("a red circle");
        for request in [
            Request::new("a red circle"),
            Request::new(&owned),
            Request::new(owned.as_str()),
            Request::new(Cow::Borrowed("a red circle")),
            Request::new(owned.clone()),
        ] {
            assert_eq!(request.prompt, ["a red circle"]);
        }
        // Words are not split, and an empty text is a prompt.
        assert_eq!(Request::new("").prompt, [""]);
        assert!(Request::new("").check().is_ok());
    }

    #[test]
    fn every_kind_of_list_keeps_its_order() {
        let both: &[&str; 2] = &["a", "b"];
        let (texts, borrowed) = (vec![String::from("a"), String::from("b")], vec!["a", "b"]);
        for request in [
            Request::new(["a", "b"]),
            Request::new(both),
            Request::new([String::from("a"), String::from("b")]),
            Request::new(&texts),
            Request::new(&texts[..]),
            Request::new(&borrowed),
            Request::new(&borrowed[..]),
            Request::new(borrowed.clone()),
            Request::new(texts.clone()),
        ] {
            assert_eq!(request.prompt, ["a", "b"]);
        }
        let error = Request::new(Vec::<String>::new()).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`prompt` = nothing: must be at least one prompt"
        );
    }

    #[test]
    fn every_setter_of_prompts_takes_one_or_several() {
        let request = Request::new("a")
            .prompt_2("b")
            .prompt_3(["c"])
            .negative_prompt("d")
            .negative_prompt_2(vec!["e"])
            .negative_prompt_3(String::from("f"));
        let of = |list: Option<Vec<String>>| list.unwrap().concat();
        assert_eq!(of(request.prompt_2), "b");
        assert_eq!(of(request.prompt_3), "c");
        assert_eq!(of(request.negative_prompt), "d");
        assert_eq!(of(request.negative_prompt_2), "e");
        assert_eq!(of(request.negative_prompt_3), "f");
    }
}
