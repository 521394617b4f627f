//! How fast the ranks of a job send each other tensors.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use xdit_comm::{Group, Result, Spec};
use xdit_kernels::{DType, Device, Tensor};
use xdit_models::quote;

use crate::report::table::{aligned, cells};

/// The bytes of messages, and how often each is measured after one that is not.
const SIZES: [(usize, usize); 4] = [(8, 40), (64 << 10, 20), (1 << 20, 10), (16 << 20, 3)];
/// Up to so many ranks, each exchanges messages with each. Of more ranks, each does with rank 0 and its neighbour.
const ALL_PAIRS: usize = 8;

/// A time for each of [`SIZES`], in seconds.
type Times = [f64; SIZES.len()];

/// Two ranks and how long a message takes from one to the other.
#[derive(Clone, Debug)]
pub(crate) struct LinkTimes {
    ranks: (usize, usize),
    /// Whether both are on one host.
    is_within: bool,
    one_way: Times,
}

/// The links of a group.
#[derive(Clone, Debug)]
pub(crate) struct LinkReport {
    hosts: usize,
    ranks: usize,
    links: Vec<LinkTimes>,
    /// How long the slowest rank needs to exchange so many bytes in equal parts with all, itself included.
    all_to_all: Times,
}

/// Measures the links between the ranks of a group: pairs of ranks one after another, and then all at once. `hosts` are the
/// numbers of the hosts of the ranks.
///
/// # Collective
/// Every rank calls it.
///
/// # Errors
/// If a rank is lost.
pub(crate) fn measure(group: &Group, device: &Device, hosts: &[usize]) -> Result<LinkReport> {
    let (rank, ranks) = (group.rank(), group.world_size());
    let pairs = pairs(ranks);
    let mut own = Vec::new();
    for &(a, b) in &pairs {
        // One pair at a time has the host and the network.
        group.barrier()?;
        if rank == a {
            own.extend(ping(group, device, b)?);
        } else if rank == b {
            pong(group, device, a)?;
        }
    }
    group.barrier()?;
    own.extend(together(group, device)?);
    let all = group.control().all_gather_f64(&own)?;
    let mut next: Vec<_> = all
        .iter()
        .map(|times| times.chunks_exact(SIZES.len()))
        .collect();
    let mut take = |rank: usize| -> Times {
        let times = next[rank].next().and_then(|times| times.try_into().ok());
        times.unwrap_or([f64::NAN; SIZES.len()])
    };
    let links = pairs.iter().map(|&(a, b)| LinkTimes {
        ranks: (a, b),
        is_within: hosts[a] == hosts[b],
        one_way: take(a),
    });
    let links = links.collect();
    let all_to_all = (0..ranks).map(take).fold([0.0; SIZES.len()], slower);
    let numbers: BTreeSet<_> = hosts.iter().collect();
    Ok(LinkReport {
        hosts: numbers.len(),
        ranks,
        links,
        all_to_all,
    })
}

/// The pairs of ranks that are measured. The first of a pair takes the time.
fn pairs(ranks: usize) -> Vec<(usize, usize)> {
    let all = (0..ranks).flat_map(|a| (a + 1..ranks).map(move |b| (a, b)));
    all.filter(|(a, b)| ranks <= ALL_PAIRS || *a == 0 || *b == a + 1)
        .collect()
}

fn slower(a: Times, b: Times) -> Times {
    std::array::from_fn(|i| a[i].max(b[i]))
}

fn message(bytes: usize, device: &Device) -> Result<Tensor> {
    Ok(Tensor::zeros([bytes], DType::U8, device)?)
}

/// The median of the times that `once` takes, without the first.
fn median(count: usize, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    once()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        once()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[count / 2])
}

/// Half the time of a message to rank `other` and back, for each size.
fn ping(group: &Group, device: &Device, other: usize) -> Result<Times> {
    let mut times = [0.0; SIZES.len()];
    for (time, (bytes, count)) in times.iter_mut().zip(SIZES) {
        let message = message(bytes, device)?;
        let there_and_back = median(count, || {
            group.send(&message, other)?;
            group.recv(Spec::of(&message), other)?;
            Ok(device.synchronize()?)
        })?;
        *time = there_and_back / 2.0;
    }
    Ok(times)
}

/// The other side of [`ping`].
fn pong(group: &Group, device: &Device, other: usize) -> Result<()> {
    for (bytes, count) in SIZES {
        let spec = Spec::new([bytes], DType::U8);
        for _ in 0..=count {
            let message = group.recv(spec, other)?;
            group.send(&message, other)?;
        }
    }
    Ok(device.synchronize()?)
}

/// The times of an exchange of all with all, for each size.
fn together(group: &Group, device: &Device) -> Result<Times> {
    let ranks = group.world_size();
    let mut times = [0.0; SIZES.len()];
    for (time, (bytes, count)) in times.iter_mut().zip(SIZES) {
        let part = message(part(bytes, ranks), device)?;
        let specs = vec![Spec::of(&part); ranks];
        *time = median(count, || {
            group.all_to_all(vec![part.clone(); ranks], &specs)?;
            Ok(device.synchronize()?)
        })?;
    }
    Ok(times)
}

/// The bytes for each rank of a message of so many bytes to all.
fn part(bytes: usize, ranks: usize) -> usize {
    (bytes / ranks).max(1)
}

impl LinkReport {
    /// The slowest times of links within hosts, or between hosts; none where there is no such link.
    fn slowest(&self, is_within: bool) -> Option<Times> {
        let links = self.links.iter().filter(|link| link.is_within == is_within);
        links.map(|link| link.one_way).reduce(slower)
    }

    /// A table of the slowest links, and which one that is.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![cells(["size"])];
        rows.extend(SIZES.map(|(bytes, _)| vec![quote::bytes(bytes as u64)]));
        let mut column = |head: &str, times: Times, moved: &dyn Fn(usize) -> f64| {
            rows[0].extend([head.to_owned(), "GB/s".into()]);
            for (row, (time, (bytes, _))) in rows[1..].iter_mut().zip(times.into_iter().zip(SIZES))
            {
                row.extend([duration(time), rate(moved(bytes) / time, bytes)]);
            }
        };
        let whole = |bytes: usize| bytes as f64;
        for (head, is_within) in [("on one host", true), ("between hosts", false)] {
            if let Some(times) = self.slowest(is_within) {
                column(head, times, &whole);
            }
        }
        let sent = |bytes: usize| ((self.ranks - 1) * part(bytes, self.ranks)) as f64;
        column("all to all", self.all_to_all, &sent);
        let table = aligned(&rows, &[1, 2, 3, 4, 5, 6]);
        let last = SIZES.len() - 1;
        let slowest = self
            .links
            .iter()
            .max_by(|a, b| a.one_way[last].total_cmp(&b.one_way[last]));
        let slowest = slowest.map_or_else(String::new, |link| {
            let (a, b) = link.ranks;
            format!("; the slowest link is that of ranks {a} and {b}")
        });
        format!(
            "messages between {} on {}{slowest}\n{table}",
            quote::counted(self.ranks, "rank"),
            quote::counted(self.hosts, "host"),
        )
    }

    /// The report as `--json` tells it: all measured links.
    pub(crate) fn json(&self) -> Value {
        let links: Vec<Value> = self
            .links
            .iter()
            .map(|link| {
                json!({
                    "ranks": [link.ranks.0, link.ranks.1],
                    "one_host": link.is_within,
                    "seconds": link.one_way,
                })
            })
            .collect();
        json!({
            "ranks": self.ranks,
            "hosts": self.hosts,
            "sizes": SIZES.map(|(bytes, _)| bytes),
            "send_recv": links,
            "all_to_all": {"seconds": self.all_to_all},
        })
    }
}

/// A time in the unit that fits it.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{value:.1} {unit}")
}

/// A rate in GB/s. Of the smallest messages it says nothing: their time is the latency.
fn rate(bytes_per_second: f64, bytes: usize) -> String {
    match bytes == SIZES[0].0 {
        true => String::new(),
        false => format!("{:.2}", bytes_per_second / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_is_measured_and_not_too_many_pairs() {
        for ranks in 2..40 {
            let pairs = pairs(ranks);
            assert!(pairs.iter().all(|(a, b)| a < b && *b < ranks));
            let seen: BTreeSet<_> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
            assert_eq!(seen.len(), ranks);
            assert!(pairs.len() <= 28.max(2 * ranks), "{ranks}");
        }
        assert_eq!(pairs(3), [(0, 1), (0, 2), (1, 2)]);
    }

    #[test]
    fn threads_have_links() {
        let reports =
            xdit_comm::threads::run(3, |group| measure(&group, &Device::cpu(), &[0, 0, 2]));
        let reports: Vec<LinkReport> = reports.unwrap();
        for report in &reports {
            assert_eq!((report.ranks, report.hosts, report.links.len()), (3, 2, 3));
            let all = report.links.iter().map(|link| link.one_way);
            for times in all.chain([report.all_to_all]) {
                assert!(
                    times.iter().all(|time| *time > 0.0 && time.is_finite()),
                    "{report:?}"
                );
            }
            let within: Vec<bool> = report.links.iter().map(|link| link.is_within).collect();
            assert_eq!(within, [true, false, false]);
        }
        assert_eq!(reports[0].json(), reports[2].json());
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let link = |ranks, is_within, time| LinkTimes {
            ranks,
            is_within,
            one_way: [time, 999.9e-6, 999.9e-3, 99.9],
        };
        let report = LinkReport {
            hosts: 2,
            ranks: 3,
            links: vec![
                link((0, 1), true, 1e-6),
                link((0, 2), false, 2e-6),
                link((1, 2), false, 3e-6),
            ],
            all_to_all: [4e-6, 1e-3, 0.9, 99.9],
        };
        let text = report.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + SIZES.len());
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(words, ["8", "B", "1.0", "µs", "3.0", "µs", "4.0", "µs"]);
        // 64 KiB in 1 ms, of which two thirds go to others.
        assert!(lines[3].ends_with(" 0.04"), "{text}");
    }
}
