//! Which ranks of a call are on which device, and which blocks of the model each device needs.

use xdit_kernels::Device;
use xdit_pipefusion::{Blocks, StagePlan};

use crate::ranks::axes;
use crate::ranks::degrees::Degrees;
use crate::ranks::parallel::{Parallel, RankBackend};

/// The ranks of this process and their devices.
#[derive(Debug)]
pub(crate) struct RankDevices {
    /// The device of the pipeline, which encodes prompts and gets the images.
    own: Device,
    /// By rank.
    ranks: Vec<(usize, Device)>,
    degrees: Degrees,
}

impl RankDevices {
    /// `own` is the device of the pipeline.
    pub(crate) fn new(parallel: &Parallel, own: &Device) -> Self {
        let ranks = match &parallel.backend {
            RankBackend::Threads { .. } => {
                let devices = parallel.device_of_each(own);
                devices.into_iter().enumerate().collect()
            }
            RankBackend::Group(group) => vec![(group.rank(), own.clone())],
        };
        Self {
            own: own.clone(),
            ranks,
            degrees: parallel.degrees,
        }
    }

    /// Returns each device once: that of the pipeline, then the others in the order of their first ranks.
    pub(crate) fn devices(&self) -> Vec<&Device> {
        let mut devices = vec![&self.own];
        for (_, device) in &self.ranks {
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        devices
    }

    /// Returns the device of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Device> {
        let mut devices = self.devices().into_iter();
        devices.find(|device| device.to_string() == name)
    }

    /// Returns the ranks on a device.
    pub(crate) fn ranks_on(&self, device: &Device) -> Vec<usize> {
        let here = self.ranks.iter().filter(|(_, of)| of == device);
        here.map(|(rank, _)| *rank).collect()
    }

    /// Returns the blocks that a device holds: those of the stage of its ranks, or `all` if they are of several stages.
    pub(crate) fn blocks_on(&self, device: &Device, stages: &StagePlan, all: Blocks) -> Blocks {
        let here = self.ranks_on(device).into_iter();
        let mut found = here.map(|rank| self.degrees.coord(rank, axes::PIPE));
        // Without ranks, the device of the pipeline embeds, which needs no certain block.
        let first = found.next().unwrap_or(0);
        match self.degrees.pipe > 1 && found.all(|stage| stage == first) {
            true => stages.blocks(first),
            false => all,
        }
    }
}
