//! Four processes of this host join a world, check its backend with the conformance suite, and add a number.

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{env, process::Command};
    use xdit_comm::processes::local::Meeting;
    use xdit_comm::processes::{JobSecret, ProcessOptions, RankPlace, Transport, join};
    use xdit_comm::xdit_kernels::{Device, Tensor};
    use xdit_comm::{ReduceOp, conformance};

    let Ok(rank) = env::var("RANK") else {
        // No launcher: this process starts the ranks, as a launcher would.
        let start = |rank: usize| {
            let mut program = Command::new(env::current_exe()?);
            program.env("RANK", rank.to_string()).spawn()
        };
        let ranks = (0..4).map(start).collect::<Result<Vec<_>, _>>()?;
        for mut rank in ranks {
            assert!(rank.wait()?.success(), "a rank failed");
        }
        return Ok(());
    };
    let place = RankPlace {
        rank: rank.parse()?,
        world_size: 4,
        host: "this host".to_owned(),
        rendezvous: "localhost:29517".to_owned(),
        secret: JobSecret::default(),
        restart: 0,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        plan: "add a number".to_owned(),
        numbers: Vec::new(),
    };
    let world = join(&place, ProcessOptions::default(), |peers| {
        // A transport of your own takes the place of this one.
        let meeting = Meeting::open(&env::temp_dir())?;
        let addresses = peers.all_gather(&meeting.address())?;
        let local = meeting.connect(peers.rank(), &addresses, &Device::cpu(), || peers.check())?;
        Ok(Box::new(local) as Box<dyn Transport>)
    })?;
    let group = world.group();
    for (name, check) in conformance::CHECKS {
        check(group).map_err(|error| format!("{name}: {error}"))?;
    }
    let mine = Tensor::from_slice(&[group.rank() as f32], [1], &Device::cpu())?;
    let sum = group.all_reduce(&mine, ReduceOp::Sum)?;
    println!("rank {rank}: {:?}", sum.to_vec_blocking::<f32>()?);
    Ok(())
}

#[cfg(not(unix))]
fn main() {}
