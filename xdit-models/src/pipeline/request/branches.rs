//! The prompts of each branch of guidance for each text encoder, one per prompt of the request.

use super::fields::Request;
use crate::error::{Error, Result};

impl Request {
    /// The prompts of both text encoders, and of both for the negative branch when it runs; each list as long as
    /// `prompt`.
    pub(crate) fn branches(&self) -> Result<Branches> {
        let count = self.prompt.len();
        let second = |list: &Option<Vec<String>>, first: &[String]| match list {
            Some(list) => of_each(list, count),
            None => first.to_vec(),
        };
        let prompt = self.prompt.clone();
        let prompt_2 = second(&self.prompt_2, &prompt);
        let negative = match &self.negative_prompt {
            Some(list) => {
                let first = of_each(list, count);
                let second = second(&self.negative_prompt_2, &first);
                (self.true_cfg_scale > 1.0).then_some([first, second])
            }
            None if self.negative_prompt_2.is_some() => {
                return Err(Error::invalid(
                    "negative_prompt_2",
                    "prompts without `negative_prompt`",
                    "left out, or given together with `negative_prompt`",
                ));
            }
            None => None,
        };
        Ok(Branches {
            positive: [prompt, prompt_2],
            negative,
        })
    }
}

/// Prompts of the first and second text encoder, one per entry of the batch.
#[derive(Debug)]
pub(crate) struct Branches {
    pub(crate) positive: [Vec<String>; 2],
    pub(crate) negative: Option<[Vec<String>; 2]>,
}

/// Prompts of the three text encoders of Stable Diffusion 3, one per entry of the batch.
#[derive(Debug)]
pub(crate) struct Branches3 {
    pub(crate) positive: [Vec<String>; 3],
    pub(crate) negative: Option<[Vec<String>; 3]>,
}

impl Request {
    /// The prompts of all three text encoders, and the negative ones where there is guidance; each list as long as
    /// `prompt`. A missing second or third prompt is the first; a missing negative one is empty.
    pub(crate) fn branches_3(&self, guidance: bool) -> Branches3 {
        let count = self.prompt.len();
        // diffusers treats an empty string as no prompt.
        let list = |list: &Option<Vec<String>>, first: &[String]| match list {
            Some(list) if list.len() != 1 || !list[0].is_empty() => of_each(list, count),
            _ => first.to_vec(),
        };
        let prompt = self.prompt.clone();
        let nothing = vec![String::new(); count];
        let first = list(&self.negative_prompt, &nothing);
        let second = list(&self.negative_prompt_2, &first);
        let third = list(&self.negative_prompt_3, &first);
        Branches3 {
            positive: [
                prompt.clone(),
                list(&self.prompt_2, &prompt),
                list(&self.prompt_3, &prompt),
            ],
            negative: guidance.then_some([first, second, third]),
        }
    }
}

/// Returns one prompt for each of `count`. [`Request::check`] has checked that there are one or `count` prompts.
fn of_each(list: &[String], count: usize) -> Vec<String> {
    match list {
        [one] => vec![one.clone(); count],
        several => several.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_negative_prompt_serves_all() {
        let request = Request::new(["a", "b"])
            .negative_prompt(["c"])
            .true_cfg_scale(2.0);
        let branches = request.branches().unwrap();
        assert_eq!(branches.positive[1], ["a", "b"]);
        assert_eq!(branches.negative.unwrap()[1], ["c", "c"]);
        // Without a scale above 1 diffusers runs one branch.
        let request = Request::new("a").negative_prompt(["c"]);
        assert!(request.branches().unwrap().negative.is_none());
        let request = Request::new("a").negative_prompt_2(["c"]);
        let error = request.branches().unwrap_err().to_string();
        assert!(error.starts_with("`negative_prompt_2`"), "{error}");
    }
}
