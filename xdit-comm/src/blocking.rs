//! The blocking calls of a group.

use crate::{Group, ReduceOp, Result, Spec};
use xdit_kernels::Tensor;

impl Group {
    /// Sends a tensor to `dst` and waits until this rank may drop it.
    ///
    /// # Errors
    /// [`Error::PeerLost`](crate::Error::PeerLost); [`Error::Argument`](crate::Error::Argument) if there is no such rank.
    pub fn send(&self, tensor: &Tensor, dst: usize) -> Result<()> {
        self.start_send(tensor, dst)?.wait().map(drop)
    }

    /// Receives the next tensor from `src`, which must have this shape and dtype.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree) if what was sent differs from `expected`; [`Error::PeerLost`](crate::Error::PeerLost).
    pub fn recv(&self, expected: Spec, src: usize) -> Result<Tensor> {
        self.start_recv(expected, src)?.wait_one()
    }

    /// Sends `tensor` to `dst` and at the same time receives a tensor from `src`.
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

    /// Returns the root's tensor on every rank.
    ///
    /// # Collective
    /// Every rank calls it with the same root and spec. Only the root passes a tensor.
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

    /// Returns the i-th tensor of the root on rank i. The tensors may differ in shape.
    ///
    /// # Collective
    /// Every rank calls it with the same root. Only the root passes tensors, one for each rank.
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

    /// Returns the tensors of all ranks on the root, in rank order, and nothing on the other ranks. Shapes may differ between ranks.
    ///
    /// # Collective
    /// Every rank calls it with the same root and all specs.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn gather(&self, tensor: &Tensor, expected: &[Spec], root: usize) -> Result<Vec<Tensor>> {
        self.start_gather(tensor, expected, root)?.wait()
    }

    /// Returns the tensors of all ranks, in rank order. Shapes may differ between ranks, as `expected` states.
    ///
    /// # Collective
    /// Every rank calls it with the same specs.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost), [`Error::Argument`](crate::Error::Argument).
    pub fn all_gather(&self, tensor: &Tensor, expected: &[Spec]) -> Result<Vec<Tensor>> {
        self.start_all_gather(tensor, expected)?.wait()
    }

    /// Reduces the tensors of all ranks in f32 and returns the same bytes on every rank. The backend chooses the order of the ranks.
    ///
    /// # Collective
    /// Every rank calls it with one shape, dtype and operation.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree), [`Error::PeerLost`](crate::Error::PeerLost).
    pub fn all_reduce(&self, tensor: &Tensor, how: ReduceOp) -> Result<Tensor> {
        self.start_all_reduce(tensor, how)?.wait_one()
    }

    /// Reduces, for each rank i, the tensors `tensors[i]` of all ranks, and returns this rank's result.
    ///
    /// # Collective
    /// Every rank calls it with the same shapes. Shapes may differ between receivers.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn reduce_scatter(&self, tensors: Vec<Tensor>, how: ReduceOp) -> Result<Tensor> {
        self.start_reduce_scatter(tensors, how)?.wait_one()
    }

    /// Sends `tensors[i]` to rank i and returns the tensors that all ranks send to this one, in rank order. All shapes may differ.
    ///
    /// # Collective
    /// Every rank calls it. `expected[i]` describes the tensor from rank i.
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
