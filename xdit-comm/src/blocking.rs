//! The calls of a group that return when their tensors are there.

use crate::{Group, ReduceOp, Result, Spec};
use half::bf16;
use xdit_kernels::Tensor;

impl Group {
    /// Sends to `dst` and waits until the tensor may be dropped here.
    ///
    /// # Errors
    /// [`Error::PeerLost`](crate::Error::PeerLost); [`Error::Argument`](crate::Error::Argument) if there is no such rank.
    pub fn send(&self, tensor: &Tensor, dst: usize) -> Result<()> {
        self.start_send(tensor, dst)?.wait().map(drop)
    }

    /// The next tensor from `src`, which has this shape and dtype.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree) if what was sent differs from `expected`; [`Error::PeerLost`](crate::Error::PeerLost).
    pub fn recv(&self, expected: Spec, src: usize) -> Result<Tensor> {
        self.start_recv(expected, src)?.wait_one()
    }

    /// What `src` sends, while `tensor` goes to `dst`.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`recv`](Self::recv).
    pub fn send_recv(
        &self,
        tensor: &Tensor,
        dst: usize,
        expected: Spec,
        src: usize,
    ) -> Result<Tensor> {
        self.start_send_recv(tensor, dst, expected, src)?.wait_one()
    }

    /// The root's tensor.
    ///
    /// # Collective
    /// Every rank calls it with the same root and spec; the root alone gives a tensor.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost), [`Error::Argument`](crate::Error::Argument).
    pub fn broadcast(
        &self,
        tensor: Option<&Tensor>,
        expected: Spec,
        root: usize,
    ) -> Result<Tensor> {
        self.start_broadcast(tensor, expected, root)?.wait_one()
    }

    /// My part of what the root gives: its i-th tensor goes to rank i. Parts may differ in shape.
    ///
    /// # Collective
    /// Every rank calls it with the same root; the root alone gives tensors, one a rank.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn scatter(
        &self,
        tensors: Option<Vec<Tensor>>,
        expected: Spec,
        root: usize,
    ) -> Result<Tensor> {
        self.start_scatter(tensors, expected, root)?.wait_one()
    }

    /// On the root every rank's tensor, in rank order; nothing elsewhere. Shapes may differ from rank to rank.
    ///
    /// # Collective
    /// Every rank calls it with the same root and all specs.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn gather(&self, tensor: &Tensor, expected: &[Spec], root: usize) -> Result<Vec<Tensor>> {
        self.start_gather(tensor, expected, root)?.wait()
    }

    /// Every rank's tensor, in rank order. Shapes may differ from rank to rank, as `expected` says.
    ///
    /// # Collective
    /// Every rank calls it with the same specs.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost), [`Error::Argument`](crate::Error::Argument).
    pub fn all_gather(&self, tensor: &Tensor, expected: &[Spec]) -> Result<Vec<Tensor>> {
        self.start_all_gather(tensor, expected)?.wait()
    }

    /// Every rank's numbers, in rank order, bit for bit: for sums that f32 would lose. All ranks give as many.
    ///
    /// # Collective
    /// Every rank calls it with the same number of values.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    ///
    /// # Examples
    /// ```
    /// let all = xdit_comm::threads::run(2, |group| group.all_gather_f64(&[1.0 / (3.0 + group.rank() as f64)]))?;
    /// assert_eq!(all, [[[1.0 / 3.0], [0.25]], [[1.0 / 3.0], [0.25]]]);
    /// # Ok::<(), xdit_comm::Error>(())
    /// ```
    pub fn all_gather_f64(&self, values: &[f64]) -> Result<Vec<Vec<f64>>> {
        let mine = words(values)?;
        let all = self.all_gather(&mine, &vec![Spec::of(&mine); self.world_size()])?;
        Ok(all.iter().map(numbers).collect())
    }

    /// All ranks' tensors made one, in rank order and f32, so that every rank has the same bytes.
    ///
    /// # Collective
    /// Every rank calls it with one shape, dtype and operation.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost).
    pub fn all_reduce(&self, tensor: &Tensor, how: ReduceOp) -> Result<Tensor> {
        self.start_all_reduce(tensor, how)?.wait_one()
    }

    /// The reduction of every rank's tensor for me: `tensors[i]` is this rank's share of rank i's result.
    ///
    /// # Collective
    /// Every rank calls it with the same shapes; shapes may differ from receiver to receiver.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn reduce_scatter(&self, tensors: Vec<Tensor>, how: ReduceOp) -> Result<Tensor> {
        self.start_reduce_scatter(tensors, how)?.wait_one()
    }

    /// The tensors that the ranks have for me: rank i's j-th tensor becomes rank j's i-th. Shapes may all differ.
    ///
    /// # Collective
    /// Every rank calls it; `expected[i]` is what rank i gives to me.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost), [`Error::Argument`](crate::Error::Argument).
    pub fn all_to_all(&self, tensors: Vec<Tensor>, expected: &[Spec]) -> Result<Vec<Tensor>> {
        self.start_all_to_all(tensors, expected)?.wait()
    }

    /// Returns when every rank has called it.
    ///
    /// # Collective
    /// Every rank calls it.
    ///
    /// # Errors
    /// [`Error::PeerLost`](crate::Error::PeerLost).
    pub fn barrier(&self) -> Result<()> {
        self.start_barrier()?.wait().map(drop)
    }
}

/// The bits of f64s, four elements each: tensors hold no f64, and what only moves elements changes no bit of them.
fn words(values: &[f64]) -> Result<Tensor> {
    let words: Vec<bf16> = values
        .iter()
        .flat_map(|value| {
            let bits = value.to_bits();
            [48, 32, 16, 0].map(|shift| bf16::from_bits((bits >> shift) as u16))
        })
        .collect();
    Ok(Tensor::from_slice(&words, [words.len()])?)
}

fn numbers(words: &Tensor) -> Vec<f64> {
    let (quads, _) = words
        .as_slice::<bf16>()
        .unwrap_or_default()
        .as_chunks::<4>();
    quads
        .iter()
        .map(|quad| {
            let bits = |bits: u64, part: &bf16| bits << 16 | u64::from(part.to_bits());
            f64::from_bits(quad.iter().fold(0, bits))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f64_keeps_its_bits() {
        let values = [
            0.0,
            -0.0,
            1.0 / 3.0,
            f64::MAX,
            f64::MIN_POSITIVE / 8.0,
            f64::NEG_INFINITY,
            6.4e19,
            f64::from_bits(12345),
        ];
        let back = numbers(&words(&values).unwrap());
        let bits = |values: &[f64]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&back), bits(&values));
        assert!(numbers(&words(&[f64::NAN]).unwrap())[0].is_nan());
    }
}
