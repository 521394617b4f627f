//! Two ranks that compute and exchange tensors on GPUs, for the test that drops each wait of a queue: `gpu-ranks DEVICES ROUNDS`, where
//! DEVICES are the ordinals of the two ranks' GPUs, such as `0 0`. The numbers are what they must be, or it fails.
//!
//! A step ends with a barrier of the ranks' threads, so that memory is given back before the next step wants some. No thread waits for a
//! GPU before the end: what is not ordered by events is not ordered at all.

use std::error::Error;

use xdit_comm::threads::{Options, Ranks};
use xdit_comm::{Call, Group, Spec};
use xdit_kernels::elementwise::{add, scale};
use xdit_kernels::{Device, Event, Tensor};

/// Numbers of a tensor.
const COUNT: u16 = 1500;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .map(|word| word.parse())
        .collect::<Result<_, _>>()?;
    let [first, second, rounds] = numbers[..] else {
        return Err("gpu-ranks FIRST SECOND ROUNDS".into());
    };
    let one = Device::cuda(first)?;
    let two = if second == first {
        one.clone()
    } else {
        Device::cuda(second)?
    };
    let numbers: Vec<f32> = (0..COUNT).map(f32::from).collect();
    let input = |device: &Device| Tensor::from_slice(&numbers, [numbers.len()], device);
    let inputs = [input(&one)?, input(&two)?];
    let ready: Vec<Event> = [&one, &two].map(Device::record).into();
    let mut ranks = Ranks::<()>::on(vec![one.fork(), two.fork()], Options::default());
    let work = move |group: &Group, (): &mut (), _| {
        let device = group
            .device()
            .ok_or("a rank without a device")
            .map_err(xdit_comm::Error::other)?;
        // The queue that wrote the input.
        device.wait(&ready[group.rank()]);
        let mut x = inputs[group.rank()].to_device(device)?;
        for _ in 0..rounds {
            x = round(group, &x)?;
        }
        Ok(x)
    };
    let outputs = ranks.call(work, |()| {});
    let mut ends = Vec::new();
    for (output, base) in outputs.into_iter().zip([&one, &two]) {
        let output = output?;
        // As the pipeline does, which decodes what a rank returned.
        base.wait(&output.device().record());
        ends.push(scale(output.to_device(base)?.view(), 2.0)?);
    }
    for end in &ends {
        let got = end.to_vec_blocking::<f32>()?;
        let factor = f32::from(2u8).powi(i32::try_from(rounds)? + 1);
        let wanted: Vec<f32> = numbers.iter().map(|x| x * factor).collect();
        if got != wanted {
            return Err("wrong result".into());
        }
    }
    Ok(())
}

/// The double of x, which is the same for both ranks. Every step is exact, and no step's numbers are those of another round.
fn round(group: &Group, x: &Tensor) -> xdit_comm::Result<Tensor> {
    let other = 1 - group.rank();
    // Both send what a kernel has just written, in a batch of two messages, and add what they receive.
    let [half, more] = [scale(x, 0.5)?, scale(x, 1.5)?];
    let specs = [Spec::of(&half), Spec::of(&more)];
    let sends = [half, more].map(|tensor| Call::send(&tensor, other));
    let receives = specs.map(|spec| Call::recv(spec, other));
    let arrived = group
        .start(sends.into_iter().chain(receives).collect())?
        .wait()?;
    let [half, more] = &arrived[..] else {
        return Err(xdit_comm::Error::other("two messages"));
    };
    let sum = scale(&add(half, more)?, 0.5)?;
    drop(arrived);
    group.barrier()?;
    // A hop of the ring: the message travels beside a kernel.
    let pending = group.start_send_recv(&sum, other, Spec::of(&sum), other)?;
    let mine = scale(&sum, 0.75)?;
    let theirs = pending.wait_one()?;
    drop(sum);
    let sum = add(&mine, &scale(&theirs, 0.25)?)?;
    drop((mine, theirs));
    group.barrier()?;
    // Everybody gets everybody's part.
    let all = group.all_gather(&sum, &[Spec::of(&sum), Spec::of(&sum)])?;
    let mean = scale(&add(&all[0], &all[1])?, 0.5)?;
    drop((all, sum));
    group.barrier()?;
    // A stage of a pipeline sends to the next one, which sends back.
    let back = if group.rank() == 0 {
        group.send(&scale(&mean, 4.0)?, 1)?;
        group.recv(Spec::of(&mean), 1)?
    } else {
        let got = group.recv(Spec::of(&mean), 0)?;
        group.send(&scale(&got, 0.25)?, 0)?;
        scale(&got, 0.25)?
    };
    drop(mean);
    group.barrier()?;
    scale(&back, 2.0).map_err(Into::into)
}
