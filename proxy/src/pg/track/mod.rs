//! What was sent and not answered yet, and what the session would have to take along in a move.
//!
//! The queue of outstanding groups is the count behind a permit: a group is one Query, one
//! FunctionCall, or everything up to a Sync, and it ends with its own ReadyForQuery. Texts are kept
//! by reference (here: in buffers that are used again) and judged only when a fence falls.
//! Nothing here does IO.

mod defaults;
mod feed;
mod group;
mod inventory;
mod named;
mod pending;
mod prepared;
mod reader;
mod spoken;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use defaults::{DEFAULTS, Defaults};
pub(crate) use feed::window;
pub(crate) use group::{Group, Item, Shape};
pub(crate) use inventory::{Asked, Inventory, LAST_VALUE, question, set_config};
use pending::Pending;
pub(crate) use prepared::{Prepared, Statements};
use reader::Reader;
pub(crate) use state::{Effects, SessionSets};

use super::classify::{Eyes, Reading};

/// Most groups kept for reuse; beyond, their buffers are given back.
const SPARE: usize = 4;

/// Transaction status, as the last ReadyForQuery told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tx {
    Idle,
    Open,
    Failed,
}

impl Tx {
    /// From the byte of a ReadyForQuery.
    pub(crate) fn of(status: u8) -> Self {
        match status {
            b'T' => Self::Open,
            b'E' => Self::Failed,
            _ => Self::Idle,
        }
    }

    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// Bytes that may be kept of a run without its Sync: some two million statements that differ from
/// the one before.
pub(crate) const LONGEST: usize = 64 * 1024 * 1024;

/// Whether the open run has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Nobody has to know.
    None,
    Asked,
    Well,
}

/// Statement texts remembered for warming up a login made ahead, and their most bytes each.
const RECENT: usize = 4;
const RECENT_BYTES: usize = 256;

/// Groups in flight beyond which a client is not read from until some are answered. A Sync takes
/// five bytes of a socket's buffer and some hundred here, so what the sockets hold is no bound;
/// drivers that pipeline read answers long before.
const OUTSTANDING: usize = 16 * 1024;

/// The state of one session's conversation with its server.
pub(crate) struct Track {
    pub(crate) tx: Tx,
    sent: VecDeque<Group>,
    open: Option<Group>,
    /// A run without a Sync that was answered whole, and whose outcome comes with that of the Query or
    /// FunctionCall behind it, which is the first of what was sent.
    run: Option<Box<Group>>,
    spare: Vec<Group>,
    /// The server asked for COPY data and has not said that it is done.
    pub(crate) copy_in: bool,
    /// Syncs sent into a COPY of the open group.
    copy_syncs: usize,
    /// Marks of such Syncs among what was sent.
    sync_marks: usize,
    pending: Pending,
    /// Runs up to a Sync that were begun.
    runs: u64,
    /// The server may keep back answers of the open run: nothing that flushes them went out since.
    pub(crate) unflushed: bool,
    probe: Probe,
    /// What the server last reported of how it reads texts.
    pub(crate) reported: Reading,
    pub(crate) statements: Statements,
    pub(crate) sets: SessionSets,
    /// What its login took from its role and database; `None`: it was not asked.
    defaults: Option<Arc<Defaults>>,
    effects: Effects,
    recent: [Vec<u8>; RECENT],
    next_recent: usize,
    /// Set while a move is near: groups are judged by whether they may have changed what the
    /// server alone knows. Else any group is taken to.
    pub(crate) watched: bool,
    /// It made or altered objects of the database since it was last at rest.
    pub(crate) changed_catalog: bool,
    /// Such a group was answered since the server was last asked.
    changed: bool,
    /// What is known of the open transaction.
    reader: Reader,
    /// It has had a savepoint.
    savepoint: bool,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            tx: Tx::Idle,
            sent: VecDeque::new(),
            open: None,
            run: None,
            spare: Vec::new(),
            copy_in: false,
            copy_syncs: 0,
            sync_marks: 0,
            pending: Pending::default(),
            runs: 0,
            unflushed: false,
            probe: Probe::None,
            reported: Reading::default(),
            statements: Statements::default(),
            sets: SessionSets::default(),
            defaults: None,
            effects: Effects::default(),
            recent: Default::default(),
            next_recent: 0,
            watched: false,
            changed: false,
            changed_catalog: false,
            reader: Reader::default(),
            savepoint: false,
        }
    }
}

impl Track {
    /// Nothing sent is unanswered.
    pub(crate) fn answered(&self) -> bool {
        self.sent.is_empty() && self.open.is_none()
    }

    /// Adds to what was sent. Most sessions have one group in flight, and thousands of them are in
    /// rest: the first takes the room of one.
    fn push(&mut self, group: Group) {
        if self.sent.is_empty() {
            self.sent.reserve_exact(1);
        }
        self.sent.push_back(group);
    }

    /// Every group that was closed by a Query, Sync or FunctionCall is answered.
    pub(crate) fn synced(&self) -> bool {
        // What only marks a place gets no answer.
        !self.sent.iter().any(Group::is_one)
    }

    /// Messages were sent that no Sync has closed yet.
    pub(crate) fn unsynced(&self) -> bool {
        self.open.is_some()
    }

    /// What the session has is known: there is nothing to ask the server for.
    pub(crate) fn known(&self) -> bool {
        !self.changed && !self.sets.unsure()
    }

    /// It is on another server, which has what was replayed.
    pub(crate) fn moved(&mut self) {
        self.changed = false;
    }

    /// What its login took from its role and database, where that is known.
    pub(crate) fn defaults(&self) -> Option<Arc<Defaults>> {
        self.defaults.clone()
    }

    /// The server told what the login took from its role and database.
    pub(crate) fn took(&mut self, defaults: Defaults) {
        if self.defaults.as_deref() != Some(&defaults) {
            self.defaults = Some(Arc::new(defaults));
            self.sets.version += 1;
        }
    }

    /// The server told what the session has.
    pub(crate) fn adopt(&mut self, told: Inventory, asked: Asked<'_>, eyes: &Eyes) {
        self.changed = false;
        told.adopt(asked, &mut self.sets, &mut self.statements, eyes);
    }

    /// Everything that can be answered is: closed groups, and of a run that no Sync has closed yet
    /// what was flushed. What comes later from the server is an answer to what is sent later.
    pub(crate) fn caught_up(&self) -> bool {
        self.synced() && self.open.as_ref().is_none_or(Group::caught_up)
    }

    /// A run that no Sync has closed yet has failed: the server ignores all up to its Sync.
    pub(crate) fn skipping(&self) -> bool {
        self.synced() && self.open.as_ref().is_some_and(|g| g.failed)
    }

    /// The group whose answers are coming has failed.
    pub(crate) fn failing(&self) -> bool {
        let mut groups = self.sent.iter().filter(|g| g.is_one());
        groups.next().is_some_and(|g| g.failed)
    }

    /// An AND CHAIN began the open transaction.
    pub(crate) fn chained(&self) -> bool {
        self.effects.chained
    }

    /// The open transaction will take a transaction id at its COMMIT, read-only or not.
    pub(crate) fn notifies(&self) -> bool {
        self.effects.notifies
    }

    /// The open transaction is read-only on the server to its end, and has been from its begin.
    pub(crate) fn reads_to_its_end(&self) -> bool {
        self.tx == Tx::Open && self.reader.with(self.in_flight())
    }

    /// The transaction has failed and has no savepoint to go back to: the server has undone it.
    pub(crate) fn is_undone(&self) -> bool {
        self.tx == Tx::Failed && !self.savepoint
    }

    /// A cursor is open whose query is a write that read-only mode may let pass.
    pub(crate) fn grave_cursor(&self) -> bool {
        self.effects.grave_cursor
    }

    /// Nothing is unanswered and no transaction is open: the session may be moved.
    pub(crate) fn quiescent(&self) -> bool {
        self.answered() && self.tx == Tx::Idle
    }

    /// Groups in flight, oldest first.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Group> {
        let closed = self.sent.iter().filter(|g| g.is_one());
        self.run
            .as_deref()
            .into_iter()
            .chain(closed)
            .chain(self.open.as_ref())
    }

    /// Groups in flight that a Query, Sync or FunctionCall has closed, oldest first.
    pub(crate) fn closed(&self) -> impl Iterator<Item = &Group> {
        self.sent.iter().filter(|g| g.is_one())
    }

    /// The run that no Sync has closed yet.
    pub(crate) fn open_run(&self) -> Option<&Group> {
        self.open.as_ref()
    }

    /// The message with this tag was begun and will never be whole: the server ignores it.
    pub(crate) fn torn(&mut self, tag: u8) {
        let shape = match tag {
            b'Q' => Shape::Query,
            b'F' => Shape::Function,
            _ => return,
        };
        if self.sent.back().is_some_and(|g| g.shape == shape) {
            self.sent.pop_back();
            if let Some(run) = self.run.take_if(|_| self.sent.is_empty()) {
                self.open = Some(*run);
            }
        }
    }

    /// How many ReadyForQuery messages are owed to the client.
    pub(crate) fn owed(&self) -> usize {
        self.sent.iter().filter(|g| g.is_one()).count()
    }

    /// How a text that goes out now will be read. What is still unanswered may change that.
    pub(crate) fn reading(&self) -> Reading {
        if self.answered() {
            self.reported
        } else {
            Reading::default()
        }
    }

    fn fresh(&mut self, shape: Shape) -> Group {
        let reading = self.reading();
        let mut group = self.spare.pop().unwrap_or_default();
        group.shape = shape;
        group.reading = reading;
        group
    }

    fn open(&mut self) -> &mut Group {
        if self.open.is_none() {
            self.open = Some(self.fresh(Shape::Extended));
        }
        self.open.get_or_insert_default()
    }

    /// A Parse of our own goes out in the open run, to see whether the run has failed. A Query follows.
    pub(crate) fn ask_for_run(&mut self) {
        self.statements.forget_unnamed();
        self.unflushed = false;
        self.probe = Probe::Asked;
    }

    /// That was asked, and may not be answered yet.
    pub(crate) fn run_is_asked_for(&self) -> bool {
        self.probe != Probe::None
    }

    /// Everything of the open run is answered, and it has not failed.
    pub(crate) fn run_is_well(&self) -> bool {
        self.probe == Probe::Well
    }

    /// A ParseComplete came: whether it is that of our own Parse, which is behind all others.
    pub(crate) fn is_probe_answered(&mut self) -> bool {
        if self.probe != Probe::Asked {
            return false;
        }
        let run = self.front();
        let own = run.is_some_and(|run| run.parsed >= run.parses() && run.shape == Shape::Extended);
        if own && self.sent.is_empty() {
            self.probe = Probe::Well;
        }
        self.probe == Probe::Well
    }

    /// A Query message goes out; `text` is `None` when it is too long to keep.
    pub(crate) fn query(&mut self, text: Option<&[u8]>) {
        // A simple query destroys the unnamed statement (PostgreSQL 18, 54.2.3).
        self.statements.forget_unnamed();
        let mut group = self.closing(Shape::Query);
        match text {
            Some(text) => group.text.extend_from_slice(text),
            None => group.too_long = true,
        }
        self.push(group);
    }

    /// The first of what was sent closes a run without a Sync.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn closes_run(&self) -> bool {
        self.run.is_some()
    }

    /// A FunctionCall goes out.
    pub(crate) fn function_call(&mut self) {
        let group = self.closing(Shape::Function);
        self.push(group);
    }

    /// A group of a Query or FunctionCall. If a run that has not failed is open, it closes that: both
    /// are answered with one ReadyForQuery. Of a run that was not asked for nothing is known.
    fn closing(&mut self, shape: Shape) -> Group {
        let is_well = std::mem::replace(&mut self.probe, Probe::None) == Probe::Well;
        let group = self.fresh(shape);
        if is_well || (shape == Shape::Function && self.caught_up()) {
            self.runs += u64::from(self.open.is_some());
            self.run = self.open.take().map(Box::new);
        } else if let Some(open) = &mut self.open {
            open.mingled = true;
        }
        group
    }

    /// A Parse goes out.
    pub(crate) fn parse(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        self.pending.parse(name, &prepared, self.runs);
        let open = self.open();
        open.texts += name.len() + prepared.size();
        open.items.push(Item::Parse(name.into(), prepared));
    }

    /// A Bind goes out.
    pub(crate) fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        let prepared = self.find(statement);
        let relies = self.pending.is_elsewhere(statement, self.runs);
        let open = self.open();
        open.relies |= relies;
        open.items.push(Item::Bind(prepared.clone()));
        self.statements.bind(portal, prepared);
    }

    /// A Bind whose head could not be read whole goes out: whatever it names counts as a write.
    pub(crate) fn bind_unread(&mut self) {
        self.open();
        self.statements.bind_unknown();
    }

    /// An Execute goes out.
    pub(crate) fn execute(&mut self, portal: &[u8]) {
        let prepared = self.statements.bound(portal);
        let items = &mut self.open().items;
        if let (Some(Item::Bind(Some(bound))), Some(run)) = (items.last(), &prepared)
            && Arc::ptr_eq(bound, run)
        {
            items.pop();
        }
        // What is executed for many rows in one run takes no more room for that.
        let (last, before) = match items.as_mut_slice() {
            [.., before, Item::Again(times)] => (Some(times), Some(&*before)),
            [.., before] => (None, Some(&*before)),
            [] => (None, None),
        };
        let same = matches!((before, &prepared), (Some(Item::Execute(Some(a))), Some(b)) if Arc::ptr_eq(a, b));
        match last {
            Some(times) if same && *times < u32::MAX => *times += 1,
            None if same => items.push(Item::Again(1)),
            Some(_) | None => items.push(Item::Execute(prepared)),
        }
    }

    /// An Execute whose portal could not be read goes out.
    pub(crate) fn execute_unread(&mut self) {
        self.open().items.push(Item::Execute(None));
    }

    /// A Close goes out.
    pub(crate) fn close(&mut self, kind: u8, name: &[u8]) {
        if kind == b'S' {
            self.open().items.push(Item::Close(name.into()));
        } else {
            self.open();
            self.statements.unbind(name);
        }
    }

    /// A Describe or Flush goes out: part of the group, without an effect of its own.
    pub(crate) fn touch(&mut self) {
        self.open();
    }

    /// A Sync goes out.
    pub(crate) fn sync(&mut self) {
        self.unflushed = false;
        self.probe = Probe::None;
        if self.copy_in {
            self.copy_syncs += 1;
        } else {
            self.runs += 1;
            let group = self
                .open
                .take()
                .unwrap_or_else(|| self.fresh(Shape::Extended));
            self.push(group);
        }
        // Behind what the COPY belongs to, which a Sync of its own may have to close first.
        if self.open.is_none() {
            for _ in 0..std::mem::take(&mut self.copy_syncs) {
                let mark = self.fresh(Shape::CopySync);
                self.push(mark);
                self.sync_marks += 1;
            }
        }
    }

    /// CopyDone or CopyFail goes out.
    pub(crate) fn copy_end(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if !self.answered()
            && !self.skipping()
            && self.sent.back().is_none_or(|g| g.shape != Shape::CopyEnd)
        {
            // Sent ahead of the CopyInResponse. With nothing in flight it belongs to a COPY that has
            // failed, and the server ignores it, as it does a second one in a row.
            let group = self.fresh(Shape::CopyEnd);
            self.push(group);
        }
    }

    /// The statement a Bind with this name would find, counting Parses still in flight.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        let pending = self.pending.get(name);
        pending.or_else(|| self.statements.get(name))
    }

    /// The group that the server speaks of. A Sync that is still in front of it got no answer.
    fn front(&mut self) -> Option<&mut Group> {
        while self.sent.front().is_some_and(|g| !g.is_one()) {
            self.take_front();
        }
        if self.sent.is_empty() {
            self.open.as_mut()
        } else {
            self.sent.front_mut()
        }
    }

    /// ParseComplete came.
    pub(crate) fn parsed(&mut self) {
        if let Some(group) = self.front() {
            group.parsed += 1;
        }
    }

    /// CommandComplete came.
    pub(crate) fn completed(&mut self, tag: &[u8]) {
        self.copy_in = false;
        // A COPY that ended well took in all that was sent before its CopyDone.
        self.copy_syncs = 0;
        if self.sync_marks > 0 {
            self.sent.retain(|g| g.shape != Shape::CopySync);
            self.sync_marks = 0;
        }
        if let Some(group) = self.front() {
            group.completed += 1;
            group.notable |= state::is_notable(tag);
            group.set |= tag.starts_with(b"SET") && !tag.starts_with(b"SET CONSTRAINTS");
        }
        self.changed_catalog |= state::changes_catalog(tag);
        self.savepoint |= tag == b"SAVEPOINT";
    }

    /// EmptyQueryResponse or PortalSuspended came.
    pub(crate) fn passed(&mut self) {
        if let Some(group) = self.front() {
            group.completed += 1;
        }
    }

    /// CopyInResponse came: until CopyDone or CopyFail the server ignores Sync and Flush
    /// (54.2.6), so Syncs sent meanwhile get no ReadyForQuery.
    pub(crate) fn copy_in(&mut self) {
        self.copy_in = true;
        let Some(mut front) = self.sent.pop_front() else {
            return;
        };
        while self
            .sent
            .front()
            .is_some_and(|g| g.shape == Shape::Extended && g.items.is_empty())
        {
            self.sent.pop_front();
        }
        if self.sent.front().is_some_and(|g| g.shape == Shape::CopyEnd) {
            self.sent.pop_front();
            self.copy_in = false;
        }
        if front.shape != Shape::Extended {
            self.sent.push_front(front);
            return;
        }
        // Its own Sync was among the ignored: the next one closes it.
        let extended = |g: &Group| g.shape == Shape::Extended;
        if self.sent.front().is_some_and(extended)
            && let Some(next) = self.sent.pop_front()
        {
            front.items.extend(next.items.iter().cloned());
            front.relies |= next.relies;
            self.sent.push_front(front);
        } else if let Some(open) = self.open.take() {
            front.items.extend(open.items.iter().cloned());
            front.relies |= open.relies;
            self.open = Some(front);
        } else {
            self.open = Some(front);
        }
    }

    /// ErrorResponse came.
    pub(crate) fn failed(&mut self) {
        self.copy_in = false;
        if let Some(group) = self.front() {
            group.failed = true;
        }
    }

    /// ReadyForQuery came: the front group's outcome is known.
    pub(crate) fn ready(&mut self, status: u8, eyes: &Eyes) {
        self.copy_in = false;
        self.drop_copy_ends();
        let tx = Tx::of(status);
        let mut answered = self.take_front();
        if answered.is_none() && self.copy_syncs > 0 {
            // The COPY had failed before the Sync that was sent into it, which so closed its group.
            self.copy_syncs -= 1;
            answered = self.open.take();
        }
        // What ended a COPY of this group means nothing to the next.
        self.drop_copy_ends();
        if let Some(mut run) = self.run.take() {
            self.learn(&mut run, tx, eyes);
            // Without a transaction block the failure of what closed it has undone the run as well.
            self.changed |= answered.as_ref().is_some_and(|group| group.failed);
        }
        if let Some(mut group) = answered {
            self.learn(&mut group, tx, eyes);
            if tx == Tx::Idle {
                self.effects.end_of_transaction();
            }
            if self.spare.len() < SPARE && group.reusable() {
                self.remember(&mut group);
                group.clear();
                if self.spare.is_empty() {
                    self.spare.reserve_exact(1);
                }
                self.spare.push(group);
            }
        }
        if tx == Tx::Idle {
            self.reader = Reader::default();
            self.savepoint = false;
            self.statements.end_of_transaction();
        }
        self.tx = tx;
    }

    /// What an answered group did; `end` is the transaction status that was told behind it, and behind
    /// what stands between it and its ReadyForQuery.
    fn learn(&mut self, group: &mut Group, end: Tx, eyes: &Eyes) {
        if end != Tx::Idle {
            self.reader = self.reader.after(group, self.tx == Tx::Idle);
        }
        self.statements.settle(group);
        self.pending.settle(group);
        self.mislead(group);
        if group.tells() {
            self.effects
                .apply(group, self.tx, eyes, &mut self.sets, &mut self.statements);
            self.tx = self.effects.status();
        }
        self.changed |= !self.watched || !group.leaves_nothing(eyes);
    }

    /// A group has failed, and with it Parses that later ones may rely on.
    fn mislead(&mut self, failed: &Group) {
        let parses = failed.items.iter().any(|i| matches!(i, Item::Parse(..)));
        if failed.failed && parses {
            let later = self.sent.iter_mut().chain(&mut self.open);
            later.for_each(|group| group.misled |= group.relies);
        }
    }

    fn take_front(&mut self) -> Option<Group> {
        let front = self.sent.pop_front();
        let is_mark = front.as_ref().is_some_and(|g| g.shape == Shape::CopySync);
        self.sync_marks -= usize::from(is_mark);
        front
    }

    /// So much is in flight that nothing more may be sent before some of it is answered.
    pub(crate) fn is_full(&self) -> bool {
        self.sent.len() >= OUTSTANDING
    }

    /// The open run takes more room than any that a driver makes: whether a Sync will ever come is
    /// the client's choice, and the server keeps nothing of it.
    pub(crate) fn is_overlong(&self) -> bool {
        self.open.as_ref().is_some_and(|run| run.weight() > LONGEST)
    }

    fn drop_copy_ends(&mut self) {
        while self.sent.front().is_some_and(|g| g.shape == Shape::CopyEnd) {
            self.sent.pop_front();
        }
    }

    /// Keeps a short text by exchanging buffers, so that nothing is copied.
    fn remember(&mut self, group: &mut Group) {
        if group.shape == Shape::Query && !group.failed && group.text.len() <= RECENT_BYTES {
            self.next_recent = (self.next_recent + 1) % RECENT;
            if let Some(slot) = self.recent.get_mut(self.next_recent) {
                std::mem::swap(slot, &mut group.text);
            }
        }
    }

    /// Texts of the last short simple queries, without repetition.
    pub(crate) fn recent(&self) -> Vec<&[u8]> {
        let mut texts: Vec<&[u8]> = self.recent.iter().map(Vec::as_slice).collect();
        texts.retain(|t| !t.is_empty());
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// The server is gone: nothing is in flight any more and no transaction is open.
    pub(crate) fn server_lost(&mut self) {
        self.sent.clear();
        self.open = None;
        self.run = None;
        self.copy_in = false;
        self.copy_syncs = 0;
        self.sync_marks = 0;
        self.unflushed = false;
        self.probe = Probe::None;
        self.pending.clear();
        self.effects = Effects::default();
        self.reader = Reader::default();
        self.savepoint = false;
        self.statements.end_of_transaction();
    }
}

#[cfg(test)]
mod tests;
