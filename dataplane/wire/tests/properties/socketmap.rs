use proptest::prelude::*;

use super::asking::check;
use super::{pieces, saying};

const WORDS: &[&str] = &[
    "25:transport alice@a.example,",
    "5:m a b,",
    "3:m a,",
    "3:m a;",
    "2049:",
    "2:ma,",
    "03:m a,",
    "0:,",
    "1",
    ":",
    ",",
    "m ",
];

proptest! {
    #[test]
    fn questions_are_what_they_are_however_they_come(said in saying(WORDS), pieces in pieces()) {
        check(&said, &pieces);
    }
}
