//! Random numbers of one event: those of event n are a function of the seed and n alone, so that
//! whoever makes the event makes the same one.

/// The random numbers of an event, in their order.
///
/// Source: wyrand (Wang Yi), started at a mixture of key and number.
pub(super) struct Draws {
    state: u64,
}

/// Mixes two numbers: both halves of their product.
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Draws {
    /// Of event `number` under this seed.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        // Seeds and numbers are small and close to each other: both are spread before they meet.
        let spread = fold(seed ^ 0x2D35_8DCC_AA6C_78A5, 0x8BB8_4B93_962E_ACC9);
        Self { state: fold(number ^ spread, 0x9E37_79B9_7F4A_7C15) ^ spread }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0xA076_1D64_78BD_642F);
        fold(self.state, self.state ^ 0xE703_7ED1_A0B4_28DB)
    }

    /// A number below `bound`, which fits into 32 bits.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        scale((self.bits() >> 32) as u32, bound)
    }
}

/// Makes of 32 random bits a number below `bound`, which fits into 32 bits.
pub(super) fn scale(bits: u32, bound: u64) -> u64 {
    (u64::from(bits) * bound) >> 32
}

/// A price in cents, from 100 to 100,000,000: its logarithm is uniform.
///
/// Sums and products only, no library's power function: the price is the same on every machine.
///
/// Source: `PriceGenerator`, 10^(6 u) · 100 for a u in [0, 1).
pub(super) fn price(bits: u64) -> i64 {
    const LOG2_OF_100: f64 = 6.643_856_189_774_724;
    const LOG2_OF_1_000_000: f64 = 19.931_568_569_324_174;
    let unit = (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
    let power = LOG2_OF_100 + unit * LOG2_OF_1_000_000;
    let whole = power as u64;
    // 2^fraction by Taylor around the middle: the tenth term is below 1e-11.
    let x = (power - whole as f64 - 0.5) * std::f64::consts::LN_2;
    let mut sum = 1.0;
    for divisor in [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0] {
        sum = 1.0 + x * sum * (1.0 / divisor);
    }
    let two_to_whole = f64::from_bits((1_023 + whole) << 52);
    (sum * std::f64::consts::SQRT_2 * two_to_whole + 0.5) as i64
}
