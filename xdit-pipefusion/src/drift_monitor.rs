//! What is measured of a run, and which steps run whole because of it.

use crate::kept::Change;
use crate::{Driver, Error, Part, Report};
use std::collections::VecDeque;
use xdit_comm::{Group, Pending};

/// Decides which steps run whole, and collects the drift of each.
pub(crate) struct DriftMonitor<'a> {
    driver: &'a Driver,
    /// Who decides together.
    replica: Option<&'a Group>,
    /// Of each step so far, on this rank.
    own: Vec<Change>,
    /// Steps whose drift is on its way, when it is exchanged step by step.
    under_way: VecDeque<Pending<Vec<Vec<u8>>>>,
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
                    let sums = replica.control().start_all_gather_f64(&numbers(&change))?;
                    self.under_way.push_back(sums);
                }
            }
        }
        Ok(())
    }

    fn collect_until(&mut self, step: usize) -> Result<(), Error> {
        let Some(replica) = self.replica else {
            return Ok(());
        };
        while self.report.drift.len() <= step {
            let Some(sums) = self.under_way.pop_front() else {
                break;
            };
            let of_ranks = sums.wait()?;
            let of_ranks = of_ranks.iter().map(|sums| replica.control().numbers(sums));
            let sums = total(of_ranks.collect::<Result<_, _>>()?);
            self.report.drift.extend(relative(&sums));
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
        let sums: Vec<f64> = self.own.iter().flat_map(numbers).collect();
        let of_ranks = match self.replica {
            Some(replica) => replica.control().all_gather_f64(&sums)?,
            None => vec![sums],
        };
        self.report.drift = relative(&total(of_ranks));
        Ok(self.report)
    }
}

/// What a rank tells of a step: moved and norm.
fn numbers(change: &Change) -> [f64; 2] {
    [change.moved, change.norm]
}

/// The sums of all ranks, added in rank order in f32, so that a drift is one number on every rank and with every backend.
fn total(of_ranks: Vec<Vec<f64>>) -> Vec<f32> {
    let mut of_ranks = of_ranks.into_iter();
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let mut total = of_ranks.next().map(narrow).unwrap_or_default();
    for sums in of_ranks {
        for (sum, x) in total.iter_mut().zip(narrow(sums)) {
            *sum += x;
        }
    }
    total
}

/// The drift of each step out of sums, moved and norm in turn.
fn relative(sums: &[f32]) -> Vec<Option<f32>> {
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
