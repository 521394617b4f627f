//! The calls of a group that return when their tensors are there.

use crate::{Group, ReduceOp, Result, Spec};
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

    /// All ranks' tensors made one, in f32: the same bytes on every rank. The backend chooses the order of the ranks.
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
