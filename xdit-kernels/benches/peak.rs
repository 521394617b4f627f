//! The rate of multiply-add instructions alone: what no kernel of a tier can exceed. Loops over registers, on one thread and
//! on two; the best of some runs, since others only take time away.
//!
//! `cargo bench -p xdit-kernels --bench peak`

#![allow(missing_docs, reason = "a program")]

use std::time::Instant;

/// Turns of the loop in a run: some milliseconds.
const TURNS: usize = 1 << 20;

/// A loop of registers, and the operations of a turn.
struct RegisterLoop {
    name: &'static str,
    available: bool,
    flops: usize,
    run: unsafe fn(usize) -> f32,
}

/// GFLOP/s of all `threads` together.
fn rate(of: &RegisterLoop, threads: usize) -> f64 {
    let best = |of: &RegisterLoop| {
        (0..20).fold(f64::INFINITY, |best, _| {
            let start = Instant::now();
            // SAFETY: the processor has the features, as `available` says.
            std::hint::black_box(unsafe { (of.run)(TURNS) });
            best.min(start.elapsed().as_secs_f64())
        })
    };
    let rates = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| best(of))).collect();
        let seconds = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        seconds.map(|s| (TURNS * of.flops) as f64 / s).sum::<f64>()
    });
    rates / 1e9
}

#[cfg(target_arch = "x86_64")]
mod loops {
    use super::RegisterLoop;
    use std::arch::{is_x86_feature_detected as has, x86_64::*};

    /// Chains that do not wait for each other: more than two pipes of latency 4 need.
    const CHAINS: usize = 12;

    macro_rules! fma_loop {
        ($name:ident, $features:literal, $vector:ty, $splat:ident, $fma:ident, $add:ident, $first:ident) => {
            #[target_feature(enable = $features)]
            unsafe fn $name(turns: usize) -> f32 {
                let (a, b) = (
                    std::hint::black_box($splat(1.0)),
                    std::hint::black_box($splat(1e-9)),
                );
                let mut sums: [$vector; CHAINS] = [$splat(0.0); CHAINS];
                for _ in 0..turns {
                    for sum in &mut sums {
                        *sum = $fma(*sum, a, b);
                    }
                }
                $first(
                    sums.into_iter()
                        .fold($splat(0.0), |all, sum| $add(all, sum)),
                )
            }
        };
    }
    fma_loop!(
        avx2,
        "avx2,fma",
        __m256,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_cvtss_f32
    );
    fma_loop!(
        avx512,
        "avx512f",
        __m512,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_cvtss_f32
    );

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn avx512_bf16(turns: usize) -> f32 {
        // SAFETY: both types are 512 bits without invalid values.
        let one = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(0x3f80)) };
        let one = std::hint::black_box(one);
        let mut sums = [_mm512_set1_ps(0.0); CHAINS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, one, one);
            }
        }
        let all = sums
            .into_iter()
            .fold(_mm512_set1_ps(0.0), |all, sum| _mm512_add_ps(all, sum));
        _mm512_cvtss_f32(all)
    }

    pub(super) fn all() -> Vec<RegisterLoop> {
        let of = |name, available, flops, run| RegisterLoop {
            name,
            available,
            flops: flops * CHAINS,
            run,
        };
        vec![
            of("f32, AVX2", has!("avx2") && has!("fma"), 2 * 8, avx2),
            of("f32, AVX-512", has!("avx512f"), 2 * 16, avx512),
            of("bf16, AVX512-BF16", has!("avx512bf16"), 4 * 16, avx512_bf16),
        ]
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod loops {
    /// None is written for this architecture yet.
    pub(super) fn all() -> Vec<super::RegisterLoop> {
        Vec::new()
    }
}

fn main() {
    println!("| peak | 1 thread, GFLOP/s | 2 threads, GFLOP/s |\n|---|---|---|");
    for of in loops::all().iter().filter(|of| of.available) {
        println!("| {} | {:.1} | {:.1} |", of.name, rate(of, 1), rate(of, 2));
    }
}
