//! Other crates' errors as this crate's.

use super::Error;

impl From<xdit_cfg::Error> for Error {
    fn from(error: xdit_cfg::Error) -> Self {
        use xdit_cfg::Error as Cfg;
        match error {
            Cfg::Scale {
                name,
                expected,
                got,
            } => Self::invalid(name, got, expected),
            Cfg::Degree { got } => Self::invalid("cfg_degree", got, "1 or 2"),
            Cfg::OneBranch { .. } => {
                let allowed = "1, because guidance has one branch here: the second one needs a `guidance_scale` above 1 (Flux: \
                               `negative_prompt` and a `true_cfg_scale` above 1)";
                Self::invalid("cfg_degree", 2, allowed)
            }
            Cfg::Comm(error) => error.into(),
            Cfg::Kernel(error) => error.into(),
            other => Self::Kernel(xdit_kernels::Error::shape(
                "guidance",
                "fitting parts",
                format_args!("{other}"),
            )),
        }
    }
}

impl From<xdit_usp::Error> for Error {
    fn from(error: xdit_usp::Error) -> Self {
        match error {
            xdit_usp::Error::Comm(error) => error.into(),
            other => xdit_kernels::Error::from(other).into(),
        }
    }
}

impl From<xdit_pipefusion::Error> for Error {
    fn from(error: xdit_pipefusion::Error) -> Self {
        use xdit_pipefusion::{Error as Pipeline, What};
        match error {
            Pipeline::Plan {
                what,
                found,
                allowed,
            } => {
                let argument = match what {
                    What::Patches => "num_pipeline_patch",
                    What::Stages => "pipefusion_parallel_degree",
                    What::Blocks => "attn_layer_num_for_pp",
                    _ => "pipefusion",
                };
                Self::invalid(argument, found, allowed)
            }
            Pipeline::Comm(error) => error.into(),
            Pipeline::Kernel(error) => error.into(),
            Pipeline::Other(own) => of_others(own),
            other => Self::Kernel(xdit_kernels::Error::shape(
                "pipefusion",
                "fitting parts",
                format_args!("{other}"),
            )),
        }
    }
}

impl From<xdit_comm::Error> for Error {
    fn from(error: xdit_comm::Error) -> Self {
        match error {
            xdit_comm::Error::Other(own) => of_others(own),
            error => Self::Comm(error),
        }
    }
}

impl From<xdit_kernels::Error> for Error {
    fn from(error: xdit_kernels::Error) -> Self {
        match error {
            xdit_kernels::Error::Other(own) => of_others(own),
            error => Self::Kernel(error),
        }
    }
}

/// An error that came through the error type of another crate, whose traits the ranks' code implements.
fn of_others(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(own) => return *own,
        Err(error) => error,
    };
    let error = match error.downcast::<xdit_kernels::Error>() {
        Ok(kernel) => return (*kernel).into(),
        Err(error) => error,
    };
    match error.downcast::<xdit_comm::Error>() {
        Ok(comm) => (*comm).into(),
        Err(error) => Error::Other(error),
    }
}
