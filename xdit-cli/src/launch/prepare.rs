//! What the processes of a job do before their world begins: each says where it is, opens its device, and makes its transport.

use xdit_comm::processes::{Peers, Transport};
use xdit_kernels::Device;

use crate::args::device::ChosenDevice;
use crate::launch::agreement::{Readiness, agreed, exchange, shared_gpu};
use crate::launch::facts::{self, HostFacts, HostShare};
use crate::launch::own_mpi::OwnMpi;
use crate::launch::own_nccl::OwnNccl;
use crate::launch::place::JobPlace;
use crate::launch::transport::{TransportKind, TransportNeeds, choose};
use crate::report::failure::{Failure, USAGE, shown};
use crate::run::environment::Environment;

/// Opens the device of this process, which has this share of its host.
pub(crate) type OpenDevice<'a> = &'a mut dyn FnMut(&HostShare) -> Result<ChosenDevice, Failure>;

/// The GPU of a rank, and the library that moves its tensors.
struct RankGpu {
    identity: String,
    nccl: OwnNccl,
}

impl RankGpu {
    /// That of a device, if it is one.
    fn of(device: &ChosenDevice, environment: &Environment) -> Result<Option<Self>, Failure> {
        let Some(identity) = device.gpu_identity()? else {
            return Ok(None);
        };
        let nccl = OwnNccl::open(environment).map_err(Failure::usage)?;
        let (version, file) = nccl.name();
        let file = file.map_or_else(String::new, |file| format!(", {}", shown(&file)));
        tracing::info!("NCCL {version}{file}");
        Ok(Some(Self { identity, nccl }))
    }
}

/// What a process has when it has joined.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its part in its host.
    pub share: HostShare,
    /// Of each rank, the number of its host.
    pub host_numbers: Vec<usize>,
    pub device: ChosenDevice,
    pub transport: Box<dyn Transport>,
}

/// Opens the device and the transport. Of an inner error all ranks know: it is the same, or that of this rank.
pub(super) fn prepare(
    peers: &Peers,
    place: &JobPlace,
    (mpi, environment): (Option<&OwnMpi>, &Environment),
    open: OpenDevice<'_>,
) -> xdit_comm::Result<Result<Prepared, Failure>> {
    let hosts: Vec<String> = peers.all().iter().map(|peer| peer.host.clone()).collect();
    let facts = exchange(&HostFacts::read(place), |bytes| peers.all_gather(bytes))?;
    let share = HostShare::of(peers.rank(), &facts);
    let host_numbers = facts::host_numbers(&facts);
    let opened = open(&share).and_then(|device| {
        let gpu = RankGpu::of(&device, environment)?;
        Ok((gpu, device))
    });
    let kind = |(gpu, _): &(Option<RankGpu>, ChosenDevice)| match gpu {
        Some(_) => "a GPU".to_owned(),
        None => "the processor".to_owned(),
    };
    let identity =
        |(gpu, _): &(Option<RankGpu>, ChosenDevice)| Some(gpu.as_ref()?.identity.clone());
    let own = (
        Readiness::of(&opened, kind),
        opened.as_ref().ok().and_then(identity),
    );
    let all = exchange(&own, |bytes| peers.all_gather(bytes))?;
    let (all, gpus): (Vec<Readiness>, Vec<Option<String>>) = all.into_iter().unzip();
    let differs = "it does not compute where rank 0 does (on a GPU, or on the processor): name the device with --device";
    let agreed = agreed(opened, peers.rank(), &all, &hosts, (differs, USAGE));
    let (gpu, opened) = match agreed {
        Ok(opened) => opened,
        Err(failure) => return Ok(Err(failure)),
    };
    if let Some(reason) = shared_gpu(&gpus, &hosts) {
        return Ok(Err(Failure::usage(reason)));
    }
    let chosen = choose(TransportNeeds {
        on_gpus: gpu.is_some(),
        is_one_host: share.is_one_host,
        has_mpi: mpi.is_some(),
        by_mpi: place.by_mpi,
    });
    let kind = match chosen {
        Ok(kind) => kind,
        Err(reason) => return Ok(Err(Failure::usage(reason))),
    };
    tracing::info!("the ranks send tensors over {kind}");
    let nccl = gpu.as_ref().map(|gpu| &gpu.nccl);
    let transport = connect(kind, peers, (mpi, nccl), &opened.device)?;
    Ok(Ok(Prepared {
        share,
        host_numbers,
        device: opened,
        transport,
    }))
}

/// Makes the transport of the whole world.
fn connect(
    kind: TransportKind,
    peers: &Peers,
    (mpi, nccl): (Option<&OwnMpi>, Option<&OwnNccl>),
    device: &Device,
) -> xdit_comm::Result<Box<dyn Transport>> {
    match kind {
        #[cfg(unix)]
        TransportKind::Sockets => {
            use xdit_comm::processes::local::Meeting;
            let meeting = Meeting::open(&std::env::temp_dir())?;
            let addresses = peers.all_gather(&meeting.address())?;
            let local = meeting.connect(peers.rank(), &addresses, device, || peers.check())?;
            Ok(Box::new(local))
        }
        #[cfg(not(unix))]
        TransportKind::Sockets => Err(xdit_comm::Error::other(
            "ranks that are processes need Unix",
        )),
        // Chosen only where the ranks have GPUs, and then it is open.
        TransportKind::Nccl => match nccl {
            Some(nccl) => nccl.transport(peers, device),
            None => Err(xdit_comm::Error::other("NCCL is not open")),
        },
        // Chosen only where MPI is initialised.
        TransportKind::Mpi => match mpi {
            Some(mpi) => mpi.transport(peers, device),
            None => Err(xdit_comm::Error::other("MPI is not initialised")),
        },
    }
}
