//! How a command ends.

/// Status code type in bits 10:8 and status code in bits 7:0 (\[1\] 4.6.1). Data, not an error of
/// the model. An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Generic (\[1\] 4.6.1.2.1): the command completed.
    pub const SUCCESS: Self = Self(0x000);
    /// Generic: nobody knows this opcode.
    pub const INVALID_OPCODE: Self = Self(0x001);
    /// Generic: a field of the command is not supported or contradicts another.
    pub const INVALID_FIELD: Self = Self(0x002);
    /// Generic: data or a PRP list could not be reached.
    pub const DATA_TRANSFER_ERROR: Self = Self(0x004);
    /// Generic: an Abort command ended this one.
    pub const ABORT_REQUESTED: Self = Self(0x007);
    /// Generic: there is no such namespace.
    pub const INVALID_NAMESPACE: Self = Self(0x00b);
    /// Generic: the command came too late or too early.
    pub const COMMAND_SEQUENCE: Self = Self(0x00c);
    /// Generic: a PRP entry has a page offset where none is allowed.
    pub const PRP_OFFSET_INVALID: Self = Self(0x013);
    /// Generic, NVM command set: the blocks are not all on the medium.
    pub const LBA_OUT_OF_RANGE: Self = Self(0x080);
    /// Command specific (\[1\] 4.6.1.2.2): the completion queue does not exist.
    pub const COMPLETION_QUEUE_INVALID: Self = Self(0x100);
    /// Command specific: the queue's identifier is reserved, too large, taken or not known.
    pub const INVALID_QUEUE_IDENTIFIER: Self = Self(0x101);
    /// Command specific: the queue is too small or too large.
    pub const INVALID_QUEUE_SIZE: Self = Self(0x102);
    /// Command specific: more Asynchronous Event Requests than the controller holds.
    pub const EVENT_REQUEST_LIMIT: Self = Self(0x105);
    /// Command specific: there is no such vector.
    pub const INVALID_INTERRUPT_VECTOR: Self = Self(0x108);
    /// Command specific: there is no such log page.
    pub const INVALID_LOG_PAGE: Self = Self(0x109);
    /// Command specific: submission queues still use the completion queue.
    pub const INVALID_QUEUE_DELETION: Self = Self(0x10c);
    /// Command specific: the feature cannot be saved.
    pub const FEATURE_NOT_SAVEABLE: Self = Self(0x10d);
    /// Command specific: the feature cannot be changed.
    pub const FEATURE_NOT_CHANGEABLE: Self = Self(0x10e);
    /// Command specific: the feature is the controller's, not a namespace's.
    pub const FEATURE_NOT_NAMESPACE_SPECIFIC: Self = Self(0x10f);
    /// Media error (\[1\] 4.6.1.2.3): the data differ from the medium.
    pub const COMPARE_FAILURE: Self = Self(0x285);

    /// Bit 13 of the status field: the error log tells more.
    const MORE: u16 = 1 << 13;
    /// Bit 14 of the status field: a retry would fail too.
    const DO_NOT_RETRY: u16 = 1 << 14;

    /// The last 16 bits of a completion queue entry (\[1\] 4.6.1): phase tag, then the status field.
    /// Every error but an abort has an entry in the error log. A fault of the bus or an abort may
    /// pass; whatever else failed would fail again.
    pub fn with_phase(self, phase: bool) -> u16 {
        let (more, permanent) = match self {
            Self::SUCCESS | Self::ABORT_REQUESTED => (0, 0),
            Self::DATA_TRANSFER_ERROR => (Self::MORE, 0),
            _ => (Self::MORE, Self::DO_NOT_RETRY),
        };
        (self.0 & 0x7ff | more | permanent) << 1 | u16::from(phase)
    }

    /// The status in such 16 bits.
    pub const fn of(word: u16) -> Self {
        Self(word >> 1 & 0x7ff)
    }
}
