//! Where a PCI function is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Domain, bus, device and function, as `0000:00:01.0`; the domain may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// Whether bus, device and function are the same, whatever the domain.
    pub const fn same_function(self, other: Self) -> bool {
        self.bus == other.bus && self.device == other.device && self.function == other.function
    }
}

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a PCI address; write it as 0000:00:01.0")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let number = |text: &str, digits: usize, most: u32| {
        let plain =
            (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u32::from_str_radix(text, 16).ok()?;
        (plain && value <= most).then_some(value)
    };
    let small = |text, digits, most| u8::try_from(number(text, digits, most)?).ok();
    Some(Address {
        domain: number(domain, 8, u32::MAX)?,
        bus: small(bus, 2, 0xff)?,
        device: small(device, 2, 0x1f)?,
        function: small(function, 1, 7)?,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_the_kernel_does() {
        for (text, kernel) in [
            ("0000:00:01.0", "0000:00:01.0"),
            ("00:1f.7", "0000:00:1f.7"),
            ("10000:E1:00.0", "10000:e1:00.0"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), kernel);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "0",
            ":",
            ".",
            "00:01",
            "00:20.0",
            "00:01.8",
            "00:01.0 ",
            "+0:01.0",
            "../../x:0.0",
            "000:01.0",
            "1:2:3:4.0",
            "00:01.-1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
