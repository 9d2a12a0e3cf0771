//! An account id in 17 bytes.

use ferrypost_proto::AccountId;

/// The 26 digits of an account id (each of `0-9a-z`, so 36^26 < 2^135 of them) as a number, big end
/// first. Exact both ways, and ordered as the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AccountKey(pub(super) [u8; AccountKey::BYTES]);

const PREFIX: &str = "acct-";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const HALF: usize = 13;

impl AccountKey {
    pub(super) const BYTES: usize = 17;

    /// The key of an id, if the text is one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        AccountId::parse(text)
            .ok()
            .map(|account| Self::from(&account))
    }

    /// Back to the id.
    pub(super) fn account(self) -> AccountId {
        let wide = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u128, |n, byte| n << 8 | u128::from(*byte))
        };
        let mut text = [0; PREFIX.len() + 2 * HALF];
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        let (high, low) = digits.split_at_mut(HALF);
        prefix.copy_from_slice(PREFIX.as_bytes());
        write_digits(high, wide(&self.0[..9]) >> 4);
        write_digits(low, wide(&self.0[8..]) & ((1 << 68) - 1));
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| AccountId::parse(text).ok())
            .expect("a key is made from an account id")
    }
}

impl From<&AccountId> for AccountKey {
    fn from(account: &AccountId) -> Self {
        let digits = account
            .as_str()
            .strip_prefix(PREFIX)
            .expect("every account id has its prefix")
            .as_bytes();
        // 36^13 < 2^68: each half takes eight and a half bytes.
        let (high, low) = (read_digits(&digits[..HALF]), read_digits(&digits[HALF..]));
        let mut key = [0; Self::BYTES];
        key[..9].copy_from_slice(&(high << 4 | low >> 64).to_be_bytes()[7..]);
        key[9..].copy_from_slice(&low.to_be_bytes()[8..]);
        Self(key)
    }
}

fn read_digits(text: &[u8]) -> u128 {
    text.iter().fold(0, |n, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        };
        n * 36 + u128::from(value)
    })
}

/// Divides a wide number once only: this is on the way of every look-up.
fn write_digits(text: &mut [u8], number: u128) {
    const SIX: usize = 6;
    const SIX_DIGITS: u128 = 36_u128.pow(6);
    let narrow = |wide| u64::try_from(wide).expect("seven digits are below 2^37");
    let (first, last) = text.split_at_mut(HALF - SIX);
    write_few_digits(first, narrow(number / SIX_DIGITS));
    write_few_digits(last, narrow(number % SIX_DIGITS));
}

fn write_few_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[usize::try_from(number % 36).expect("below 36")];
        number /= 36;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_exact_and_keep_the_order(a in "[0-9a-z]{26}", b in "[0-9a-z]{26}") {
            let account = |digits: &str| AccountId::parse(&format!("acct-{digits}")).unwrap();
            let (a, b) = (account(&a), account(&b));
            prop_assert_eq!(AccountKey::from(&a).account(), a.clone());
            prop_assert_eq!(AccountKey::from(&a).cmp(&AccountKey::from(&b)), a.cmp(&b));
        }
    }

    #[test]
    fn the_largest_id_fits() {
        let account = AccountId::parse(&format!("acct-{}", "z".repeat(26))).unwrap();
        assert_eq!(AccountKey::from(&account).account(), account);
    }
}
