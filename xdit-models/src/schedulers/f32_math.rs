//! Square roots and logarithms of f32, equal to the last bit to those of torch and NumPy on x86-64.
//!
//! torch and NumPy do not round them correctly, and schedules depend on the last bit: diffusers takes the logarithm of the
//! highest noise level once in f32 and once in f64, and truncates the timestep between them to a whole number, 998 or 999.
//! torch takes roots with MKL, whose result depends on the processor's estimate of the reciprocal root. This file uses that of
//! AMD, on which the goldens were made.

/// Returns the square root of a positive number as torch computes it: one step of Goldschmidt's iteration from the processor's
/// estimate, and one correction. Each product is rounded before its sum.
pub(super) fn sqrt(x: f32) -> f32 {
    if !x.is_normal() || x < 0.0 {
        return x.sqrt();
    }
    let estimate = reciprocal_root(x);
    let (root, half) = (x * estimate, 0.5 * estimate);
    let error = 0.5 - root * half;
    let (root, half) = (root + root * error, half + half * error);
    let rest = x - root * root;
    root + rest * half
}

/// Returns the natural logarithm of a positive number as NumPy computes it: a quotient of polynomials of the mantissa (after
/// Cody and Waite).
pub(super) fn ln(x: f32) -> f32 {
    const NUMERATOR: [f32; 6] = [
        0.025_899_792,
        0.380_883_78,
        1.480_000_6,
        2.112_677_6,
        1.0,
        0.0,
    ];
    const DENOMINATOR: [f32; 6] = [
        0.005_875_095_3,
        0.154_647_63,
        0.986_494_3,
        2.453_006,
        2.612_677_6,
        1.0,
    ];
    if !x.is_normal() || x < 0.0 {
        return x.ln();
    }
    let (exponent, mantissa) = split(x);
    // From the root of a half to the root of two.
    let (exponent, mantissa) = match mantissa > std::f32::consts::SQRT_2 {
        true => (exponent + 1, 0.5 * mantissa),
        false => (exponent, mantissa),
    };
    let y = mantissa - 1.0;
    let horner = |sum: f32, next: &f32| sum.mul_add(y, *next);
    let numerator = NUMERATOR.iter().fold(0.0, horner);
    let denominator = DENOMINATOR.iter().fold(0.0, horner);
    (exponent as f32).mul_add(std::f32::consts::LN_2, numerator / denominator)
}

/// The exponent of 2, and the mantissa from 1 to 2.
fn split(x: f32) -> (i32, f32) {
    const ONE: u32 = 0x7f << 23;
    let bits = x.to_bits();
    let mantissa = f32::from_bits((bits & 0x7f_ffff) | ONE);
    ((bits >> 23) as i32 - 127, mantissa)
}

/// Returns the result of the instruction `rsqrtss` on AMD's processors: 12 bits, from one table for the upper and one for the
/// lower bits of the mantissa's first twelve.
fn reciprocal_root(x: f32) -> f32 {
    let (exponent, mantissa) = split(x);
    let odd = exponent.rem_euclid(2);
    let bits = ((mantissa.to_bits() >> 11) & 0xfff) as usize;
    let (upper, lower) = (bits >> 4, bits & 0xf);
    let row = LOWER[odd as usize][bits >> 8];
    let scaled = UPPER[odd as usize][upper] - ((row >> (4 * lower)) & 0xf) as u16;
    let power = -(exponent - odd) / 2 - 13;
    f32::from(scaled) * 2.0_f32.powi(power)
}

/// 2^13 times the reciprocal roots of numbers from 1 to 2, and from 2 to 4, in steps of 1 / 256 of the smallest.
#[rustfmt::skip]
const UPPER: [[u16; 256]; 2] = [
    [
        8191, 8175, 8159, 8144, 8128, 8112, 8097, 8082, 8066, 8051, 8036, 8021, 8006, 7991, 7976, 7962, 7947, 7932, 7918, 7903,
        7889, 7875, 7861, 7847, 7833, 7819, 7805, 7791, 7777, 7764, 7750, 7737, 7723, 7710, 7696, 7683, 7670, 7657, 7644, 7631,
        7618, 7605, 7593, 7580, 7567, 7555, 7542, 7530, 7517, 7505, 7492, 7480, 7468, 7456, 7444, 7432, 7420, 7408, 7397, 7385,
        7373, 7362, 7350, 7339, 7326, 7315, 7304, 7292, 7281, 7270, 7259, 7248, 7237, 7226, 7215, 7204, 7193, 7182, 7172, 7161,
        7150, 7140, 7129, 7119, 7108, 7098, 7087, 7077, 7067, 7057, 7046, 7036, 7026, 7016, 7006, 6996, 6986, 6976, 6966, 6956,
        6946, 6937, 6927, 6917, 6908, 6898, 6889, 6879, 6870, 6860, 6851, 6842, 6832, 6823, 6814, 6804, 6795, 6786, 6777, 6768,
        6759, 6750, 6741, 6732, 6723, 6715, 6706, 6697, 6689, 6680, 6671, 6663, 6654, 6646, 6637, 6629, 6620, 6612, 6603, 6595,
        6587, 6578, 6570, 6562, 6553, 6545, 6537, 6529, 6521, 6513, 6505, 6497, 6489, 6481, 6473, 6465, 6457, 6450, 6442, 6434,
        6426, 6418, 6411, 6403, 6395, 6388, 6380, 6373, 6365, 6358, 6350, 6343, 6335, 6328, 6321, 6313, 6306, 6299, 6292, 6285,
        6277, 6270, 6263, 6256, 6249, 6242, 6235, 6228, 6221, 6214, 6207, 6200, 6192, 6185, 6178, 6172, 6165, 6158, 6151, 6144,
        6138, 6131, 6124, 6118, 6111, 6104, 6098, 6091, 6085, 6078, 6072, 6065, 6059, 6052, 6046, 6039, 6033, 6027, 6020, 6014,
        6008, 6001, 5995, 5989, 5982, 5976, 5970, 5964, 5958, 5952, 5946, 5939, 5933, 5927, 5921, 5915, 5909, 5903, 5897, 5891,
        5885, 5879, 5873, 5867, 5861, 5856, 5850, 5844, 5838, 5832, 5827, 5821, 5815, 5809, 5804, 5798,
    ],
    [
        5792, 5781, 5770, 5758, 5747, 5737, 5726, 5715, 5704, 5693, 5683, 5672, 5661, 5651, 5640, 5630, 5619, 5609, 5599, 5588,
        5578, 5568, 5558, 5548, 5538, 5529, 5519, 5509, 5499, 5490, 5480, 5471, 5461, 5451, 5442, 5433, 5423, 5414, 5405, 5396,
        5387, 5378, 5369, 5360, 5351, 5342, 5333, 5324, 5315, 5307, 5298, 5289, 5281, 5272, 5264, 5255, 5247, 5239, 5230, 5222,
        5214, 5205, 5197, 5189, 5181, 5173, 5165, 5157, 5149, 5141, 5133, 5125, 5117, 5109, 5102, 5094, 5086, 5079, 5071, 5064,
        5056, 5049, 5041, 5034, 5026, 5019, 5012, 5004, 4997, 4990, 4983, 4975, 4968, 4961, 4954, 4947, 4940, 4933, 4926, 4919,
        4912, 4905, 4898, 4891, 4885, 4878, 4871, 4864, 4858, 4851, 4844, 4838, 4831, 4825, 4818, 4812, 4805, 4799, 4792, 4786,
        4780, 4773, 4767, 4761, 4754, 4748, 4742, 4736, 4729, 4723, 4717, 4711, 4705, 4699, 4693, 4687, 4681, 4675, 4669, 4663,
        4657, 4651, 4645, 4640, 4634, 4628, 4622, 4617, 4611, 4605, 4599, 4594, 4588, 4583, 4577, 4571, 4566, 4560, 4555, 4549,
        4544, 4539, 4533, 4528, 4522, 4517, 4512, 4506, 4501, 4496, 4490, 4485, 4480, 4475, 4470, 4464, 4459, 4454, 4449, 4444,
        4439, 4434, 4429, 4424, 4419, 4414, 4409, 4404, 4399, 4394, 4389, 4384, 4378, 4374, 4369, 4364, 4359, 4354, 4349, 4345,
        4340, 4335, 4330, 4326, 4321, 4316, 4312, 4307, 4302, 4298, 4293, 4289, 4284, 4279, 4275, 4270, 4266, 4261, 4257, 4252,
        4248, 4243, 4239, 4235, 4230, 4226, 4221, 4217, 4213, 4208, 4204, 4200, 4195, 4191, 4187, 4183, 4178, 4174, 4170, 4166,
        4161, 4157, 4153, 4149, 4145, 4141, 4137, 4132, 4128, 4124, 4120, 4116, 4112, 4108, 4104, 4100,
    ],
];

/// The values that are subtracted within a step: sixteen digits of 4 bits, lowest first, for each 1 / 16 of the smallest.
#[rustfmt::skip]
const LOWER: [[u64; 16]; 2] = [
    [
        0xedcb_a987_7654_3210, 0xdcba_a987_6543_3210, 0xcbba_9876_6543_2210, 0xbaa9_8776_5443_2210,
        0xa998_7765_5432_2100, 0xa988_7665_5433_2110, 0x9887_6654_4332_2100, 0x8876_6554_4322_1100,
        0x8776_6554_4332_2110, 0x7766_5544_3322_1100, 0x7665_5443_3322_1100, 0x7666_5544_3322_2110,
        0x6655_4433_3221_1100, 0x6555_4443_3222_1100, 0x6555_4433_3221_1100, 0x5544_4333_2211_1000,
    ],
    [
        0xa998_7765_5433_2110, 0x9987_7655_4332_2100, 0x8877_6654_4332_2100, 0x8776_6554_4332_2100,
        0x7766_5544_3322_1100, 0x7666_5544_3322_1110, 0x6655_5443_3222_1100, 0x6655_4443_3222_1100,
        0x5554_4333_2221_1000, 0x5544_4333_2221_1100, 0x5544_4333_2221_1100, 0x5544_4433_3222_1110,
        0x4443_3322_2211_1000, 0x4443_3322_2211_1000, 0x4433_3322_2211_1100, 0x4433_3322_2211_1100,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_torchs() {
        // torch.sqrt(torch.tensor(X)).view(torch.int32); from the fifth to the ninth correct rounding gives another last bit.
        for (x, bits) in [
            (1.0, 0x3f80_0000),
            (2.0, 0x3fb5_04f3),
            (3.0, 0x3fdd_b3d7),
            (1e-5, 0x3b4f_3e37),
            (2_059.672_9, 0x4235_88d4),
            (697.787_9, 0x41d3_534d),
            (1_037.044_6, 0x4200_d00e),
            (1_748.312_7, 0x4227_4057),
            (1_105.815_1, 0x4205_03e3),
            (176_298.6, 0x43d1_f08c),
            (0.0123, 0x3de3_225a),
        ] {
            assert_eq!(sqrt(x).to_bits(), bits, "{x}");
            assert_eq!(sqrt(x * 4.0), 2.0 * sqrt(x), "{x}");
        }
    }

    #[test]
    fn logarithms_are_numpys() {
        // numpy.log(numpy.float32([X])).view(numpy.uint32); correct rounding gives the first two another last bit.
        for (x, bits) in [
            (697.787_9, 0x40d1_8886),
            (1_037.044_6, 0x40de_3651),
            (1.0, 0),
            (2.0, 0x3f31_7218),
            (0.000_850_723, 0xc0e2_38b9_u32),
            (1e-5, 0xc138_34f1),
            (45.383_62, 0x4074_2b70),
        ] {
            assert_eq!(ln(x).to_bits(), bits, "{x}");
        }
    }
}
