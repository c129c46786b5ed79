//! What the processes and machines of a campaign tell each other: a line of JSON each, programs as text.
//!
//! Nobody believes the other side. A worker carries a driver that may have written anywhere, and a peer may
//! be anybody: lines have a limit, programs are parsed, and what a peer found is found again here or not at all.

use cofferdam_fuzz::finding::Finding;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, ErrorKind, Read, Write};

/// Bytes of a line. The longest program is a tenth of it.
pub const LINE: usize = 1 << 20;

/// What a worker tells the process that started it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Up {
    /// How it is doing.
    Status(Progress),
    /// A program that did something new.
    Kept {
        /// Its text.
        program: String,
    },
    /// A finding, which is on disk.
    Found(Box<Finding>),
    /// It lives, whatever its driver does.
    Alive,
    /// Its driver takes it down, after so many executions.
    Died {
        /// Of this life.
        executions: u64,
    },
}

/// How a worker is doing.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Programs run, in this life.
    pub executions: u64,
    /// Edges taken.
    pub edges: usize,
    /// Edges there are.
    pub edges_of: usize,
    /// Programs kept.
    pub corpus: usize,
    /// Programs of others that did something new here.
    pub imported: u64,
}

/// What a worker is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// A program that did something new elsewhere.
    Program {
        /// Its text.
        program: String,
    },
    /// Another worker has written that finding.
    Known {
        /// Its signature.
        signature: String,
    },
    /// The campaign is over.
    End,
}

/// What campaigns on two machines tell each other.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Across {
    /// The first line of both.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The target.
        target: String,
    },
    /// A program that did something new, or shows a finding.
    Program {
        /// Its text.
        program: String,
    },
}

/// The version of [`Across`].
pub const PROTOCOL: u32 = 1;

/// The line of a message.
pub fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > LINE {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the message is too long",
        ));
    }
    Ok(line)
}

/// Sends a message.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&line_of(message)?)
}

/// Receives a message; none at the end.
pub fn receive<M: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<M>> {
    receive_short(from, LINE as u64)
}

/// Receives a message of so many bytes at most.
pub fn receive_short<M: DeserializeOwned>(
    from: &mut impl BufRead,
    most: u64,
) -> io::Result<Option<M>> {
    let mut line = Vec::new();
    from.take(most).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(
            ErrorKind::InvalidData,
            "half a message, or one that is too long",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order() {
        let mut bytes = Vec::new();
        for executions in 0..3 {
            send(&mut bytes, &Up::Died { executions }).expect("memory");
        }
        let mut from = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(Up::Died { executions }) = receive(&mut from).expect("messages") {
            seen.push(executions);
        }
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn line_without_an_end_is_refused_at_the_limit() {
        let endless = io::repeat(b'x');
        let mut from = io::BufReader::new(endless);
        let error = receive::<Up>(&mut from).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn half_a_message_is_refused() {
        let mut from = b"{\"died\":{\"exec".as_slice();
        let error = receive::<Up>(&mut from).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
