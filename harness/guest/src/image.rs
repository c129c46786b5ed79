//! The kernel proper out of a bzImage.
//!
//! A machine that boots the ELF file itself (PVH) is up two to three seconds sooner, under an
//! interpreter, than one that runs the kernel's own decompressor first. Offsets: Linux,
//! Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".

use std::ops::Range;
use thiserror::Error;

const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first version of the protocol with the payload's place.
const WITH_PAYLOAD: u16 = 0x0208;

/// What begins every ELF file.
const ELF: &[u8] = b"\x7fELF";

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// By the first bytes; anything unknown counts as not compressed.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The program that undoes it, with `-d`, from standard input to standard output.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Xz => Some("xz"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Why no kernel can be taken out of a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Something else altogether.
    #[error("it is neither an ELF file nor a bzImage")]
    NotAKernel,
    /// From before Linux 2.6.26.
    #[error("its boot protocol {0:#06x} is too old to say where the kernel is; 0x0208 is needed")]
    TooOld(u16),
    /// The header points out of the file.
    #[error("its payload at {0:#x?} lies outside the file")]
    Truncated(Range<usize>),
    /// A compression that nothing here undoes.
    #[error("its payload is compressed in an unknown way, or not an ELF file: it begins {0:02x?}")]
    Unknown(Vec<u8>),
}

/// Where the kernel proper is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its bytes.
    pub bytes: Range<usize>,
    /// And how they are compressed.
    pub compression: Compression,
}

/// Finds the ELF file in a kernel image; an ELF file is its own payload.
///
/// # Errors
/// [`ImageError`], for anything that is not a kernel for x86.
pub fn payload(image: &[u8]) -> Result<Payload, ImageError> {
    if image.starts_with(ELF) {
        return Ok(Payload {
            bytes: 0..image.len(),
            compression: Compression::None,
        });
    }
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(ImageError::NotAKernel);
    }
    let version = u16::from_le_bytes(field(image, VERSION)?);
    if version < WITH_PAYLOAD {
        return Err(ImageError::TooOld(version));
    }
    let [sectors] = field(image, SETUP_SECTORS)?;
    let sectors = if sectors == 0 {
        4
    } else {
        usize::from(sectors)
    };
    let offset = u32::from_le_bytes(field(image, PAYLOAD_OFFSET)?) as usize;
    let length = u32::from_le_bytes(field(image, PAYLOAD_LENGTH)?) as usize;
    let start = (sectors + 1) * 512 + offset;
    let bytes = start..start + length;
    let content = image
        .get(bytes.clone())
        .ok_or_else(|| ImageError::Truncated(bytes.clone()))?;
    let compression = Compression::of(content);
    // The build appends the size of the kernel to the formats that do not end with it themselves.
    let appended = match compression {
        Compression::Xz | Compression::Zstd => 4,
        Compression::Gzip => 0,
        Compression::None if content.starts_with(ELF) => 0,
        Compression::None => {
            return Err(ImageError::Unknown(content[..content.len().min(8)].into()));
        }
    };
    Ok(Payload {
        bytes: bytes.start..bytes.end.saturating_sub(appended).max(bytes.start),
        compression,
    })
}

fn field<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], ImageError> {
    image
        .get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ImageError::Truncated(at..at + N))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An image with one set-up sector and `payload` 16 bytes into the rest.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("short");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"the tables behind it");
        image
    }

    #[test]
    fn zstd_payload_is_found_without_the_appended_size() {
        let image = image(b"\x28\xb5\x2f\xfdkernel\x00\x00\x00\x04");

        let payload = payload(&image).expect("payload");

        assert_eq!(payload.compression, Compression::Zstd);
        assert_eq!(&image[payload.bytes], b"\x28\xb5\x2f\xfdkernel");
    }

    #[test]
    fn gzip_payload_ends_with_its_own_size() {
        let image = image(b"\x1f\x8bkernel\x00\x00\x00\x04");

        let payload = payload(&image).expect("payload");

        assert_eq!(&image[payload.bytes], b"\x1f\x8bkernel\x00\x00\x00\x04");
    }

    #[test]
    fn zero_set_up_sectors_mean_four() {
        let mut image = image(b"");
        image[SETUP_SECTORS] = 0;
        image.resize(5 * 512 + 16, 0);
        image.extend_from_slice(b"\x7fELF");
        image[PAYLOAD_LENGTH] = 4;

        let payload = payload(&image).expect("payload");

        assert_eq!(payload.bytes, 5 * 512 + 16..5 * 512 + 20);
    }

    #[test]
    fn elf_file_is_its_own_payload() {
        let found = payload(b"\x7fELF and so on").expect("payload");

        assert_eq!(found.bytes, 0..14);
        assert_eq!(found.compression, Compression::None);
    }

    #[test]
    fn old_and_truncated_and_unknown_images_are_told_apart() {
        let mut old = image(b"\x1f\x8b");
        old[VERSION] = 0x07;
        old[VERSION + 1] = 0x02;
        let mut short = image(b"\x1f\x8b");
        short[PAYLOAD_LENGTH + 2] = 1;

        assert_eq!(payload(&old), Err(ImageError::TooOld(0x0207)));
        assert!(matches!(payload(&short), Err(ImageError::Truncated(_))));
        assert!(matches!(
            payload(&image(b"LZO kernel")),
            Err(ImageError::Unknown(_))
        ));
        assert_eq!(payload(b"#!/bin/sh"), Err(ImageError::NotAKernel));
    }

    proptest! {
        #[test]
        fn no_image_makes_the_parser_panic(mut image in proptest::collection::vec(any::<u8>(), 0..2048)) {
            if let Some(magic) = image.get_mut(MAGIC..MAGIC + 4) {
                magic.copy_from_slice(b"HdrS");
            }
            if let Ok(found) = payload(&image) {
                prop_assert!(found.bytes.end <= image.len());
            }
        }
    }
}
