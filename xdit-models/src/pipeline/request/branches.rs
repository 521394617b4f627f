//! The prompts of each branch of guidance, for each text encoder, as many as there are prompts.

use super::Request;
use crate::error::{Error, Result};

impl Request {
    /// The prompts of both text encoders, and of both for the negative branch when it runs; each list as long as
    /// `prompt`.
    pub(crate) fn branches(&self) -> Result<Branches> {
        let count = self.prompt.len();
        if count == 0 {
            return Err(Error::invalid("prompt", "nothing", "at least one prompt"));
        }
        let partition = |argument, list: &[String]| partition(argument, list, count);
        let second = |argument, list: &Option<Vec<String>>, first: &[String]| match list {
            Some(list) => partition(argument, list),
            None => Ok(first.to_vec()),
        };
        let prompt = self.prompt.clone();
        let prompt_2 = second("prompt_2", &self.prompt_2, &prompt)?;
        let negative = match &self.negative_prompt {
            Some(list) => {
                let first = partition("negative_prompt", list)?;
                let second = second("negative_prompt_2", &self.negative_prompt_2, &first)?;
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
    pub(crate) fn branches_3(&self, guidance: bool) -> Result<Branches3> {
        let count = self.prompt.len();
        if count == 0 {
            return Err(Error::invalid("prompt", "nothing", "at least one prompt"));
        }
        // diffusers takes an empty string for none.
        let list = |argument, list: &Option<Vec<String>>, first: &[String]| match list {
            Some(list) if list.len() != 1 || !list[0].is_empty() => {
                partition(argument, list, count)
            }
            _ => Ok(first.to_vec()),
        };
        let prompt = self.prompt.clone();
        let nothing = vec![String::new(); count];
        let negative = list("negative_prompt", &self.negative_prompt, &nothing)?;
        let negative = [
            list("negative_prompt_2", &self.negative_prompt_2, &negative)?,
            list("negative_prompt_3", &self.negative_prompt_3, &negative)?,
            negative,
        ];
        let [second, third, first] = negative;
        Ok(Branches3 {
            positive: [
                prompt.clone(),
                list("prompt_2", &self.prompt_2, &prompt)?,
                list("prompt_3", &self.prompt_3, &prompt)?,
            ],
            negative: guidance.then_some([first, second, third]),
        })
    }
}

/// One prompt for each of `count`.
fn partition(argument: &'static str, list: &[String], count: usize) -> Result<Vec<String>> {
    match list.len() {
        n if n == count => Ok(list.to_vec()),
        1 => Ok(vec![list[0].clone(); count]),
        n => Err(Error::invalid(
            argument,
            format!("{n} prompts"),
            format!("1 prompt or {count}, as many as `prompt`"),
        )),
    }
}
