//! A number of things, in words.

use core::fmt;

/// Shows how many there are of a thing, as `1 session` and `2 sessions`: for a noun whose plural ends in `s`.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a>(pub u64, pub &'a str);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {noun}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn one_is_singular() {
        for (count, expected) in [(0, "0 uses"), (1, "1 use"), (2, "2 uses")] {
            assert_eq!(Count(count, "use").to_string(), expected);
        }
    }
}
