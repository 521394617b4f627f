//! When a queue reaches a point of its work: how long kernels take.

#[cfg(feature = "cuda")]
use crate::cuda::CudaEvent;
use crate::{Device, Error, Result};
use std::time::{Duration, Instant};

/// The time at which a queue reaches a point in its work, taken by [`Device::timestamp`].
///
/// A GPU takes it itself, when it has run what its queue was given before. The time between two of them is therefore that of
/// the work between them, without the calls of the host, as long as the queue does not run dry.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor, elementwise::add};
/// let device = Device::cpu();
/// let x = Tensor::zeros([1000], DType::F32, &device)?;
/// let start = device.timestamp()?;
/// for _ in 0..10 {
///     add(&x, &x)?;
/// }
/// let time = device.timestamp()?.since_blocking(&start)?;
/// println!("{:.1} µs each", time.as_secs_f64() * 1e6 / 10.0);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct Timestamp {
    device: Device,
    taken: Taken,
}

#[derive(Debug)]
enum Taken {
    /// By the calling thread, which is the processor's queue.
    Host(Instant),
    #[cfg(feature = "cuda")]
    Cuda(CudaEvent),
}

impl Device {
    /// Has this queue note the time when everything that it was given so far has run. The processor's queue is the calling
    /// thread, so it is the time now.
    ///
    /// # Errors
    /// If the driver of a GPU refuses.
    pub fn timestamp(&self) -> Result<Timestamp> {
        let device = self.clone();
        #[cfg(feature = "cuda")]
        if let Some(queue) = self.cuda_queue() {
            let taken = Taken::Cuda(queue.timestamp()?);
            return Ok(Timestamp { device, taken });
        }
        let taken = Taken::Host(Instant::now());
        Ok(Timestamp { device, taken })
    }
}

impl Timestamp {
    /// The time from `earlier` to this. It is zero if `earlier` is later. Waits until both queues have reached these points.
    ///
    /// # Errors
    /// [`Error::Device`] if the two are not of one device and its forks, or if a kernel failed.
    pub fn since_blocking(&self, earlier: &Self) -> Result<Duration> {
        let other = || Error::Device {
            op: "timestamp",
            reason: format!(
                "both must be of one device, found {} and {}",
                earlier.device, self.device
            ),
        };
        if self.device != earlier.device {
            return Err(other());
        }
        match (&self.taken, &earlier.taken) {
            (Taken::Host(later), Taken::Host(earlier)) => Ok(later.duration_since(*earlier)),
            #[cfg(feature = "cuda")]
            (Taken::Cuda(later), Taken::Cuda(earlier)) => {
                let milliseconds = later.milliseconds_since(earlier)?;
                Ok(Duration::from_secs_f64(
                    f64::from(milliseconds.max(0.0)) / 1e3,
                ))
            }
            #[cfg(feature = "cuda")]
            _ => Err(other()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "cuda")]
    use crate::{DType, Tensor};

    #[test]
    fn the_processor_measures_the_calling_thread() {
        let device = Device::cpu();
        let start = device.timestamp().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let end = device.fork().timestamp().unwrap();
        assert!(end.since_blocking(&start).unwrap() >= Duration::from_millis(2));
        assert_eq!(start.since_blocking(&end).unwrap(), Duration::ZERO);
    }

    #[test]
    fn times_of_two_devices_are_not_compared() {
        // Two tiers, whatever this processor has: nothing is computed.
        let [one, other, ..] = crate::tier::ALL;
        let [start, end] = [one, other].map(|tier| Device::of_any_tier(tier).timestamp().unwrap());
        let error = end.since_blocking(&start).unwrap_err().to_string();
        assert!(error.contains("both must be of one device"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    #[ignore = "needs a GPU"]
    fn a_gpu_takes_the_time_when_it_gets_there() {
        let device = crate::testing::gpu();
        let start = device.timestamp().unwrap();
        let x = Tensor::zeros([1 << 16], DType::F32, &device).unwrap();
        let between = device.timestamp().unwrap();
        let send = device.fork();
        send.wait(&device.record());
        drop(x);
        let end = send.timestamp().unwrap();
        let whole = end.since_blocking(&start).unwrap();
        assert!(whole > Duration::ZERO);
        assert!(between.since_blocking(&start).unwrap() <= whole);
        assert_eq!(start.since_blocking(&end).unwrap(), Duration::ZERO);
        let host = Device::cpu().timestamp().unwrap();
        assert!(host.since_blocking(&start).is_err());
    }
}
