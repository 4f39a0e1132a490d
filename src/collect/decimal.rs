//! Parses decimal numbers in the bytes of the kernel's files. `str::parse` needs a `str`, so the bytes would first be checked as UTF-8.

/// Returns the number that the digits have. None if there is none, if there is another byte than a digit, or if the number does not fit.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Returns the numbers between ASCII white space.
pub(super) fn decimals(text: &[u8]) -> impl Iterator<Item = Option<u64>> {
    let mut rest = text;
    // Columns are padded with many spaces, so `split` would find mostly empty fields.
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace);
        let (field, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        (!field.is_empty()).then(|| decimal(field))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decimal, decimals};

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [
            &b""[..],
            b"18446744073709551616",
            b"99999999999999999999",
            b"-1",
            b"+1",
            b"1 ",
            b"1\xff",
        ] {
            assert_eq!(decimal(text), None, "{}", text.escape_ascii());
        }
        let numbers = |text: &'static [u8]| decimals(text).collect::<Vec<_>>();
        assert_eq!(numbers(b" \t "), []);
        assert_eq!(numbers(b"  7\t  8 x\n9"), [Some(7), Some(8), None, Some(9)]);
    }

    proptest! {
        #[test]
        fn every_number_is_read(number: u64) {
            prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
        }
    }
}
