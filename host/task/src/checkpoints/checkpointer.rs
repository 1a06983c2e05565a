//! Who decides of a job's checkpoints and writes them: the coordinator, with its hands.
//!
//! It lives in a thread of its own, or in simulation in the one loop, and is stepped when it is woken or its time
//! has come, like a subtask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use checkpoint::coordinator::{CheckpointId, Kind, Stop, SubtaskId};
use checkpoint::manifest::{File, JobName, Operator, Place, Section, Subtask, Table, Version};
use checkpoint::{Action, Coordinator, Event, Manifest, Storage};
use model::Diagnostic;
use platform::faults::Point;
use platform::{Faults, Inbox, Platform};

use super::savepoint::{self, Ask, Form};
use super::teller::{Teller, lock};
use super::{Checkpoints, Command, Content, FileOfStore, Line, Part, section};
use crate::job::Control;
use crate::swap::asking::{Component, SwapAsk, Tells};
use crate::swap::code::SubtaskSwap;
use crate::swap::probation::Trial;
use crate::swap::{Standing, SwapAnswer, Trap};

/// A job's checkpoints.
pub(crate) struct Checkpointer {
    coordinator: Coordinator<Part>,
    storage: Storage,
    events: Inbox<Event<Part>>,
    commands: Vec<Inbox<Command>>,
    about: Arc<About>,
    platform: Platform,
    control: Arc<Control>,
    /// Says when a removal is done.
    removed: Inbox<()>,
    /// Those that are under way.
    removals: usize,
    /// Savepoints and checkpoints that are asked for.
    asks: Inbox<Ask>,
    /// Those that the coordinator knows, by the number that it knows them by.
    asked: BTreeMap<u64, Ask>,
    next_request: u64,
    /// Changes to other versions that are asked for.
    swap_asks: Inbox<SwapAsk>,
    /// The one that the coordinator knows.
    swap: Option<SwapUnderWay>,
    /// What changes in each subtask.
    swaps: Vec<Inbox<SubtaskSwap>>,
    /// The versions that have run; the last runs.
    versions: Vec<Version>,
    /// By digest: the components that lie beside the checkpoints.
    components: Arc<Mutex<BTreeMap<String, (String, File)>>>,
    /// When the one under way began, by the wall clock and by the other.
    began: (i64, Duration),
    /// The manifest that was put last, or that the job goes on from: what the next may build upon, if it is complete.
    newest: Arc<Mutex<Option<Manifest>>>,
    /// The checkpoint that was complete last, but for savepoints.
    complete: Option<CheckpointId>,
    /// The job goes on from a checkpoint or savepoint.
    goes_on: bool,
    /// Tells what becomes of them.
    teller: Teller,
}

/// A change to another version, until it has happened and the new version stays.
struct SwapUnderWay {
    request: u64,
    /// Until it begins.
    swaps: Vec<SubtaskSwap>,
    /// What the new version is, and once it has begun what the old one was.
    about: Arc<About>,
    /// Its checkpoint has begun.
    has_begun: bool,
    /// Until it has happened, or not.
    answer: Option<SwapAnswer>,
    trial: Option<OnTrial>,
}

/// A version on probation.
struct OnTrial {
    trial: Arc<Trial>,
    told: Tells,
    /// The old version can go on from the state of the change's own checkpoint.
    leads_back: bool,
    /// It stays after this; none = the change is not complete.
    ends: Option<Duration>,
    /// The request that leads back.
    back: Option<u64>,
    /// What leads back.
    trap: Option<Trap>,
}

impl OnTrial {
    /// The version stays, unless a trap leads back. Whether it does.
    fn is_kept(&mut self) -> bool {
        let is_kept = self.trial.is_passed();
        if is_kept {
            (self.told)(Standing::Kept { traps: self.trial.traps() });
        }
        is_kept
    }

    /// A trap ends the attempt.
    fn ends_attempt(&mut self) {
        if self.trap.is_none()
            && let Some(trap) = self.trial.fall()
        {
            self.trap = Some(trap.clone());
            (self.told)(Standing::GoingBack { trap });
        }
    }

    /// All subtasks run the old code, from the barrier of this checkpoint on.
    fn went_back(&mut self, at: Option<CheckpointId>) {
        let Some(last) = self.trial.fall() else { return };
        let took = last.took;
        let trap = self.trap.take().unwrap_or(last);
        (self.told)(Standing::WentBack { trap, at, took });
    }

    /// The change was given up.
    fn did_not_change(&mut self, reason: &str) {
        match self.trial.fall() {
            Some(_) => self.went_back(None),
            None => (self.told)(Standing::NotChanged { reason: reason.to_owned() }),
        }
    }
}

/// What a manifest says of the job.
pub(crate) struct About {
    pub(crate) job: JobName,
    pub(crate) component: Component,
    /// Of each subtask its number within its operators.
    pub(crate) places: Arc<[u32]>,
    /// The operators by the nodes that they begin with: uid, name, parallelism, number of key groups.
    pub(crate) operators: BTreeMap<u32, (String, String, u32, u32)>,
    /// What the tables of their keyed state are called.
    pub(crate) tables: BTreeMap<u32, Vec<Table>>,
}

/// How long the end of a job waits for what is to be removed.
const PATIENCE: Duration = Duration::from_secs(5);
/// A section that is not longer lies in the manifest itself.
const INLINE_BYTES: usize = 1024;

impl Checkpointer {
    /// For subtasks that these wake, in their order; `waker` wakes the checkpointer.
    pub(crate) fn new(
        checkpoints: &Checkpoints,
        about: About,
        subtasks: &[Waker],
        waker: &Waker,
        (platform, control): (&Platform, &Arc<Control>),
        teller: Teller,
    ) -> Self {
        let now = platform.clock.now();
        let restored = checkpoints.restored.as_ref().map(|restored| restored.manifest());
        let versions = about.component.ran.clone().follows(restored);
        let components = components(checkpoints, &versions);
        let Checkpoints { settings, storage, next, retained, restored, .. } = checkpoints;
        restored.iter().for_each(|restored| teller.restored(restored.manifest()));
        // What subtasks have been filled with they may build upon.
        let newest = restored.as_ref().filter(|restored| restored.can_be_built_upon());
        let newest = newest.map(|restored| restored.manifest().clone());
        let numbers = (0..).zip(subtasks).map(|(number, _): (SubtaskId, _)| number);
        Self {
            coordinator: Coordinator::new(settings.clone(), numbers, *next, retained.iter().copied(), now),
            storage: storage.clone(),
            events: Inbox::new(waker.clone()),
            commands: subtasks.iter().map(|waker| Inbox::new(waker.clone())).collect(),
            about: Arc::new(about),
            platform: platform.clone(),
            control: Arc::clone(control),
            removed: Inbox::new(waker.clone()),
            removals: 0,
            asks: Inbox::new(waker.clone()),
            asked: BTreeMap::new(),
            next_request: 1,
            swap_asks: Inbox::new(waker.clone()),
            swap: None,
            swaps: subtasks.iter().map(|waker| Inbox::new(waker.clone())).collect(),
            versions,
            components: Arc::new(Mutex::new(components)),
            began: (0, now),
            complete: newest.as_ref().map(|newest| newest.checkpoint),
            newest: Arc::new(Mutex::new(newest)),
            goes_on: restored.is_some(),
            teller,
        }
    }

    /// A subtask's line.
    pub(crate) fn line(&self, number: SubtaskId) -> Line {
        Line {
            number,
            complete: self.complete,
            commands: self.commands[number as usize].clone(),
            swaps: self.swaps[number as usize].clone(),
            events: self.events.clone(),
            faults: self.platform.faults.clone(),
        }
    }

    /// All subtasks are made; the tables of their keyed state are called so. Before the first step.
    pub(crate) fn begin(&mut self, tables: BTreeMap<u32, Vec<Table>>) {
        if let Some(about) = Arc::get_mut(&mut self.about) {
            about.tables = tables;
        }
        if self.goes_on {
            self.coordinator.goes_on(self.platform.clock.now());
        }
    }

    /// Where savepoints and checkpoints are asked for.
    pub(crate) fn asks(&self) -> Inbox<Ask> {
        self.asks.clone()
    }

    /// Where changes to other versions are asked for.
    pub(crate) fn swap_asks(&self) -> Inbox<SwapAsk> {
        self.swap_asks.clone()
    }

    /// Begins with a change to another version.
    fn swap(&mut self, ask: SwapAsk, now: Duration) {
        let SwapAsk { swaps, operators, tables: others, component, answer, trial, leads_back } = ask;
        if self.swap.is_some() {
            answer(Err("the job is changing to another version already".to_owned()));
            return;
        }
        let make = |(trial, told)| OnTrial { trial, told, leads_back, ends: None, back: None, trap: None };
        let mut trial = trial.map(make);
        if let Some(on_trial) = trial.as_mut().filter(|on_trial| on_trial.trial.is_exact() && !leads_back)
            && self.coordinator.newest().is_none()
        {
            let reason = "the old version loses state of the change's own checkpoint, and there is none before it to \
                          go back to: ask again when there is one";
            on_trial.did_not_change(reason);
            answer(Err(reason.to_owned()));
            return;
        }
        let mut tables = self.about.tables.clone();
        tables.extend(others);
        let about = Arc::new(About {
            job: JobName {
                id: self.about.job.id.clone(),
                name: component.name.clone(),
                component: component.ran.component.clone(),
            },
            component,
            places: Arc::clone(&self.about.places),
            operators,
            tables,
        });
        let request = self.next_request;
        self.next_request += 1;
        self.swap =
            Some(SwapUnderWay { request, swaps, about, has_begun: false, answer: Some(answer), trial });
        let actions = self.coordinator.on(Event::Asked { request, kind: Kind::Swap }, now);
        actions.into_iter().for_each(|action| self.act(action));
    }

    /// The checkpoint of the change begins, or the one that leads back: each subtask gets its part before it hears of
    /// the checkpoint.
    fn begin_swap(&mut self, checkpoint: CheckpointId) {
        if self.swap.is_none() || !self.passes(Point::SwapBegin) {
            return;
        }
        let Some(swap) = &mut self.swap else { return };
        std::mem::swap(&mut swap.about, &mut self.about);
        swap.has_begun = true;
        if let Some(on_trial) = swap.trial.as_ref().filter(|on_trial| on_trial.trial.is_exact()) {
            let newest = if on_trial.leads_back { Some(checkpoint) } else { self.coordinator.newest() };
            self.coordinator.hold(newest);
            on_trial.trial.goes_back_to(newest.unwrap_or(0));
        }
        std::mem::take(&mut swap.swaps).into_iter().zip(&self.swaps).for_each(|(swap, to)| to.put(swap));
        self.versions.push(Version { from: checkpoint, ..self.about.component.ran.clone() });
    }

    /// The change has happened, or has not.
    fn end_swap(&mut self, mut swap: SwapUnderWay, result: Result<CheckpointId, String>) {
        let answer = swap.answer.take();
        match (&result, swap.trial.take()) {
            (Err(reason), on_trial) => {
                if swap.has_begun {
                    self.about = swap.about;
                    self.versions.pop();
                }
                self.coordinator.hold(None);
                if let Some(mut on_trial) = on_trial {
                    on_trial.did_not_change(reason);
                }
            }
            (Ok(from), Some(mut on_trial)) => {
                let time = on_trial.trial.time();
                on_trial.ends = Some(self.platform.clock.now() + time);
                (on_trial.told)(Standing::OnProbation { from: *from, time });
                self.swap = Some(SwapUnderWay { trial: Some(on_trial), ..swap });
            }
            (Ok(_), None) => {}
        }
        answer.into_iter().for_each(|answer| answer(result.clone()));
    }

    /// A subtask has gone back to the old version: what the coordinator is to hear of that.
    fn on_fall(&mut self) -> Option<Event<Part>> {
        let is_storing = self.coordinator.is_storing();
        let swap = self.swap.as_mut()?;
        let on_trial = swap.trial.as_mut().filter(|on_trial| on_trial.back.is_none())?;
        let trap = on_trial.trial.fall()?;
        let reason = format!("the new version has trapped: {}", trap.error.message);
        if on_trial.trial.is_exact() {
            on_trial.ends_attempt();
            return None;
        }
        // If the change is not complete it is given up, which leads back.
        let is_given_up = on_trial.ends.is_none() && !(is_storing && swap.has_begun);
        let first = (!is_given_up).then(|| {
            let request = self.next_request;
            self.next_request += 1;
            on_trial.back = Some(request);
            (request, Kind::Swap)
        });
        on_trial.trap = Some(trap.clone());
        (on_trial.told)(Standing::GoingBack { trap });
        Some(Event::Disturbed { reason, first })
    }

    /// All subtasks have gone back, or do when they hear that the checkpoint that was to lead back is given up.
    fn has_gone_back(swap: SwapUnderWay, result: Result<CheckpointId, String>) {
        if let Some(mut on_trial) = swap.trial {
            on_trial.went_back(result.ok());
        }
    }

    /// The time of a version's probation may be over: it stays then. Else when.
    fn end_probation(&mut self, now: Duration) -> Option<Duration> {
        let on_trial = self.swap.as_mut()?.trial.as_mut().filter(|on_trial| on_trial.back.is_none())?;
        let ends = on_trial.ends?;
        if now < ends {
            return Some(ends);
        }
        // If it does not stay, a subtask is about to say so.
        if on_trial.is_kept() {
            self.swap = None;
            self.coordinator.hold(None);
            self.tell(Command::Keep);
        }
        None
    }

    /// Does what there is to do. When its time comes again.
    pub(crate) fn step(&mut self) -> Option<Duration> {
        let now = self.platform.clock.now();
        while let Some(event) = self.events.take() {
            let event = match event {
                Event::Disturbed { .. } => match self.on_fall() {
                    Some(event) => event,
                    // It is known.
                    None => continue,
                },
                event => event,
            };
            if let Event::Acknowledged { checkpoint, subtask, part } = &event {
                self.teller.acknowledged(*checkpoint, *subtask, part, &self.about);
            }
            let actions = self.coordinator.on(event, now);
            actions.into_iter().for_each(|action| self.act(action));
        }
        while let Some(ask) = self.asks.take() {
            let (request, kind) = (self.next_request, ask.asked.kind());
            self.next_request += 1;
            self.asked.insert(request, ask);
            let actions = self.coordinator.on(Event::Asked { request, kind }, now);
            actions.into_iter().for_each(|action| self.act(action));
        }
        while let Some(ask) = self.swap_asks.take() {
            self.swap(ask, now);
        }
        while self.removed.take().is_some() {
            self.removals -= 1;
        }
        let actions = self.coordinator.on(Event::Tick, now);
        actions.into_iter().for_each(|action| self.act(action));
        let probation = self.end_probation(now);
        self.coordinator.wakes_at().into_iter().chain(probation).min()
    }

    /// Passes a point; where that fails, the job does. Whether it has not.
    fn passes(&self, point: Point) -> bool {
        let passed = self.platform.faults.pass(point);
        let failed = |error: std::io::Error| {
            self.control.fail(Diagnostic::external("the job's checkpoints fail").detail(error.to_string()));
        };
        passed.map_err(failed).is_ok()
    }

    fn tell(&self, command: Command) {
        self.commands.iter().for_each(|commands| commands.put(command));
    }

    fn act(&mut self, action: Action<Part>) {
        match action {
            Action::Trigger { checkpoint, kind } => {
                self.began = (self.platform.clock.wall_ms(), self.platform.clock.now());
                self.teller.triggered(checkpoint, kind, self.commands.len());
                if kind == Kind::Swap {
                    self.begin_swap(checkpoint);
                }
                if self.passes(Point::CheckpointTrigger) {
                    self.tell(Command::Trigger(checkpoint, kind));
                }
            }
            Action::Store { checkpoint, kind, request, parts } => {
                self.store(checkpoint, kind, request, parts);
            }
            Action::Complete { checkpoint, kind } => {
                if !matches!(kind, Kind::Savepoint { .. }) {
                    self.complete = Some(checkpoint);
                }
                self.teller.completed(checkpoint);
                if self.passes(Point::CheckpointComplete) {
                    self.tell(Command::Complete(checkpoint, kind));
                    self.passes(Point::CheckpointCompleted);
                }
            }
            Action::Abort { checkpoint, reason } => {
                self.teller.failed(checkpoint, &reason);
                self.tell(Command::Abort(checkpoint));
                self.remove(checkpoint);
            }
            Action::Remove { checkpoint } => {
                self.teller.removed(checkpoint);
                self.remove(checkpoint);
            }
            Action::Fail { reason, is_overtaken } => {
                self.teller.ended(&reason);
                let error = Diagnostic::external("the job's checkpoints fail").detail(reason);
                self.control.fail(if is_overtaken { error.give_up() } else { error });
            }
            Action::Answer { request, result } => {
                if self.swap.is_some() && !self.passes(Point::SwapEnd) {
                    return;
                }
                if let Some(swap) = self.swap.take_if(|swap| swap.request == request) {
                    self.end_swap(swap, result);
                    return;
                }
                let leads_back = |swap: &mut SwapUnderWay| {
                    swap.trial.as_ref().is_some_and(|on_trial| on_trial.back == Some(request))
                };
                if let Some(swap) = self.swap.take_if(leads_back) {
                    Self::has_gone_back(swap, result);
                    return;
                }
                if let Some(ask) = self.asked.remove(&request) {
                    (ask.answer)(result);
                }
            }
            // The subtasks know by themselves that the last one is complete.
            Action::Finish => {
                let swap = self.swap.as_mut();
                if let Some(on_trial) = swap.and_then(|swap| swap.trial.as_mut()) {
                    on_trial.is_kept();
                }
            }
        }
    }

    fn remove(&mut self, checkpoint: CheckpointId) {
        let storage = self.storage.clone();
        self.removals += 1;
        // What cannot be removed now is swept when the job is restored.
        let faults = self.platform.faults.clone();
        self.platform.io.submit(&self.removed, move || {
            drop(faults.pass(Point::CheckpointRemove).and_then(|()| storage.remove(checkpoint)));
        });
    }

    /// Waits until what was to be removed is, for a while. Blocks.
    pub(crate) fn finish(&mut self) {
        let on_trial = self.swap.as_mut().and_then(|swap| swap.trial.as_mut());
        if let Some(on_trial) = on_trial.filter(|on_trial| on_trial.trial.is_exact()) {
            on_trial.ends_attempt();
        }
        self.teller.ended("the job has ended");
        // Who asks from here on hears at once that there is none.
        self.asks.close();
        self.swap_asks.close();
        self.storage.hold_components(std::iter::empty());
        let clock = self.platform.clock.clone();
        let end = clock.now() + PATIENCE;
        while self.removals > 0 && clock.now() < end {
            match self.removed.take() {
                Some(()) => self.removals -= 1,
                None => clock.sleep(Duration::from_millis(1)),
            }
        }
    }

    fn store(
        &self,
        checkpoint: CheckpointId,
        kind: Kind,
        request: Option<u64>,
        parts: BTreeMap<SubtaskId, Part>,
    ) {
        let asked = request.and_then(|request| self.asked.get(&request));
        let savepoint = asked.and_then(|ask| ask.asked.savepoint()).cloned();
        let (storage, about, (began, since)) = (self.storage.clone(), Arc::clone(&self.about), self.began);
        let duration = self.platform.clock.now().saturating_sub(since);
        let (faults, newest) = (self.platform.faults.clone(), Arc::clone(&self.newest));
        let (complete, tracker) = (self.complete, Arc::clone(self.teller.tracker()));
        let (versions, components) = (self.versions.clone(), Arc::clone(&self.components));
        self.platform.io.submit(&self.events, move || {
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            let last = newest.as_ref().filter(|newest| Some(newest.checkpoint) == complete);
            let mut written = match about.manifest(checkpoint, parts, last) {
                Ok(written) => written,
                Err(reason) => return Event::NotStored { checkpoint, reason },
            };
            let manifest = &mut written.manifest;
            lock(&tracker).sized(manifest);
            manifest.began = began;
            manifest.versions = versions;
            manifest.duration = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            manifest.is_savepoint = matches!(kind, Kind::Savepoint { .. });
            let drains = Kind::Savepoint { stop: Some(Stop::Drain) };
            manifest.is_final = kind == Kind::Final || kind == drains;
            let begun = faults.pass(Point::CheckpointStore).map_err(Unwritten::of);
            let begun = begun.and_then(|()| match savepoint {
                Some(_) => Ok(()),
                None => {
                    put_components(&storage, &about.component, &components, manifest).map_err(Unwritten::of)
                }
            });
            let written = begun.and_then(|()| match savepoint {
                Some(request) => {
                    let is_native = request.form == Form::Native;
                    lock(&tracker).placed(checkpoint, request.savepoint.location(), is_native);
                    savepoint::put(&request, written.manifest, &written.data).map_err(Unwritten::Because)
                }
                None => put(&storage, written, &faults)
                    .map(|manifest| {
                        lock(&tracker).sized(&manifest);
                        *newest = Some(manifest);
                    })
                    .map_err(Unwritten::of),
            });
            let written = written.and_then(|()| faults.pass(Point::CheckpointStored).map_err(Unwritten::of));
            match written {
                Ok(()) => Event::Stored { checkpoint },
                Err(Unwritten::Overtaken) => Event::Overtaken { checkpoint },
                Err(Unwritten::Because(reason)) => Event::NotStored { checkpoint, reason },
            }
        });
    }
}

/// So many of the last versions have their components beside a checkpoint: the one that goes on, and the one before.
const COMPONENTS: usize = 2;

/// The components of the last versions that a checkpoint of this job has.
fn components(checkpoints: &Checkpoints, versions: &[Version]) -> BTreeMap<String, (String, File)> {
    let restored = checkpoints.restored.as_ref().map(|restored| restored.manifest());
    let found = versions.iter().filter_map(|version| {
        let path = checkpoints.storage.component_path(&version.component);
        let file = restored?.files.get(&path)?.clone();
        Some((version.component.clone(), (path, file)))
    });
    found.collect()
}

/// Puts the component that goes on from a checkpoint, if it has not been put. The manifest names it, and the one
/// before.
fn put_components(
    storage: &Storage,
    component: &Component,
    components: &Mutex<BTreeMap<String, (String, File)>>,
    manifest: &mut Manifest,
) -> std::io::Result<()> {
    let mut components = components.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last: Vec<&str> = Vec::new();
    for version in manifest.versions.iter().rev() {
        if !last.contains(&version.component.as_str()) && last.len() < COMPONENTS {
            last.push(&version.component);
        }
    }
    // Before it is put, so that nothing that is removed meanwhile takes it along.
    storage.hold_components(last.iter().copied());
    let digest = &component.ran.component;
    if !components.contains_key(digest) {
        let put = storage.put_component(digest, &component.source)?;
        components.insert(digest.clone(), put);
    }
    components.retain(|digest, _| last.contains(&digest.as_str()));
    manifest.files.extend(components.values().cloned());
    Ok(())
}

/// Why a checkpoint is not there.
enum Unwritten {
    /// Another process has put one of its number.
    Overtaken,
    Because(String),
}

impl Unwritten {
    fn of(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Self::Overtaken,
            _ => Self::Because(error.to_string()),
        }
    }
}

/// The name of the file with all that is not inline.
pub(super) const DATA: &str = "data-0";

/// A checkpoint that is to be put.
struct Prepared {
    manifest: Manifest,
    /// The bytes of the file [`DATA`].
    data: Vec<u8>,
    /// Files of stores, with whose sections they are.
    files: Vec<Upload>,
}

struct Upload {
    uid: String,
    /// The subtask's place, and the section's.
    place: (usize, usize),
    /// Its name in the folder.
    name: String,
    file: FileOfStore,
}

fn put(storage: &Storage, prepared: Prepared, faults: &Faults) -> std::io::Result<Manifest> {
    let Prepared { mut manifest, data, files } = prepared;
    for Upload { uid, place: (subtask, section), name, file } in files {
        let bytes = file.store.read_file(&file.name).map_err(std::io::Error::other)?;
        let (path, of) = storage.put_part(manifest.checkpoint, &name, &bytes)?;
        let operator = manifest.operators.get_mut(&uid);
        let subtask = operator.and_then(|operator| operator.subtasks.get_mut(subtask));
        if let Some(section) = subtask.and_then(|subtask| subtask.sections.get_mut(section)) {
            section.place = Place::File { path: path.clone(), offset: 0, length: of.bytes };
        }
        manifest.files.insert(path, of);
    }
    if !data.is_empty() {
        let (path, file) = storage.put_part(manifest.checkpoint, DATA, &data)?;
        for operator in manifest.operators.values_mut() {
            for section in operator.subtasks.iter_mut().flat_map(|subtask| &mut subtask.sections) {
                if let Place::File { path: at, .. } = &mut section.place
                    && at == DATA
                {
                    at.clone_from(&path);
                }
            }
        }
        manifest.files.insert(path, file);
    }
    faults.pass(Point::CheckpointManifest)?;
    storage.put_manifest(&manifest)?;
    Ok(manifest)
}

impl About {
    /// The manifest, and the bytes of the files that it names beside those of `newest`, upon which parts may build.
    ///
    /// # Errors
    /// If they build upon another.
    fn manifest(
        &self,
        checkpoint: CheckpointId,
        parts: BTreeMap<SubtaskId, Part>,
        newest: Option<&Manifest>,
    ) -> Result<Prepared, String> {
        let mut manifest = Manifest::new(self.job.clone(), checkpoint);
        let (mut data, mut files) = (Vec::new(), Vec::new());
        for (number, part) in parts {
            for stage in part {
                let Some((uid, name, parallelism, max_parallelism)) = self.operators.get(&stage.node) else {
                    continue;
                };
                let operator = manifest.operators.entry(uid.clone()).or_insert_with(|| Operator {
                    name: name.clone(),
                    parallelism: *parallelism,
                    max_parallelism: *max_parallelism,
                    subtasks: vec![Subtask::default(); *parallelism as usize],
                    tables: self.tables.get(&stage.node).cloned().unwrap_or_default(),
                });
                let place = self.places[number as usize] as usize;
                let before = match stage.upon {
                    None => Vec::new(),
                    Some(upon) => {
                        let newest = newest.filter(|newest| newest.checkpoint == upon);
                        let newest = newest.ok_or_else(|| format!("checkpoint {upon} is not the last"))?;
                        carry_on(newest, uid, place, &mut manifest.files)
                    }
                };
                let next = before.iter().map(|section| section.layer + 1).max().unwrap_or(0);
                let mut sections = before;
                for (kind, content) in stage.sections {
                    let layer = if section::backend_of(&kind).is_some() { next } else { 0 };
                    let place = match content {
                        Content::Text(text) if text.len() <= INLINE_BYTES => Place::Inline(text),
                        Content::Text(text) => append(&mut data, [text.as_bytes()].into_iter()),
                        Content::Bytes(pieces) => append(&mut data, pieces.iter()),
                        Content::File(file) => {
                            let known = newest.filter(|_| file.is_shared);
                            let known = known.and_then(|newest| known_file(newest, uid, place, &kind));
                            if let Some((path, of)) = known {
                                let length = of.bytes;
                                manifest.files.insert(path.clone(), of);
                                Place::File { path, offset: 0, length }
                            } else {
                                let name = format!("{}-{place}-{}", stage.node, file.name);
                                let place = (place, sections.len());
                                files.push(Upload { uid: uid.clone(), place, name, file });
                                Place::Inline(String::new())
                            }
                        }
                    };
                    sections.push(Section { kind, layer, place });
                }
                operator.subtasks[place] = Subtask { is_finished: stage.is_finished, sections };
            }
        }
        Ok(Prepared { manifest, data, files })
    }
}

/// The file that a subtask has in this section, and its path.
fn known_file(newest: &Manifest, uid: &str, place: usize, kind: &str) -> Option<(String, File)> {
    let sections = &newest.operators.get(uid)?.subtasks.get(place)?.sections;
    let Place::File { path, .. } = &sections.iter().find(|section| section.kind == kind)?.place else {
        return None;
    };
    Some((path.clone(), newest.files.get(path)?.clone()))
}

/// The keyed state of a subtask in a manifest, upon which the next builds; the files that it is in.
fn carry_on(newest: &Manifest, uid: &str, place: usize, files: &mut BTreeMap<String, File>) -> Vec<Section> {
    let subtask = newest.operators.get(uid).and_then(|operator| operator.subtasks.get(place));
    let sections = subtask.into_iter().flat_map(|subtask| &subtask.sections);
    let sections: Vec<Section> =
        sections.filter(|section| section::backend_of(&section.kind).is_some()).cloned().collect();
    for section in &sections {
        if let Place::File { path, .. } = &section.place
            && let Some(file) = newest.files.get(path)
        {
            files.insert(path.clone(), file.clone());
        }
    }
    sections
}

fn append<'a>(data: &mut Vec<u8>, pieces: impl Iterator<Item = &'a [u8]>) -> Place {
    let offset = data.len() as u64;
    pieces.for_each(|piece| data.extend_from_slice(piece));
    Place::File { path: DATA.to_owned(), offset, length: data.len() as u64 - offset }
}
