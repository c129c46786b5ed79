//! The admin commands (NVMe 1.4, 5).

use crate::controller::Nvme;
use crate::features::Features;
use crate::identify::{self, NAMESPACE};
use crate::log_pages;
use crate::medium::MAX_TRANSFER;
use crate::queue::{CompletionQueue, SubmissionQueue};
use crate::spec::features::{FeatureId, SAVE, capability, select};
use crate::spec::identify::Cns;
use crate::spec::log::{Event, LogId, RETAIN_EVENT};
use crate::spec::{
    AdminOpcode, BROADCAST, COMPLETION_ENTRY, Command, SUBMISSION_ENTRY, Status, create,
};
use cofferdam_seam::{BusPort, Iova};
use zerocopy::IntoBytes;

/// Result of an Abort that aborted nothing (5.1).
const NOT_ABORTED: u32 = 1;

impl Nvme {
    /// Carries out an admin command. Returns dword 0 of its completion; none if it completes later.
    pub(crate) fn admin(
        &mut self,
        command: &Command,
        bus: &mut BusPort<'_>,
    ) -> Result<Option<u32>, Status> {
        if command.flags & Command::UNSUPPORTED_FLAGS != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let done = |()| Some(0);
        match AdminOpcode(command.opcode) {
            AdminOpcode::CREATE_COMPLETION => self.create_completion(command).map(done),
            AdminOpcode::CREATE_SUBMISSION => self.create_submission(command).map(done),
            AdminOpcode::DELETE_COMPLETION => self.delete_completion(command, bus).map(done),
            AdminOpcode::DELETE_SUBMISSION => self.delete_submission(command).map(done),
            AdminOpcode::IDENTIFY => self.identify(command, bus).map(done),
            AdminOpcode::GET_LOG_PAGE => self.get_log_page(command, bus).map(done),
            AdminOpcode::GET_FEATURES => self.get_features(command).map(Some),
            AdminOpcode::SET_FEATURES => self.set_features(command).map(Some),
            AdminOpcode::ABORT => Ok(Some(self.abort(command, bus))),
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                self.events.request(command.id.get()).map(|()| None)
            }
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Whether an I/O queue can have that identifier. Number 0 is the admin queue.
    fn is_io_queue(&self, id: u16) -> bool {
        (1..=self.queues).contains(&id)
    }

    /// What both sorts of queue have to fulfil: entries as large as CC says, a size up to CAP.MQES,
    /// in a row from the start of a page.
    fn check_queue(
        &self,
        command: &Command,
        entry: u8,
        expected: u8,
    ) -> Result<(Iova, u32), Status> {
        let [_, less_one] = command.halves(10);
        let [flags, _] = command.halves(11);
        let largest = self.registers.capabilities.max_queue_entries();
        if entry != expected || less_one == 0 || less_one > largest {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        if flags & create::CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        let base = command.prp1.get();
        if !base.is_multiple_of(self.registers.page()) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        Ok((Iova(base), u32::from(less_one) + 1))
    }

    /// Create I/O Completion Queue (5.3).
    fn create_completion(&mut self, command: &Command) -> Result<(), Status> {
        let [id, _] = command.halves(10);
        if !self.is_io_queue(id) || self.completions[usize::from(id)].is_some() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let entry = self.registers.configuration.completion_entry();
        let (base, size) = self.check_queue(command, entry, COMPLETION_ENTRY)?;
        let [flags, vector] = command.halves(11);
        let vector = (flags & create::INTERRUPTS != 0).then_some(vector);
        if vector.is_some_and(|vector| vector > self.queues) {
            return Err(Status::INVALID_INTERRUPT_VECTOR);
        }
        self.completions[usize::from(id)] = Some(CompletionQueue::new(base, size, vector));
        Ok(())
    }

    /// Create I/O Submission Queue (5.4). All have the same priority: round robin.
    fn create_submission(&mut self, command: &Command) -> Result<(), Status> {
        let [id, _] = command.halves(10);
        if !self.is_io_queue(id) || self.submissions[usize::from(id)].is_some() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let [_, completion] = command.halves(11);
        if !self.is_io_queue(completion) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        if self.completions[usize::from(completion)].is_none() {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        let entry = self.registers.configuration.submission_entry();
        let (base, size) = self.check_queue(command, entry, SUBMISSION_ENTRY)?;
        self.submissions[usize::from(id)] = Some(SubmissionQueue::new(base, size, completion));
        Ok(())
    }

    /// Delete I/O Completion Queue (5.5): no submission queue may use it any more.
    fn delete_completion(
        &mut self,
        command: &Command,
        bus: &mut BusPort<'_>,
    ) -> Result<(), Status> {
        let [id, _] = command.halves(10);
        if !self.is_io_queue(id) || self.completions[usize::from(id)].is_none() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let mut users = self.submissions.iter().flatten();
        if users.any(|queue| queue.completion == id) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        self.completions[usize::from(id)] = None;
        self.settle_pin(bus);
        Ok(())
    }

    /// Delete I/O Submission Queue (5.6). Commands that were not fetched are forgotten; there are
    /// no others.
    fn delete_submission(&mut self, command: &Command) -> Result<(), Status> {
        let [id, _] = command.halves(10);
        if !self.is_io_queue(id) || self.submissions[usize::from(id)].is_none() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        self.submissions[usize::from(id)] = None;
        Ok(())
    }

    /// Moves `bytes`, at most [`MAX_TRANSFER`], to where the command wants them.
    fn send(
        &mut self,
        bytes: &[u8],
        command: &Command,
        bus: &mut BusPort<'_>,
    ) -> Result<(), Status> {
        let prps = [command.prp1.get(), command.prp2.get()];
        let page = self.registers.page();
        self.pieces.find(prps, bytes.len(), page, bus)?;
        self.pieces
            .write(bytes, bus)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Identify (5.15).
    fn identify(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let namespace = command.namespace.get();
        let [cns, ..] = command.dword(10).to_le_bytes();
        let cns = Cns(cns);
        if matches!(cns, Cns::NAMESPACE | Cns::DESCRIPTORS) && namespace != NAMESPACE {
            return Err(Status::INVALID_NAMESPACE);
        }
        match cns {
            Cns::NAMESPACE => {
                let tells = identify::namespace(self.seed, self.medium.blocks());
                self.send(tells.as_bytes(), command, bus)
            }
            Cns::CONTROLLER => {
                let tells = identify::controller(self.seed);
                self.send(tells.as_bytes(), command, bus)
            }
            // The last two identifiers have none above them (5.15.2.3).
            Cns::ACTIVE_NAMESPACES if namespace >= BROADCAST - 1 => Err(Status::INVALID_NAMESPACE),
            Cns::ACTIVE_NAMESPACES => {
                self.send(&identify::active_namespaces(namespace), command, bus)
            }
            Cns::DESCRIPTORS => self.send(&identify::descriptors(self.seed), command, bus),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// Get Log Page (5.14). What lies beyond a page's end reads as zeros, but the host cannot begin
    /// there.
    fn get_log_page(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let [id, ..] = command.dword(10).to_le_bytes();
        let id = LogId(id);
        let mut page = [0; log_pages::MAX_PAGE];
        let filled = self.logs.fill(id, &self.features, bus.now(), &mut page);
        let length = filled.ok_or(Status::INVALID_LOG_PAGE)?;
        // Logs are the controller's (LPA bit 0).
        if !matches!(command.namespace.get(), 0 | BROADCAST) {
            return Err(Status::INVALID_FIELD);
        }
        let ([_, low], [high, _]) = (command.halves(10), command.halves(11));
        let dwords = (u64::from(high) << 16 | u64::from(low)) + 1;
        let wanted = usize::try_from(4 * dwords).unwrap_or(usize::MAX);
        let offset = usize::try_from(command.qword(12)).unwrap_or(usize::MAX);
        if wanted > MAX_TRANSFER || offset > length || !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD);
        }
        let mut bytes = core::mem::take(&mut self.arriving);
        bytes[..wanted].fill(0);
        let told = wanted.min(length - offset);
        bytes[..told].copy_from_slice(&page[offset..offset + told]);
        let sent = self.send(&bytes[..wanted], command, bus);
        self.arriving = bytes;
        if sent.is_ok() && command.dword(10) & RETAIN_EVENT == 0 {
            self.events.log_was_read(id);
        }
        sent
    }

    /// Get Features (5.13).
    fn get_features(&mut self, command: &Command) -> Result<u32, Status> {
        let [id, select, ..] = command.dword(10).to_le_bytes();
        let id = FeatureId(id);
        let supported = Features::supported(id)?;
        if supported & capability::NAMESPACE_SPECIFIC != 0 && command.namespace.get() != NAMESPACE {
            return Err(Status::INVALID_NAMESPACE);
        }
        match select & 7 {
            select::CURRENT => self.features.get(id, command.dword(11)),
            // What cannot be saved has its default saved (5.13).
            select::DEFAULT | select::SAVED => {
                Features::new(self.queues).get(id, command.dword(11))
            }
            select::SUPPORTED => Ok(supported),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// Set Features (5.21).
    fn set_features(&mut self, command: &Command) -> Result<u32, Status> {
        let [id, ..] = command.dword(10).to_le_bytes();
        let id = FeatureId(id);
        let supported = Features::supported(id)?;
        if command.dword(10) & SAVE != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        let of_namespace = supported & capability::NAMESPACE_SPECIFIC != 0;
        match command.namespace.get() {
            BROADCAST => {}
            0 if !of_namespace => {}
            NAMESPACE if of_namespace => {}
            NAMESPACE => return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC),
            _ => return Err(Status::INVALID_NAMESPACE),
        }
        // How many queues there are is settled before the first is created (5.21.1.7).
        let created = self.completions.iter().skip(1).any(Option::is_some);
        if id == FeatureId::NUMBER_OF_QUEUES && created {
            return Err(Status::COMMAND_SEQUENCE);
        }
        let result = self.features.set(id, command.dword(11))?;
        if self.features.warns() {
            self.events.report(Event::TEMPERATURE);
        }
        Ok(result)
    }

    /// Abort (5.1), as far as it can be done: an Asynchronous Event Request is the only command
    /// that is ever under way. Its completion comes before that of the Abort command.
    fn abort(&mut self, command: &Command, bus: &mut BusPort<'_>) -> u32 {
        let [queue, id] = command.halves(10);
        let room = self.completions[0].as_ref().map_or(0, |cq| cq.room());
        if queue != 0 || room < 2 || !self.events.abort(id) {
            return NOT_ABORTED;
        }
        self.complete(0, id, Err(Status::ABORT_REQUESTED), bus);
        0
    }
}
