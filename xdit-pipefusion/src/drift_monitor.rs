//! Measures the drift of a run, and decides which steps run whole because of it.

use crate::kept::Change;
use crate::{Driver, Error, Part, Report};
use std::collections::VecDeque;
use std::ops::Range;
use xdit_comm::{Group, Pending};
use xdit_kernels::sums::RunningSums;

/// Decides which steps run whole, and collects the drift of each.
pub(crate) struct DriftMonitor<'a> {
    driver: &'a Driver,
    /// The ranks that decide together.
    replica: Option<&'a Group>,
    /// The two numbers of each step's [`Change`] on this rank, as running sums. `None` while nothing was compared.
    own: Option<RunningSums>,
    /// Steps whose drift is being exchanged, if it is exchanged step by step.
    under_way: VecDeque<Pending<Vec<Vec<u8>>>>,
    report: Report,
}

impl<'a> DriftMonitor<'a> {
    pub(crate) fn new(driver: &'a Driver) -> Self {
        // Discards measurements of an earlier run that failed.
        driver.kept.take_change();
        Self {
            driver,
            replica: driver.replica.as_ref().or(driver.pipe.as_ref()),
            own: None,
            under_way: VecDeque::new(),
            report: Report {
                // Nothing of an earlier run is known.
                drift: vec![None; driver.first_step.min(driver.schedule.steps)],
                ..Report::default()
            },
        }
    }

    /// Returns whether the parts of a step depend on earlier measurements.
    pub(crate) fn decides(&self) -> bool {
        self.driver.max_drift.is_some() && self.driver.schedule.patches > 1
    }

    /// Returns the parts of a step. If the monitor [`decides`](Self::decides), the first leg asks for them when it has the
    /// input of the last turn of the previous step.
    pub(crate) fn parts(&mut self, step: usize) -> Result<Vec<Part>, Error> {
        let schedule = &self.driver.schedule;
        let whole = schedule.is_whole(step) || step == self.driver.first_step;
        let refresh = !whole && self.has_drifted(step)?;
        if refresh {
            self.report.refreshed.push(step);
        }
        if refresh || whole {
            self.report.whole.push(step);
            return Ok(vec![Part::Whole]);
        }
        Ok(schedule.parts(step))
    }

    /// Returns whether the newest drift that every rank knows before a step is above the limit.
    fn has_drifted(&mut self, step: usize) -> Result<bool, Error> {
        let (Some(limit), Some(before)) = (self.driver.max_drift, step.checked_sub(2)) else {
            return Ok(false);
        };
        // The previous step is still in the pipeline. The input of this rank's last turn of it arrives after all ranks have
        // finished the step before that one, so the wait for their sums delays no rank.
        self.collect_until(before)?;
        let drift = self.report.drift.get(before).copied().flatten();
        Ok(drift.is_some_and(|drift| drift > limit || drift.is_nan()))
    }

    /// Records that blocks of a step were computed: of the next step that ends, or of the one after it in a folded pipeline.
    pub(crate) fn computed(&mut self, step: usize) -> Result<(), Error> {
        let Some(change) = self.driver.kept.take_change() else {
            return Ok(());
        };
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(RunningSums::zeros(
                2 * self.driver.schedule.steps,
                change.device(),
            )?),
        };
        Ok(own.add(2 * step, &change)?)
    }

    /// Returns this rank's measurements of some steps: for each step the sum of changes and the norm. This is a host read.
    fn own_blocking(&self, steps: Range<usize>) -> Result<Vec<f64>, Error> {
        Ok(match &self.own {
            Some(own) => own.to_vec_blocking(2 * steps.start..2 * steps.end)?,
            None => vec![0.0; 2 * steps.len()],
        })
    }

    /// Records that this rank has finished a step.
    pub(crate) fn step_end(&mut self, step: usize) -> Result<(), Error> {
        if self.decides() {
            let own = self.own_blocking(step..step + 1)?;
            match self.replica {
                None => self.report.drift.push(Change::of(&own).relative()),
                Some(replica) => {
                    let sums = replica.control().start_all_gather_f64(&own)?;
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
        let sums = self.own_blocking(0..schedule.steps)?;
        let of_ranks = match self.replica {
            Some(replica) => replica.control().all_gather_f64(&sums)?,
            None => vec![sums],
        };
        self.report.drift = relative(&total(of_ranks));
        Ok(self.report)
    }
}

/// Adds the sums of all ranks in f32, in rank order, so that all ranks and all backends get the same drift.
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

/// Computes the drift of each step from its two sums.
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
    use xdit_kernels::{Device, Tensor};

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
            first_step: 0,
        }
    }

    fn change(fresh: f32, stale: f32) -> RunningSums {
        let device = &Device::cpu();
        let tensor = |value: f32| Tensor::from_slice(&[value], [1, 1], device).unwrap();
        let mut change = RunningSums::zeros(2, device).unwrap();
        change
            .add_distance(0, &tensor(fresh), &tensor(stale), 0, 1)
            .unwrap();
        change
    }

    #[test]
    fn what_a_failed_run_measured_is_not_the_next_ones() {
        for max_drift in [None, Some(0.0)] {
            let driver = driver(max_drift);
            driver.kept.changed(change(1.0, 2.0)).unwrap();
            let mut watch = DriftMonitor::new(&driver);
            for step in 0..4 {
                watch.parts(step).unwrap();
                watch.computed(step).unwrap();
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
                driver.kept.changed(change(f32::NAN, 1.0)).unwrap();
            }
            watch.computed(step).unwrap();
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
