//! IPv4 blocks, as networks are written: `10.0.0.0/16`. Arithmetic only.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A block of IPv4 addresses; the host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    first: u32,
    prefix: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("not an IPv4 network like 10.0.0.0/16")]
    Shape,
    /// The block that was probably meant.
    #[error("not the start of its block; the block is {0}")]
    HostBits(Cidr),
}

impl Cidr {
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
    pub fn first(&self) -> Ipv4Addr {
        self.first.into()
    }
    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
    }
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & Self::mask(self.prefix) == self.first
    }
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
    /// The `index`th block of size `prefix` in this one.
    pub fn subnet(&self, prefix: u8, index: u32) -> Option<Cidr> {
        let bits = prefix.checked_sub(self.prefix).filter(|_| prefix <= 32)?;
        let size = 1u64 << (32 - u32::from(prefix));
        (u64::from(index) < 1u64 << bits)
            .then(|| u32::try_from(u64::from(self.first) + u64::from(index) * size).ok())
            .flatten()
            .map(|first| Cidr { first, prefix })
    }
    /// The `index`th address.
    pub fn address(&self, index: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(self.first.checked_add(index)?);
        self.contains(address).then_some(address)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Shape)?;
        let address: Ipv4Addr = address.parse().map_err(|_| CidrError::Shape)?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= 32).ok_or(CidrError::Shape)?;
        let block = Cidr { first: u32::from(address) & Self::mask(prefix), prefix };
        if block.first() == address { Ok(block) } else { Err(CidrError::HostBits(block)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks() {
        assert_eq!(cidr("10.0.0.0/16").subnet(20, 3), Some(cidr("10.0.48.0/20")));
        assert_eq!(cidr("10.0.0.0/16").subnet(20, 16), None);
        assert_eq!(cidr("0.0.0.0/0").subnet(0, 0), Some(cidr("0.0.0.0/0")));
        assert_eq!("10.0.1.0/16".parse::<Cidr>(), Err(CidrError::HostBits(cidr("10.0.0.0/16"))));
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.128.0.0/14")));
        assert!(!cidr("10.0.0.0/16").overlaps(&cidr("10.128.0.0/14")));
        assert_eq!(cidr("10.0.0.0/20").address(11), Some(Ipv4Addr::new(10, 0, 0, 11)));
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "10.0.0.0/+8", "::/0"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Shape), "{bad}");
        }
    }
}
