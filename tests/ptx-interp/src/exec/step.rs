//! One instruction of one warp.

use crate::exec::barriers::Arrival;
use crate::exec::block::Block;
use crate::exec::collectives::Shuffle;
use crate::exec::products::Factors;
use crate::exec::values::odd;
use crate::exec::warp::{Spin, lanes};
use crate::ir::{Instruction, MbarrierOp, Op};
use crate::report::{Finding, Step, problem};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Ran,
    /// No lane can run.
    Waits,
    /// Lanes found an mbarrier incomplete.
    Looked,
}

impl Block<'_> {
    /// Executes the next instruction of a warp: `next` is what `Warp::next` returned.
    pub(super) fn step(&mut self, w: usize, next: Option<(usize, u32)>) -> Step<Progress> {
        let warp = &mut self.warps[w];
        let Some((pc, group)) = next else {
            if warp.blocked != 0 && warp.at_barrier | warp.stalled == 0 {
                return Err(self.diverged(w));
            }
            return Ok(Progress::Waits);
        };
        warp.blocked &= !group;
        let context = self.context;
        let Some(instruction) = context.entry.code.get(pc) else {
            warp.exit(group);
            return Ok(Progress::Ran);
        };
        let mask = match instruction.guard {
            None => group,
            Some(guard) => {
                let set = odd(&warp.registers[guard.reg as usize]);
                group & if guard.negated { !set } else { set }
            }
        };
        self.stats.count(instruction.class, mask.count_ones());
        if mask == 0 {
            self.warps[w].go(group, pc + 1);
            return Ok(Progress::Ran);
        }
        if !instruction.registers.is_empty() {
            self.spares_products(w, instruction)?;
        }
        self.execute(w, pc, group, mask, instruction)
    }

    fn execute(
        &mut self,
        w: usize,
        pc: usize,
        mut group: u32,
        mut mask: u32,
        instruction: &Instruction,
    ) -> Step<Progress> {
        match &instruction.op {
            Op::Branch { target } => {
                self.warps[w].go(group & !mask, pc + 1);
                self.warps[w].go(mask, *target);
                return Ok(Progress::Ran);
            }
            Op::BranchIndexed { index, targets } => {
                let index = self.fetch(w, *index);
                self.warps[w].go(group & !mask, pc + 1);
                for lane in lanes(mask) {
                    let Some(target) = targets.get(index[lane] as u32 as usize) else {
                        return problem(
                            Finding::Operand,
                            format!("a branch to entry {} of {}", index[lane], targets.len()),
                        );
                    };
                    self.warps[w].go(1 << lane, *target);
                }
                return Ok(Progress::Ran);
            }
            Op::Exit => {
                self.warps[w].go(group & !mask, pc + 1);
                self.warps[w].exit(mask);
                return Ok(Progress::Ran);
            }
            Op::Barrier {
                id,
                threads,
                arrive,
                aligned,
                reduce,
            } => {
                let arrival = Arrival {
                    id: *id,
                    threads: *threads,
                    arrive: *arrive,
                    reduce: *reduce,
                };
                if !aligned || self.together(w, pc, group, mask, u32::MAX) {
                    self.warps[w].go(group & !mask, pc + 1);
                    self.barrier(w, mask, pc, arrival)?;
                }
                return Ok(Progress::Ran);
            }
            op => {
                if let Some((needed, same)) = self.needed(w, mask, op)? {
                    group &= !mask | same;
                    mask = same;
                    if !self.together(w, pc, group, mask, needed) {
                        return Ok(Progress::Ran);
                    }
                }
                if let Op::Mbarrier {
                    op: op @ MbarrierOp::Test { .. },
                    at,
                } = op
                {
                    return self.look(w, pc, group, mask, (op, *at));
                }
                self.effect(w, pc, mask, op)?;
            }
        }
        self.warps[w].go(group, pc + 1);
        Ok(Progress::Ran)
    }

    /// Tests an mbarrier. Lanes that find it incomplete let others run first.
    fn look(
        &mut self,
        w: usize,
        pc: usize,
        group: u32,
        mask: u32,
        (op, at): (&MbarrierOp, crate::ir::Address),
    ) -> Step<Progress> {
        let incomplete = self.mbarrier(w, mask, op, at)?;
        let warp = &mut self.warps[w];
        warp.go(group, pc + 1);
        if incomplete == 0 {
            return Ok(Progress::Ran);
        }
        warp.stalled |= incomplete;
        warp.spin = Some(Spin {
            instruction: pc,
            changes: self.changes,
            since: 0,
        });
        Ok(Progress::Looked)
    }

    /// What an instruction does apart from moving on.
    fn effect(&mut self, w: usize, pc: usize, mask: u32, op: &Op) -> Step<()> {
        if self.compute(w, mask, op) {
            return Ok(());
        }
        match op {
            Op::Load {
                space,
                ty,
                dst,
                filled,
                from,
                volatile,
            } => self.load(w, mask, (*space, *ty, *volatile), (dst, *filled), *from)?,
            Op::Store {
                space,
                ty,
                src,
                to,
                volatile,
            } => self.store(w, mask, (*space, *ty, *volatile), src, *to)?,
            Op::Atom {
                space,
                op,
                ty,
                dst,
                at,
                src,
            } => self.atomic(w, mask, (*space, *op, *ty), *dst, *at, *src)?,
            Op::Trap => return problem(Finding::Trap, "the kernel executed trap"),
            Op::WarpSync { .. } => self.sync_warp(w, mask),
            Op::Shuffle {
                mode,
                dst,
                valid,
                src,
                lane,
                clamp,
                ..
            } => {
                let (dst, valid, src, lane, clamp) = (*dst, *valid, *src, *lane, *clamp);
                self.shuffle(
                    w,
                    mask,
                    Shuffle {
                        mode: *mode,
                        dst,
                        valid,
                        src,
                        lane,
                        clamp,
                    },
                )?;
            }
            Op::Vote {
                mode,
                dst,
                condition,
                ..
            } => self.vote(w, mask, *mode, *dst, *condition),
            Op::Match {
                all,
                dst,
                valid,
                src,
                size,
                ..
            } => {
                self.match_lanes(w, mask, *all, (*dst, *valid), (*src, *size));
            }
            Op::Redux {
                op,
                signed,
                dst,
                src,
                ..
            } => self.redux(w, mask, (*op, *signed), *dst, *src),
            Op::ActiveMask { dst } => self.put(w, mask, *dst, &[mask.into(); 32]),
            Op::Elect { lane, chosen, .. } => self.elect(w, mask, *lane, *chosen),
            Op::LoadMatrix {
                transposed,
                dst,
                from,
            } => self.load_matrix(w, *transposed, dst, *from)?,
            Op::StoreMatrix {
                transposed,
                src,
                to,
            } => self.store_matrix(w, *transposed, src, *to)?,
            Op::Mma { shape, d, a, b, c } => self.mma(w, *shape, d, Factors { a, b, c }),
            Op::CopyAsync {
                shared,
                global,
                size,
                read,
            } => self.copy_async(w, mask, (*shared, *global), *size, *read)?,
            Op::CopyCommit => self.commit_copies(w, mask),
            Op::CopyWait { groups } => self.wait_copies(w, mask, *groups)?,
            Op::Mbarrier { op, at } => {
                self.mbarrier(w, mask, op, *at)?;
            }
            Op::Bulk(op) => self.bulk(w, mask, op)?,
            Op::Wgmma(wgmma) => self.issue_product(w, pc, wgmma)?,
            Op::WgmmaFence => self.warps[w].products.fenced = true,
            Op::WgmmaCommit => self.commit_products(w),
            Op::WgmmaWait { groups } => self.wait_products(w, *groups)?,
            Op::ProxyFence => self.fence_proxy(w, mask),
            Op::Fence | Op::Nothing => {}
            // `execute` and `compute` do the others.
            _ => {}
        }
        Ok(())
    }
}
