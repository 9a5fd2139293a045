//! Prime numbers, by trial division: the numbers are table sizes, a few million at most.

/// True if `number` is prime.
#[must_use]
pub const fn is_prime(number: u32) -> bool {
    if number < 4 {
        return number >= 2;
    }
    if number.is_multiple_of(2) {
        return false;
    }
    let mut divisor = 3;
    // `divisor <= number / divisor` is `divisor² <= number` without the overflow.
    while divisor <= number / divisor {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    true
}

/// The smallest prime that is not below `number`; `None` where 32 bits hold none.
#[must_use]
pub const fn next_prime(number: u32) -> Option<u32> {
    let mut candidate = number;
    while !is_prime(candidate) {
        match candidate.checked_add(1) {
            Some(next) => candidate = next,
            None => return None,
        }
    }
    Some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<u32> = (0..60).filter(|&number| is_prime(number)).collect();
        assert_eq!(
            primes,
            [
                2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59
            ]
        );
        for prime in [251, 65_537, 655_373, 5_000_011, 4_294_967_291] {
            assert!(is_prime(prime), "{prime}");
        }
        for composite in [65_536, 65_539 * 3, 251 * 251, u32::MAX] {
            assert!(!is_prime(composite), "{composite}");
        }
    }

    #[test]
    fn the_next_prime_of_a_prime_is_itself() {
        assert_eq!(next_prime(0), Some(2));
        assert_eq!(next_prime(65_536), Some(65_537));
        assert_eq!(next_prime(65_537), Some(65_537));
        assert_eq!(next_prime(4_294_967_291), Some(4_294_967_291));
        assert_eq!(next_prime(4_294_967_292), None);
    }
}
