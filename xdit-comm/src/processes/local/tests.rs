//! The conformance suite over sockets between threads of this process. The control plane is that of threads.

use super::*;
use crate::{Backend, Group, Ticket, conformance, threads};
use proptest::prelude::*;
use xdit_kernels::DType;

/// The data plane of sockets beside the control plane of threads.
#[derive(Debug)]
struct Wired {
    control: Group,
    data: Box<dyn Transport>,
}

#[derive(Debug)]
struct Moved(Box<dyn Transfer>, Group);

impl Ticket for Moved {
    fn wait(mut self: Box<Self>) -> Result<Vec<Tensor>> {
        loop {
            if let Some(tensors) = self.0.poll()? {
                return Ok(tensors);
            }
            self.1.backend().progress()?;
            self.0.rest(Duration::from_millis(5));
        }
    }
}

impl Backend for Wired {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn world_size(&self) -> usize {
        self.control.world_size()
    }

    fn receives_ahead(&self) -> bool {
        self.data.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        let transfer = self.data.start(batch)?;
        Ok(Box::new(Moved(transfer, self.control.clone())))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        self.control.backend().start_control(bytes, deadline)
    }

    fn fail(&self, reason: &str) {
        self.control.backend().fail(reason);
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let mut told = Vec::new();
        told.extend((color as u64).to_le_bytes());
        told.extend((key as u64).to_le_bytes());
        let all = self.control.control().all_gather(&told)?;
        let mut members: Vec<(Vec<u8>, usize)> = all
            .into_iter()
            .enumerate()
            .filter(|(_, other)| other[..8] == told[..8])
            .map(|(rank, other)| (other[8..].iter().rev().copied().collect(), rank))
            .collect();
        members.sort();
        let members: Vec<usize> = members.into_iter().map(|(_, rank)| rank).collect();
        Ok(Box::new(Self {
            control: self.control.split(color, key)?,
            data: self.data.subgroup(color, &members)?,
        }))
    }
}

/// Runs `work` on ranks that sockets connect.
fn run<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(Group, &Group) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    threads::run(world_size, move |group| {
        let meeting = Meeting::open(&std::env::temp_dir())?;
        let addresses = group.control().all_gather(&meeting.address())?;
        let alive = || group.backend().progress();
        let data = meeting.connect(group.rank(), &addresses, &Device::cpu(), alive)?;
        let wired = Wired {
            control: group.clone(),
            data: Box::new(data),
        };
        work(Group::new(Box::new(wired)), &group)
    })
}

#[test]
fn the_contract_holds() {
    for world_size in [1, 2, 4, 5] {
        run(world_size, |group, _| {
            for (name, check) in conformance::CHECKS {
                check(&group).map_err(|error| Error::other(format!("{name}: {error}")))?;
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{world_size} ranks: {error}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Larger than the buffers of sockets, in both directions at once.
    #[test]
    fn large_tensors_travel_both_ways(lengths in proptest::collection::vec(0_usize..900_000, 3)) {
        let sent = |rank: usize, len: usize| {
            let data: Vec<f32> = (0..len).map(|i| (rank * 7 + i % 1000) as f32).collect();
            Tensor::from_slice(&data, [len], &Device::cpu())
        };
        let all = lengths.clone();
        let got = run(3, move |group, _| {
            let mine = sent(group.rank(), all[group.rank()])?;
            let specs: Vec<Spec> = all.iter().map(|len| Spec::new([*len], DType::F32)).collect();
            group.all_gather(&mine, &specs)
        });
        for tensors in got.unwrap() {
            for (rank, tensor) in tensors.iter().enumerate() {
                let want = sent(rank, lengths[rank]).unwrap();
                prop_assert_eq!(tensor.to_vec_blocking::<f32>().unwrap(), want.to_vec_blocking::<f32>().unwrap());
            }
        }
    }
}

#[test]
fn a_message_of_another_shape_is_refused() {
    let error = run(2, |group, _| {
        let tensor = Tensor::from_slice(&[1f32, 2.], [2], &Device::cpu())?;
        match group.rank() {
            0 => group.send(&tensor, 1).map(drop),
            _ => group.recv(Spec::new([1, 2], DType::F32), 0).map(drop),
        }
    });
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "rank 1 and rank 0 disagree: rank 1 calls recv from 0, gives [], expects [[1, 2] f32], rank 0 calls send to 1, gives [[2] f32]"
    );
}

#[test]
fn whoever_waits_for_a_rank_that_has_gone_is_told() {
    let ended = run(2, |group, control| {
        let spec = Spec::new([1], DType::F32);
        let outcome = match group.rank() {
            0 => {
                drop(group);
                Ok(())
            }
            _ => group.recv(spec, 0).map(drop),
        };
        control.barrier()?;
        Ok(outcome.err().map(|error| error.to_string()))
    });
    let told = ended.unwrap().remove(1).unwrap();
    let want = "recv from 0, gives [], expects [[1] f32] (rank 1): rank 0 is lost: it closed its connection";
    assert_eq!(told, want);
}

#[test]
fn nothing_blocks_after_an_abort() {
    let ended = threads::run(2, |group| {
        let meeting = Meeting::open(&std::env::temp_dir())?;
        let addresses = group.control().all_gather(&meeting.address())?;
        let data = meeting.connect(group.rank(), &addresses, &Device::cpu(), || Ok(()))?;
        let spec = Spec::new([1], DType::F32);
        let mut waiting = data.start(vec![Call::recv(spec, 1 - group.rank())])?;
        // More than the socket takes, and nobody reads it to its end.
        let large = Tensor::from_slice(&vec![0_u8; 8 << 20], [8 << 20], &Device::cpu())?;
        let mut sending = data.start(vec![Call::send(&large, 1 - group.rank())])?;
        data.abort();
        let polled = waiting.poll().map(|tensors| tensors.is_some());
        sending.rest(Duration::from_secs(60));
        drop((sending, waiting, data));
        Ok(polled.is_err())
    });
    assert_eq!(ended.unwrap(), [true, true]);
}

/// Links of rank 0 with one peer, whose end of the socket is returned, and which send a tensor that no socket buffers.
fn sending(bytes: usize) -> (SocketLinks, std::os::unix::net::UnixStream) {
    let (own, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let links = SocketLinks::new(0, vec![None, Some(own)], &Device::cpu()).unwrap();
    let lane = SocketLane {
        path: Arc::default(),
        sender: 0,
        collective: false,
    };
    let large = Tensor::from_slice(&vec![1_u8; bytes], [bytes], &Device::cpu()).unwrap();
    links.send(1, lane, &large).unwrap();
    (links, other)
}

#[test]
fn a_rank_that_ends_does_not_wait_for_a_peer_that_never_reads() {
    let (links, other) = sending(8 << 20);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(links);
        done.send(()).ok();
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(ended.is_ok(), "it gives up");
    drop(other);
}

#[test]
fn a_rank_that_ends_waits_for_a_peer_that_reads_slowly() {
    use std::io::Read;
    let (parts, part) = (48, 128 << 10);
    let (links, mut other) = sending(parts * part);
    let reader = std::thread::spawn(move || {
        // In all 5.3 s: longer than a rank waits for a peer that reads nothing, also without the parts that the socket buffers.
        for _ in 0..parts {
            std::thread::sleep(Duration::from_millis(110));
            other.read_exact(&mut vec![0; part])?;
        }
        other.read_to_end(&mut vec![])
    });
    drop(links);
    let rest = reader.join().unwrap().unwrap();
    assert_eq!(rest, 12, "as many bytes as the header has");
}

#[test]
fn a_group_that_is_split_too_often_is_told_at_once() {
    let told = threads::run(2, |group| {
        let meeting = Meeting::open(&std::env::temp_dir())?;
        let addresses = group.control().all_gather(&meeting.address())?;
        let data = meeting.connect(group.rank(), &addresses, &Device::cpu(), || Ok(()))?;
        let mut deep: Box<dyn Transport> = Box::new(data);
        let one = Tensor::from_slice(&[1f32], [1], &Device::cpu())?;
        let mut start = |splits: usize| {
            for _ in 0..splits {
                deep = deep.subgroup(0, &[0, 1])?;
            }
            deep.start(vec![Call::send(&one, 1 - group.rank())])
        };
        start(64)?;
        let error = start(1).expect_err("a header has no room for it");
        group.barrier()?;
        Ok(error.to_string())
    });
    for text in told.unwrap() {
        let want = "after 65 splits of the world, where at most 64 are allowed";
        assert!(text.contains(want), "{text}");
    }
}

#[test]
fn sockets_leave_no_file() {
    let folder = std::env::temp_dir().join(format!("xdit-local-test-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (place, many) = (folder.clone(), 3);
    let left = threads::run(many, move |group| {
        let meeting = Meeting::open(&place)?;
        let addresses = group.control().all_gather(&meeting.address())?;
        let data = meeting.connect(group.rank(), &addresses, &Device::cpu(), || Ok(()))?;
        group.barrier()?;
        let left = std::fs::read_dir(&place).map_err(Error::other)?.count();
        drop(data);
        Ok(left)
    });
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(left.unwrap(), [0; 3], "once all have connected");
}
