//! The words for what host and controller do to each other, for whoever reads a trace.

use crate::identity::{MAX_QUEUES, PENDING, TABLE};
use crate::regs::{REGISTERS, Register};
use crate::spec::{
    self, AdminOpcode, AdminQueueAttributes, Capabilities, Command, Configuration,
    ControllerStatus, IoOpcode, Status, completion,
};
use cofferdam_seam::{Bar, Decode, Iova, Purpose};
use core::ops::Range;
use zerocopy::FromBytes;

/// Reads along: where the queues lie it learns from registers and commands. It believes nothing and
/// remembers little, so a host or a controller that lies gets words that are wrong.
#[derive(Debug, Default)]
pub struct Decoder {
    /// CAP.DSTRD.
    stride: u8,
    attributes: u32,
    admin_submission: u64,
    admin_completion: u64,
    /// At most one for each kind and identifier.
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    submits: bool,
    id: u16,
    bytes: Range<u64>,
}

impl Queue {
    fn new(submits: bool, id: u16, base: u64, last: u16) -> Self {
        let entry = if submits {
            spec::SUBMISSION_ENTRY
        } else {
            spec::COMPLETION_ENTRY
        };
        let end = base.saturating_add((u64::from(last) + 1) << entry);
        Self {
            submits,
            id,
            bytes: base..end,
        }
    }
}

impl Decoder {
    /// For a controller whose doorbells are `4 << stride` bytes apart.
    pub fn new(stride: u8) -> Self {
        Self {
            stride: stride.min(crate::MAX_DOORBELL_STRIDE),
            ..Self::default()
        }
    }

    fn created(&mut self, command: &Command) {
        let submits = match AdminOpcode(command.opcode) {
            AdminOpcode::CREATE_SUBMISSION => true,
            AdminOpcode::CREATE_COMPLETION => false,
            _ => return,
        };
        let [id, last] = command.halves(10);
        if (1..=MAX_QUEUES).contains(&id) {
            self.queues
                .retain(|queue| (queue.submits, queue.id) != (submits, id));
            let base = command.prp1.get();
            self.queues.push(Queue::new(submits, id, base, last));
        }
    }
}

impl Decode for Decoder {
    fn register(&self, bar: Bar, offset: u32) -> Option<String> {
        if bar != Bar::ZERO {
            return None;
        }
        Some(match offset {
            PENDING.. => "MSI-X pending bits".to_owned(),
            TABLE.. => format!("MSI-X entry {}", (offset - TABLE) / 16),
            spec::DOORBELLS.. => {
                let number = (offset - spec::DOORBELLS) / (4 << self.stride);
                let queue = number / 2;
                if number.is_multiple_of(2) {
                    format!("SQ{queue} tail doorbell")
                } else {
                    format!("CQ{queue} head doorbell")
                }
            }
            _ => name(find(offset)?).to_owned(),
        })
    }

    fn value(&self, bar: Bar, offset: u32, value: u64) -> Option<String> {
        let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match find(offset).filter(|_| bar == Bar::ZERO)? {
            Register::CapabilitiesLow => {
                let cap = Capabilities::from_bits(value);
                let (entries, timeout) = (cap.max_queue_entries(), cap.timeout());
                Some(format!("MQES {entries}, TO {timeout}"))
            }
            Register::Configuration => {
                let cc = Configuration::from_bits(low);
                let mut words = format!("EN {}", u8::from(cc.enable()));
                for (name, field) in [
                    ("MPS", cc.page()),
                    ("SHN", cc.shutdown()),
                    ("IOSQES", cc.submission_entry()),
                    ("IOCQES", cc.completion_entry()),
                ] {
                    if field != 0 {
                        words += &format!(", {name} {field}");
                    }
                }
                Some(words)
            }
            Register::Status => {
                let csts = ControllerStatus::from_bits(low);
                let set = [
                    (csts.ready(), "RDY"),
                    (csts.fatal(), "CFS"),
                    (csts.shutdown() == spec::shutdown::COMPLETE, "shut down"),
                ];
                let set = set.iter().filter(|(set, _)| *set);
                let words: Vec<&str> = set.map(|(_, word)| *word).collect();
                Some(if words.is_empty() {
                    "not ready".to_owned()
                } else {
                    words.join(", ")
                })
            }
            Register::AdminQueueAttributes => {
                let aqa = AdminQueueAttributes::from_bits(low);
                let (submission, completion) = (aqa.submission(), aqa.completion());
                Some(format!("ASQS {submission}, ACQS {completion}"))
            }
            _ => None,
        }
    }

    fn wrote(&mut self, bar: Bar, offset: u32, width: u8, value: u64) {
        let low = 0xffff_ffff;
        let set = |address: &mut u64, high: bool| {
            *address = match (high, width) {
                (false, 8) => value,
                (false, _) => *address & !low | value & low,
                (true, _) => *address & low | value << 32,
            }
        };
        match find(offset).filter(|_| bar == Bar::ZERO) {
            Some(Register::AdminQueueAttributes) => {
                self.attributes = u32::try_from(value & low).unwrap_or(0);
            }
            Some(Register::AdminSubmissionLow) => set(&mut self.admin_submission, false),
            Some(Register::AdminSubmissionHigh) => set(&mut self.admin_submission, true),
            Some(Register::AdminCompletionLow) => set(&mut self.admin_completion, false),
            Some(Register::AdminCompletionHigh) => set(&mut self.admin_completion, true),
            Some(Register::Configuration) if value & 1 == 1 => {
                let aqa = AdminQueueAttributes::from_bits(self.attributes);
                let (submission, completion) = (self.admin_submission, self.admin_completion);
                self.queues = vec![
                    Queue::new(true, 0, submission, aqa.submission()),
                    Queue::new(false, 0, completion, aqa.completion()),
                ];
            }
            _ => {}
        }
    }

    fn dma(&mut self, at: Iova, why: Purpose, bytes: &[u8]) -> Option<String> {
        let queue = self.queues.iter().find(|queue| {
            let submits = why == Purpose::Descriptor;
            queue.submits == submits && queue.bytes.contains(&at.0)
        });
        let Some(queue) = queue else {
            let list = why == Purpose::Descriptor && !bytes.is_empty();
            return list.then(|| "PRP list".to_owned());
        };
        let (id, within) = (queue.id, at.0 - queue.bytes.start);
        if why == Purpose::Descriptor {
            let command = Command::read_from_bytes(bytes).ok()?;
            let entry = within >> spec::SUBMISSION_ENTRY;
            if id == 0 {
                self.created(&command);
            }
            return Some(format!("SQ{id}[{entry}]: {}", in_words(&command, id == 0)));
        }
        let place = format!("CQ{id}[{}]", within >> spec::COMPLETION_ENTRY);
        let word = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        match why {
            Purpose::Completion => {
                let head = word(completion::SUBMISSION_HEAD)?;
                let queue = word(completion::SUBMISSION)?;
                Some(format!("{place}: SQ{queue} head {head}"))
            }
            Purpose::Publish => {
                let (id, status) = (word(completion::ID)?, word(completion::STATUS)?);
                let phase = status & 1;
                let ends = match Status::of(status) {
                    Status::SUCCESS => "success".to_owned(),
                    Status(code) => format!("status SCT {} SC {:#04x}", code >> 8, code & 0xff),
                };
                Some(format!("{place}: CID {id}, phase {phase}, {ends}"))
            }
            _ => None,
        }
    }
}

fn find(offset: u32) -> Option<Register> {
    let mut all = REGISTERS.iter();
    all.find(|(at, ..)| *at == offset).map(|found| found.1)
}

fn in_words(command: &Command, admin: bool) -> String {
    let Command {
        opcode,
        id,
        namespace,
        prp1,
        prp2,
        ..
    } = command;
    let known = if admin {
        admin_name(AdminOpcode(*opcode))
    } else {
        io_name(IoOpcode(*opcode))
    };
    let name = known.map_or_else(|| format!("opcode {opcode:#04x}"), str::to_owned);
    let mut words = format!("{name}, CID {id}, NSID {namespace}");
    if admin {
        words += &format!(", CDW10 {:#x}", command.dword(10));
    } else {
        let blocks = u32::from(command.halves(12)[0]) + 1;
        words += &format!(", LBA {}, {blocks} block", command.qword(10));
        words += if blocks == 1 { "" } else { "s" };
    }
    for (name, prp) in [("PRP1", prp1), ("PRP2", prp2)] {
        if prp.get() != 0 {
            words += &format!(", {name} {prp:#x}");
        }
    }
    words
}

const fn admin_name(opcode: AdminOpcode) -> Option<&'static str> {
    Some(match opcode {
        AdminOpcode::DELETE_SUBMISSION => "Delete I/O Submission Queue",
        AdminOpcode::CREATE_SUBMISSION => "Create I/O Submission Queue",
        AdminOpcode::GET_LOG_PAGE => "Get Log Page",
        AdminOpcode::DELETE_COMPLETION => "Delete I/O Completion Queue",
        AdminOpcode::CREATE_COMPLETION => "Create I/O Completion Queue",
        AdminOpcode::IDENTIFY => "Identify",
        AdminOpcode::ABORT => "Abort",
        AdminOpcode::SET_FEATURES => "Set Features",
        AdminOpcode::GET_FEATURES => "Get Features",
        AdminOpcode::ASYNC_EVENT_REQUEST => "Asynchronous Event Request",
        AdminOpcode::KEEP_ALIVE => "Keep Alive",
        _ => return None,
    })
}

const fn io_name(opcode: IoOpcode) -> Option<&'static str> {
    Some(match opcode {
        IoOpcode::FLUSH => "Flush",
        IoOpcode::WRITE => "Write",
        IoOpcode::READ => "Read",
        IoOpcode::COMPARE => "Compare",
        IoOpcode::WRITE_ZEROES => "Write Zeroes",
        IoOpcode::DATASET_MANAGEMENT => "Dataset Management",
        _ => return None,
    })
}

/// Names of the standard (NVMe 1.4, 3.1).
const fn name(register: Register) -> &'static str {
    match register {
        Register::CapabilitiesLow => "CAP",
        Register::CapabilitiesHigh => "CAP (high)",
        Register::Version => "VS",
        Register::MaskSet => "INTMS",
        Register::MaskClear => "INTMC",
        Register::Configuration => "CC",
        Register::Status => "CSTS",
        Register::AdminQueueAttributes => "AQA",
        Register::AdminSubmissionLow => "ASQ",
        Register::AdminSubmissionHigh => "ASQ (high)",
        Register::AdminCompletionLow => "ACQ",
        Register::AdminCompletionHigh => "ACQ (high)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    /// A decoder that saw the host enable the controller.
    fn enabled() -> Decoder {
        let mut decoder = Decoder::new(0);
        for (offset, width, value) in [
            (0x24, 4, 0x0007_0007),
            (0x28, 8, 0x1_0000_1000),
            (0x30, 8, 0x2000),
            (0x14, 4, 0x0046_0001),
        ] {
            decoder.wrote(Bar::ZERO, offset, width, value);
        }
        decoder
    }

    #[test]
    fn registers_and_doorbells_have_the_names_of_the_standard() {
        let (near, far) = (Decoder::new(0), Decoder::new(2));

        for (decoder, offset, name) in [
            (&near, 0x1c, "CSTS"),
            (&near, 0x1008, "SQ1 tail doorbell"),
            (&near, 0x100c, "CQ1 head doorbell"),
            (&far, 0x1020, "SQ1 tail doorbell"),
            (&near, 0x2010, "MSI-X entry 1"),
        ] {
            assert_eq!(decoder.register(Bar::ZERO, offset).as_deref(), Some(name));
        }
        assert_eq!(near.register(Bar::ZERO, 0x20), None);
        let says = |offset, value| near.value(Bar::ZERO, offset, value).unwrap_or_default();
        assert_eq!(says(0x1c, 1), "RDY");
        assert_eq!(says(0x1c, 0), "not ready");
        assert_eq!(says(0x14, 0x0046_0001), "EN 1, IOSQES 6, IOCQES 4");
    }

    #[test]
    fn commands_and_completions_are_told_by_queue() {
        let mut decoder = enabled();
        let mut create = Command::new_zeroed();
        create.opcode = AdminOpcode::CREATE_SUBMISSION.0;
        create.id = 7.into();
        create.prp1 = 0x5000.into();
        create.dwords[0] = 0x000f_0001.into();
        let mut read = Command::new_zeroed();
        read.opcode = IoOpcode::READ.0;
        read.id = 9.into();
        read.namespace = 1.into();
        read.prp1 = 0x8000.into();
        read.dwords[0] = 17.into();

        let fetched = decoder.dma(Iova(0x1_0000_1040), Purpose::Descriptor, create.as_bytes());
        let read = decoder.dma(Iova(0x5080), Purpose::Descriptor, read.as_bytes());
        let published = decoder.dma(Iova(0x201c), Purpose::Publish, &[7, 0, 3, 0]);

        assert_eq!(
            fetched.as_deref(),
            Some("SQ0[1]: Create I/O Submission Queue, CID 7, NSID 0, CDW10 0xf0001, PRP1 0x5000")
        );
        assert_eq!(
            read.as_deref(),
            Some("SQ1[2]: Read, CID 9, NSID 1, LBA 17, 1 block, PRP1 0x8000")
        );
        assert_eq!(
            published.as_deref(),
            Some("CQ0[1]: CID 7, phase 1, status SCT 0 SC 0x01")
        );
    }

    #[test]
    fn odd_lengths_and_addresses_are_not_decoded() {
        let mut decoder = enabled();
        for at in [0, 0x2001, 0x1_0000_1000, 0x1_0000_11ff, u64::MAX] {
            for len in [0, 1, 3, 4, 12, 63, 64] {
                for why in [Purpose::Descriptor, Purpose::Completion, Purpose::Publish] {
                    let _ = decoder.dma(Iova(at), why, &vec![0xff; len]);
                }
            }
        }
        assert_eq!(decoder.dma(Iova(0x2000), Purpose::Publish, &[0; 3]), None);
    }
}
