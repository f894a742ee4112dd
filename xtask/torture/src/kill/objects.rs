//! Objects whose bytes follow from a number.

/// The value of a key: the number of its object, or no object.
pub(super) type Value = Option<u64>;

/// Returns the bytes of object `number`. Its length is one of `lens`.
pub(super) fn payload(lens: &[usize], number: u64) -> Vec<u8> {
    let len = lens[usize::try_from(number).unwrap_or(0) % lens.len()];
    let mut random = fastrand::Rng::with_seed(number);
    let mut payload = vec![0; len];
    random.fill(&mut payload);
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// Returns the number of the object with these bytes, or `None` if no object has them.
pub(super) fn number(lens: &[usize], found: &[u8]) -> Value {
    let number = u64::from_le_bytes(found.get(..8)?.try_into().ok()?);
    (payload(lens, number) == found).then_some(number)
}

pub(super) fn name(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_known_by_all_of_its_bytes() {
        let lens = [20, 3000];
        for seed in 0..4 {
            let mut bytes = payload(&lens, seed);
            assert_eq!(number(&lens, &bytes), Some(seed));
            *bytes.last_mut().unwrap() ^= 1;
            assert_eq!(number(&lens, &bytes), None);
        }
    }
}
