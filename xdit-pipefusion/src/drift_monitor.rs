//! What is measured of a run, and which steps run whole because of it.

use crate::kept::Change;
use crate::{Driver, Error, Part, Report};
use std::collections::VecDeque;
use xdit_comm::{Group, Pending, ReduceOp};
use xdit_kernels::Tensor;

/// Decides which steps run whole, and collects the drift of each.
pub(crate) struct DriftMonitor<'a> {
    driver: &'a Driver,
    /// Who decides together.
    replica: Option<&'a Group>,
    /// Of each step so far, on this rank.
    own: Vec<Change>,
    /// Steps whose drift is on its way, when it is exchanged step by step.
    under_way: VecDeque<Pending>,
    report: Report,
}

impl<'a> DriftMonitor<'a> {
    pub(crate) fn new(driver: &'a Driver) -> Self {
        // What an earlier run that failed has left.
        driver.kept.take_change();
        Self {
            driver,
            replica: driver.replica.as_ref().or(driver.pipe.as_ref()),
            own: Vec::new(),
            under_way: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Whether a step's parts depend on what earlier ones have shown.
    pub(crate) fn decides(&self) -> bool {
        self.driver.max_drift.is_some() && self.driver.schedule.patches > 1
    }

    /// The parts of a step. Where [`decides`](Self::decides), asked for when the input of the last turn of the step before
    /// has come, on the first leg.
    pub(crate) fn parts(&mut self, step: usize) -> Result<Vec<Part>, Error> {
        let schedule = &self.driver.schedule;
        let refresh = !schedule.is_whole(step) && self.has_drifted(step)?;
        if refresh {
            self.report.refreshed.push(step);
        }
        if refresh || schedule.is_whole(step) {
            self.report.whole.push(step);
            return Ok(vec![Part::Whole]);
        }
        Ok(schedule.parts(step))
    }

    /// Whether the newest drift that every rank knows before a step is above the limit.
    fn has_drifted(&mut self, step: usize) -> Result<bool, Error> {
        let (Some(limit), Some(before)) = (self.driver.max_drift, step.checked_sub(2)) else {
            return Ok(false);
        };
        // The step before is still in the pipeline. This rank's input of its last turn comes after all ranks have ended the
        // one before that, so waiting for their sums holds up no one.
        self.collect_until(before)?;
        let drift = self.report.drift[before];
        Ok(drift.is_some_and(|drift| drift > limit || drift.is_nan()))
    }

    /// Blocks have been computed, of a step: the one that is to end next, or the one after it where the pipeline is folded.
    pub(crate) fn computed(&mut self, step: usize) {
        if self.own.len() <= step {
            self.own.resize(step + 1, Change::default());
        }
        let change = self.driver.kept.take_change();
        self.own[step].moved += change.moved;
        self.own[step].norm += change.norm;
    }

    /// This rank is through with a step.
    pub(crate) fn step_end(&mut self, step: usize) -> Result<(), Error> {
        let change = self.own[step];
        if self.decides() {
            match self.replica {
                None => self.report.drift.push(change.relative()),
                Some(replica) => {
                    let sums = Tensor::from_slice(&[change.moved as f32, change.norm as f32], [2])?;
                    self.under_way
                        .push_back(replica.start_all_reduce(&sums, ReduceOp::Sum)?);
                }
            }
        }
        Ok(())
    }

    fn collect_until(&mut self, step: usize) -> Result<(), Error> {
        while self.report.drift.len() <= step {
            let Some(sums) = self.under_way.pop_front() else {
                break;
            };
            self.report.drift.extend(relative(&sums.wait_one()?));
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Report, Error> {
        let schedule = &self.driver.schedule;
        if schedule.patches <= 1 || schedule.steps == 0 {
            self.report.drift = vec![None; schedule.steps];
            return Ok(self.report);
        }
        if self.decides() {
            self.collect_until(schedule.steps - 1)?;
            return Ok(self.report);
        }
        let sums: Vec<f32> = self
            .own
            .iter()
            .flat_map(|c| [c.moved as f32, c.norm as f32])
            .collect();
        let mut sums = Tensor::from_slice(&sums, [sums.len()])?;
        if let Some(replica) = self.replica {
            sums = replica.all_reduce(&sums, ReduceOp::Sum)?;
        }
        self.report.drift = relative(&sums);
        Ok(self.report)
    }
}

/// The drift of each step out of sums, moved and norm in turn.
fn relative(sums: &Tensor) -> Vec<Option<f32>> {
    let sums = sums.to_f32_vec();
    let changes = sums.chunks_exact(2).map(|pair| Change {
        moved: f64::from(pair[0]),
        norm: f64::from(pair[1]),
    });
    changes.map(|change| change.relative()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kept, Placement, Schedule};

    fn driver(max_drift: Option<f32>) -> Driver {
        Driver {
            schedule: Schedule {
                steps: 4,
                warmup_steps: 0,
                patches: 2,
            },
            pipe: None,
            placement: Placement::Linear,
            replica: None,
            max_drift,
            kept: Kept::default(),
        }
    }

    fn change(fresh: f32, stale: f32) -> Change {
        let mut change = Change::default();
        change.add(fresh, stale);
        change
    }

    #[test]
    fn what_a_failed_run_measured_is_not_the_next_ones() {
        for max_drift in [None, Some(0.0)] {
            let driver = driver(max_drift);
            driver.kept.changed(change(1.0, 2.0));
            let mut watch = DriftMonitor::new(&driver);
            for step in 0..4 {
                watch.parts(step).unwrap();
                watch.computed(step);
                watch.step_end(step).unwrap();
            }
            assert_eq!(watch.finish().unwrap().drift, [None; 4]);
        }
    }

    #[test]
    fn a_drift_that_is_no_number_is_above_any_limit() {
        let driver = driver(Some(f32::INFINITY));
        let mut watch = DriftMonitor::new(&driver);
        for step in 0..4 {
            watch.parts(step).unwrap();
            if step == 1 {
                driver.kept.changed(change(f32::NAN, 1.0));
            }
            watch.computed(step);
            watch.step_end(step).unwrap();
        }
        let report = watch.finish().unwrap();
        assert_eq!(
            (report.whole, report.refreshed),
            (vec![0, 3], vec![3]),
            "step 3 knows of step 1"
        );
    }
}
