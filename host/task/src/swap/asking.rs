//! How a running job is asked to change to another version.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoint::coordinator::CheckpointId;
use checkpoint::manifest::{Table, Version as Ran};
use model::Diagnostic;
use model::job_graph::{NodeId, NodeKind};
use platform::Inbox;

use super::code::{Ground, Operators, SubtaskSwap, operators};
use super::probation::Trial;
use super::{Difference, Observer, RollBack, Rollback, Standing, SwapOptions, Version, diff};
use crate::Plan;
use crate::checkpoints::kept;

/// Hears the checkpoint from whose barrier on the new version runs, which is complete; or why the job has not
/// changed. It is dropped where the job ends before.
pub type SwapAnswer = Box<dyn FnOnce(Result<CheckpointId, String>) + Send>;

/// Is told how a version on probation stands.
pub(crate) type Tells = Box<dyn FnMut(Standing) + Send>;

/// A change that is asked for: what the job's checkpoints do with it.
pub(crate) struct SwapAsk {
    /// By subtask.
    pub(crate) swaps: Vec<SubtaskSwap>,
    pub(crate) operators: Operators,
    /// What tables are called that are called otherwise.
    pub(crate) tables: Vec<(NodeId, Vec<Table>)>,
    pub(crate) component: Component,
    pub(crate) answer: SwapAnswer,
    /// That the new version is on probation, and who hears how it stands.
    pub(crate) trial: Option<(Arc<Trial>, Tells)>,
    /// The old version loses nothing of the state that the new one keeps.
    pub(crate) leads_back: bool,
}

/// The component of a version, as checkpoints keep it.
#[derive(Clone)]
pub(crate) struct Component {
    /// The job's name in it, and its arguments; from which checkpoint on is not known yet.
    pub(crate) ran: Ran,
    /// The job's own name.
    pub(crate) name: String,
    pub(crate) source: Arc<[u8]>,
}

impl Component {
    pub(crate) fn of(version: &Version) -> Self {
        let ran = Ran {
            from: 0,
            component: version.digest().to_owned(),
            job: version.job.clone(),
            args: version.args.clone(),
        };
        let name = version.physical.job.name.clone();
        Self { ran, name, source: Arc::clone(version.program.source()) }
    }
}

/// A running job's versions, and where others are asked for.
pub(crate) struct Swaps {
    deployed: Arc<Version>,
    ground: Ground,
    asks: Option<Inbox<SwapAsk>>,
    running: Arc<Mutex<Running>>,
}

struct Running {
    version: Arc<Version>,
    /// Another is on its way, or on probation.
    is_changing: bool,
    /// How the one stands that was last on probation.
    standing: Option<Standing>,
    /// Its probation, and where a job goes on as the version before it.
    trial: Option<(Arc<Trial>, RollBack)>,
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the mark away that a change is under way, when it is over however it ends.
struct Mark(Arc<Mutex<Running>>);

impl Drop for Mark {
    fn drop(&mut self) {
        lock(&self.0).is_changing = false;
    }
}

impl Swaps {
    pub(crate) fn new(deployed: Version, ground: Ground, asks: Option<Inbox<SwapAsk>>) -> Self {
        let deployed = Arc::new(deployed);
        let running = Arc::new(Mutex::new(Running {
            version: Arc::clone(&deployed),
            is_changing: false,
            standing: None,
            trial: None,
        }));
        Self { deployed, ground, asks, running }
    }

    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&lock(&self.running).version)
    }

    /// How the version stands that was last on probation.
    pub(crate) fn standing(&self) -> Option<Standing> {
        lock(&self.running).standing.clone()
    }

    /// Where the job is to go on from, if an exact rollback has ended it.
    pub(crate) fn roll_back(&self) -> Option<RollBack> {
        let running = lock(&self.running);
        let (trial, back) = running.trial.as_ref().filter(|(trial, _)| trial.is_exact())?;
        trial.fall()?;
        Some(RollBack { newest: trial.newest(), ..back.clone() })
    }

    pub(crate) fn swap(
        &self,
        plan: &Plan,
        options: SwapOptions,
        answer: SwapAnswer,
    ) -> Result<Difference, Diagnostic> {
        let Some(asks) = &self.asks else {
            return Err(Diagnostic::user("a job without checkpoints cannot change while it runs")
                .detail("it changes at the barrier of one")
                .hint("give it a folder for them: -D execution.checkpointing.dir=DIR"));
        };
        let old = {
            let mut running = lock(&self.running);
            if std::mem::replace(&mut running.is_changing, true) {
                let message = match running.standing {
                    Some(Standing::OnProbation { .. }) => "the version that runs is on probation",
                    Some(Standing::GoingBack { .. }) => "the job is going back to its old version",
                    _ => "the job is changing to another version already",
                };
                return Err(Diagnostic::user(message).hint("ask again when that is done"));
            }
            Arc::clone(&running.version)
        };
        let mark = Mark(Arc::clone(&self.running));
        let new = Arc::new(plan.version());
        let difference = diff(&old, &new);
        difference.check_live()?;
        plan.check_grants()?;
        match options.probation.map(|probation| probation.rollback) {
            Some(Rollback::Forward) => difference.check_back()?,
            Some(Rollback::Exact) => plan.check_rewinds()?,
            None => {}
        }
        let trial =
            options.probation.map(|probation| Arc::new(Trial::new(probation, self.ground.clock.clone())));
        let swaps = self.ground.swaps(&old, &new, trial.as_ref())?;
        let component = Component::of(&new);
        let (running, version) = (Arc::clone(&self.running), Arc::clone(&new));
        // Of the answer, or of the probation where there is one.
        let mark = Arc::new(mark);
        let trial = trial.map(|trial| {
            lock(&self.running).trial = Some((Arc::clone(&trial), self.back(&old, &new)));
            (trial, self.told(old, Arc::clone(&mark), options.observer))
        });
        let answer: SwapAnswer = Box::new(move |result| {
            if result.is_ok() {
                lock(&running).version = version;
            }
            drop(mark);
            answer(result);
        });
        let operators = operators(&self.deployed, &new);
        let (tables, leads_back) = (self.tables(&new), difference.leads_back());
        asks.put(SwapAsk { swaps, operators, tables, component, answer, trial, leads_back });
        Ok(difference)
    }

    /// How a job goes on as the old version from what the new one has kept.
    fn back(&self, old: &Version, new: &Version) -> RollBack {
        let (was, is) = (operators(&self.deployed, old), operators(&self.deployed, new));
        let pairs = is.into_values().zip(was.into_values()).map(|(is, was)| (is.0, was.0));
        let uids = pairs.filter(|(is, was)| is != was).collect();
        RollBack { newest: 0, version: Component::of(old).ran, uids }
    }

    /// Takes note of how a version on probation stands, and tells it.
    fn told(&self, old: Arc<Version>, mark: Arc<Mark>, observer: Option<Observer>) -> Tells {
        let running = Arc::clone(&self.running);
        let (mut old, mut mark) = (Some(old), Some(mark));
        lock(&running).standing = Some(Standing::Changing);
        Box::new(move |standing| {
            {
                let mut running = lock(&running);
                if matches!(standing, Standing::WentBack { .. }) {
                    old.take().into_iter().for_each(|old| running.version = old);
                }
                running.standing = Some(standing.clone());
            }
            if !matches!(standing, Standing::OnProbation { .. } | Standing::GoingBack { .. }) {
                drop(mark.take());
            }
            observer.iter().for_each(|observer| observer(&standing));
        })
    }

    /// What the tables of functions are called that are in no windows; those of others stay as they are.
    fn tables(&self, new: &Version) -> Vec<(NodeId, Vec<Table>)> {
        let mut tables = Vec::new();
        for (was, is) in self.deployed.physical.vertices.iter().zip(&new.physical.vertices) {
            for (before, after) in was.stages.iter().zip(&is.stages) {
                let head = after.nodes[0];
                if let NodeKind::Function(function) = &new.physical.job.nodes[head as usize].kind
                    && function.is_stateful()
                    && function.windows.is_none()
                {
                    let kept = kept::of_function(&new.physical.job, head, function);
                    tables.push((before.nodes[0], kept.tables(0)));
                }
            }
        }
        tables
    }
}
