//! The table of model families.

use crate::error::Result;
use crate::files::config::ConfigFile;
use crate::files::model_index::PipelineClass;
use crate::files::source::ModelSource;
use crate::models::{flux, hunyuandit, sd3};
use crate::observer::Observer;
use crate::pipeline::configurations::TransformerFacts;
use crate::pipeline::family::{self, AnyPipeline, Family};
use crate::pipeline::options::LoadOptions;
use crate::pipeline::request::Request;
use crate::pipeline::run_plan::RunPlan;
use crate::pipeline::store::Later;
use crate::ranks::parallel::Parallel;
#[cfg(test)]
use crate::text::EncoderSize;

/// A row for each class, in the order of [`PipelineClass`].
static FAMILIES: [FamilyEntry; PipelineClass::ALL.len()] = [
    entry::<flux::Configs>(),
    entry::<sd3::Configs>(),
    entry::<hunyuandit::Configs>(),
];

/// What is done with a family that is known by the class of its pipeline, or of its transformer.
pub(crate) struct FamilyEntry {
    class: PipelineClass,
    transformer: &'static str,
    /// What a transformer's configuration says about it.
    pub(crate) facts: fn(&ConfigFile) -> Result<TransformerFacts>,
    /// [`family::load`].
    pub(crate) load: LoadFn,
    /// [`family::plan`].
    pub(crate) plan: PlanFn,
    /// What each text encoder of the pipeline takes in memory.
    #[cfg(test)]
    pub(crate) encoder_sizes: fn(&ModelSource) -> Result<Vec<EncoderSize>>,
}

type LoadFn =
    fn(&ModelSource, &LoadOptions, Later, &mut dyn Observer) -> Result<Box<dyn AnyPipeline>>;
type PlanFn = fn(&ModelSource, &LoadOptions, &Request, &Parallel) -> Result<RunPlan>;

const fn entry<F: Family>() -> FamilyEntry {
    FamilyEntry {
        class: F::CLASS,
        transformer: F::TRANSFORMER,
        facts: F::facts,
        load: family::load::<F>,
        plan: family::plan::<F>,
        #[cfg(test)]
        encoder_sizes: |source| Ok(F::read(source)?.encoder_sizes()),
    }
}

/// The family of a pipeline.
pub(crate) fn of_class(class: PipelineClass) -> &'static FamilyEntry {
    let family = &FAMILIES[class as usize];
    debug_assert_eq!(family.class, class);
    family
}

/// The family of a transformer, by its Python class.
pub(crate) fn of_transformer(class: &str) -> Option<&'static FamilyEntry> {
    FAMILIES.iter().find(|family| family.transformer == class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_row() {
        for (name, class) in PipelineClass::ALL {
            assert_eq!((of_class(*class).class, class.name()), (*class, *name));
        }
        let found = of_transformer("SD3Transformer2DModel");
        assert!(found.is_some_and(|family| family.class == PipelineClass::Sd3));
        assert!(of_transformer("AutoencoderKL").is_none());
    }
}
