//! Quantiles of the beta distribution with both parameters 0.6, as the beta schedule of noise levels uses them
//! (Lee et al. 2024, "Beta Sampling is All You Need").

/// The shape parameter, twice.
const SHAPE: f64 = 0.6;
/// The beta function B(0.6, 0.6) = Γ(0.6)² / Γ(1.2).
const BETA_FUNCTION: f64 = 2.415_344_208_002_472;

/// The value below which a beta(0.6, 0.6) variable lies with probability `p`.
///
/// The distribution is symmetric, so only its lower half is inverted, where the series converges fast.
pub(super) fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        1.0 - lower_quantile(1.0 - p)
    } else {
        lower_quantile(p)
    }
}

fn lower_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 0.5);
    // Each round halves the interval; after 64 it is far below one unit in the last place of a noise level.
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if distribution(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The distribution function for `x` in [0, 0.5]: x^a Σ (1-b)(2-b)…(n-b) / n! · x^n / (a+n), over B(a, b).
fn distribution(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0 / SHAPE;
    for n in 1..=60_u32 {
        let n = f64::from(n);
        term *= (n - SHAPE) / n * x;
        sum += term / (SHAPE + n);
    }
    x.powf(SHAPE) * sum / BETA_FUNCTION
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "numbers as Python prints them")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6), computed with 30 digits.
        for (p, expected) in [
            (0.001, 1.8558738517452003e-5),
            (0.05, 0.012554456873611408),
            (0.25, 0.17568037865269502),
            (0.4999, 0.49986127490549965),
            (0.75, 0.82431962134730498),
            (0.95, 0.98744554312638859),
            (0.999, 0.99998144126148255),
        ] {
            // Far below the 6e-8 of an f32 noise level.
            let difference: f64 = (quantile(p) - expected).abs();
            assert!(
                difference <= 1e-14,
                "quantile({p}) = {} is not {expected}",
                quantile(p)
            );
        }
    }

    #[test]
    fn the_halves_meet() {
        // The series ends at 60 terms: below 2^-60 of the first.
        assert!(
            (distribution(0.5) - 0.5).abs() <= 1e-14,
            "{}",
            distribution(0.5)
        );
        assert_eq!((quantile(0.0), quantile(1.0)), (0.0, 1.0));
    }
}
