//! What the processes of a job do before their world begins: each opens its device, and makes its transport.

use xdit_comm::processes::{Peers, Transport};
use xdit_kernels::{Device, DeviceKind};

use crate::args::device::ChosenDevice;
use crate::launch::agreement::{Readiness, agreed, exchange};
use crate::launch::facts::{HostFacts, HostShare};
use crate::launch::own_mpi::OwnMpi;
use crate::launch::place::JobPlace;
use crate::launch::transport::{TransportKind, TransportNeeds, choose};
use crate::report::failure::Failure;

/// Opens the device of this process, which has this share of its host.
pub(crate) type OpenDevice<'a> = &'a mut dyn FnMut(&HostShare) -> Result<ChosenDevice, Failure>;

/// What a process has when it has joined.
pub(super) type Prepared = (HostShare, ChosenDevice, Box<dyn Transport>);

/// Opens the device and the transport. Of an inner error all ranks know: it is the same, or that of this rank.
pub(super) fn prepare(
    peers: &Peers,
    place: &JobPlace,
    mpi: Option<&OwnMpi>,
    open: OpenDevice<'_>,
) -> xdit_comm::Result<Result<Prepared, Failure>> {
    let hosts: Vec<String> = peers.all().iter().map(|peer| peer.host.clone()).collect();
    let facts = exchange(&HostFacts::read(place), |bytes| peers.all_gather(bytes))?;
    let share = HostShare::of(peers.rank(), &facts);
    let opened = open(&share);
    let is_gpu = |opened: &ChosenDevice| !matches!(opened.device.kind(), DeviceKind::Cpu(_));
    let kind = |opened: &ChosenDevice| match is_gpu(opened) {
        true => "a GPU".to_owned(),
        false => "the processor".to_owned(),
    };
    let own = Readiness::of(&opened, kind);
    let all = exchange(&own, |bytes| peers.all_gather(bytes))?;
    let differs = "it does not compute where rank 0 does (on a GPU, or on the processor): name the device with --device";
    let opened = match agreed(opened, peers.rank(), &all, &hosts, differs) {
        Ok(opened) => opened,
        Err(failure) => return Ok(Err(failure)),
    };
    let chosen = choose(TransportNeeds {
        on_gpus: is_gpu(&opened),
        is_one_host: share.is_one_host,
        has_mpi: mpi.is_some(),
        by_mpi: place.by_mpi,
    });
    let kind = match chosen {
        Ok(kind) => kind,
        Err(reason) => return Ok(Err(Failure::usage(reason))),
    };
    tracing::info!("the ranks send tensors over {kind}");
    let transport = connect(kind, peers, mpi, &opened.device)?;
    Ok(Ok((share, opened, transport)))
}

/// Makes the transport of the whole world.
fn connect(
    kind: TransportKind,
    peers: &Peers,
    mpi: Option<&OwnMpi>,
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
        #[cfg(all(unix, feature = "cuda"))]
        TransportKind::Nccl => {
            use xdit_comm::processes::nccl::{NcclLibrary, NcclOptions, transport};
            let library = NcclLibrary::open(None)?;
            tracing::info!("NCCL {}", library.version());
            transport(peers, &library, device, NcclOptions::default())
        }
        #[cfg(not(all(unix, feature = "cuda")))]
        TransportKind::Nccl => Err(xdit_comm::Error::other(
            "ranks on GPUs need NCCL, which this xdit-cli was built without",
        )),
        // Chosen only where MPI is initialised.
        TransportKind::Mpi => match mpi {
            Some(mpi) => mpi.transport(peers, device),
            None => Err(xdit_comm::Error::other("MPI is not initialised")),
        },
    }
}
