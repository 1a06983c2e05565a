//! `streamctl dev`: a project's job runs while its sources change, and goes over to each version that can be built.

mod bell;
mod job;
mod sources;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use cluster::attempts::short;
use model::Diagnostic;
use platform::{Clock, spawn_thread};
use task::JobOutcome;

use self::bell::{Bell, News};
use self::job::{Change, Component, Project};
use self::sources::Sources;
use super::signals::Signals;
use super::{build, load};
use crate::cli::DevArgs;
use crate::terminal::{Terminal, bytes, duration};
use crate::toolchain::{Built, Toolchain};
use crate::{Done, Stop};

/// Editors write a file in several steps, and several files: it is looked when nothing has happened for so long …
const SETTLES: Duration = Duration::from_millis(50);
/// … or at the latest after this.
const SETTLES_MAX: Duration = Duration::from_millis(500);
/// How often is looked all the same: what other machines write to a shared folder nobody tells of.
const LOOKS: Duration = Duration::from_secs(2);
/// How often is looked where the system tells of nothing.
const LOOKS_ALONE: Duration = Duration::from_millis(300);

pub(crate) fn dev(args: &DevArgs, terminal: &Arc<Terminal>) -> Done {
    let dir = &args.job.file;
    let (toolchain, manifest) = build::with_toolchain(dir, terminal)?;
    let bell = Arc::new(Bell::default());
    let project = Project::new(args, terminal, &bell)?;
    let caught = Signals::catch().map_err(Stop::Failed)?;
    let rings = Arc::clone(&bell);
    let stop = move || rings.ring(|news| news.stop = true);
    let signals = caught.are_told(stop, project.current(), args.quiet, terminal);
    let (sources, why) = Sources::of(dir, &bell);
    let mut this = Dev {
        args,
        terminal,
        clock: Clock::system(),
        bell,
        toolchain,
        manifest,
        sources,
        project,
        look: None,
        build: None,
        is_dirty: false,
        ready: None,
        changing: None,
        refused: None,
        is_first: true,
    };
    this.say_not_told(why);
    this.say(&format!("Building {}.", dir.display()));
    let done = this.begin_build().and_then(|()| this.live());
    // A compiler that works for nobody.
    this.build.take().into_iter().for_each(Build::give_up);
    let ended = this.project.end();
    match signals.code() {
        0 => done.and(ended),
        code => Err(Stop::Code(code)),
    }
}

/// A build that is under way.
struct Build {
    cargo: Child,
    since: Duration,
}

impl Build {
    fn give_up(mut self) {
        drop(self.cargo.kill());
        drop(self.cargo.wait());
    }
}

/// A version that has been built, and does not run yet.
struct Ready {
    component: Component,
    took: Duration,
}

/// When it is looked for changes that were told of.
struct Look {
    /// The first was told then.
    first: Duration,
    due: Duration,
}

struct Dev<'a> {
    args: &'a DevArgs,
    terminal: &'a Arc<Terminal>,
    clock: Clock,
    bell: Arc<Bell>,
    toolchain: Toolchain,
    manifest: PathBuf,
    sources: Sources,
    project: Project<'a>,
    look: Option<Look>,
    build: Option<Build>,
    /// Sources have changed since the build began.
    is_dirty: bool,
    ready: Option<Ready>,
    /// The job is going over to this version, since then.
    changing: Option<(Ready, Duration)>,
    /// The one that was built last, which the job could not go over to.
    refused: Option<Ready>,
    /// Nothing has been built yet. What is refused then ends all.
    is_first: bool,
}

impl Dev<'_> {
    fn say(&self, text: &str) {
        if !self.args.quiet {
            self.terminal.line(text);
        }
    }

    fn say_not_told(&self, why: Option<String>) {
        if let Some(why) = why {
            let every = duration(LOOKS_ALONE);
            self.terminal.warning(&format!(
                "the system does not tell of changes, so it is looked every {every}: {why}"
            ));
        }
    }

    /// Until it is to end.
    fn live(&mut self) -> Done {
        loop {
            let News { stop, touched, built, job, changed } = self.bell.wait(self.until_look());
            if stop {
                return Ok(());
            }
            let is_other = job || built.is_some() || changed.is_some();
            if touched {
                let now = self.clock.now();
                let first = self.look.as_ref().map_or(now, |look| look.first);
                self.look = Some(Look { first, due: (now + SETTLES).min(first + SETTLES_MAX) });
            }
            if let Some(changed) = changed {
                self.has_changed(changed);
            }
            if job && let Some(outcome) = self.project.ended()? {
                self.has_ended(outcome);
            }
            if let Some(messages) = built {
                self.has_built(&messages)?;
            }
            if is_other {
                self.take_over()?;
            }
            if self.until_look().is_zero() || !(touched || is_other) {
                self.look_for_changes()?;
            }
        }
    }

    /// How long until it is looked for changes.
    fn until_look(&self) -> Duration {
        match &self.look {
            Some(look) => look.due.saturating_sub(self.clock.now()),
            None if self.sources.are_told() => LOOKS,
            None => LOOKS_ALONE,
        }
    }

    fn look_for_changes(&mut self) -> Done {
        self.look = None;
        let (mut changed, watched) = self.sources.changed();
        self.say_not_told(watched.err());
        // Cargo's own file is what the build makes of it.
        changed.retain(|file| self.build.is_none() || !sources::is_lock(file));
        let Some(first) = changed.first() else { return Ok(()) };
        if self.build.is_some() {
            self.is_dirty = true;
            return Ok(());
        }
        let name = first.strip_prefix(self.root()).unwrap_or(first).display().to_string();
        self.say(&match changed.len() {
            1 => format!("{name} has changed: building."),
            n => format!("{name} and {} more have changed: building.", n - 1),
        });
        self.begin_build()
    }

    /// The project's folder, as its files are named.
    fn root(&self) -> PathBuf {
        let dir = self.manifest.parent().unwrap_or(Path::new("."));
        dir.canonicalize().unwrap_or_else(|_| dir.to_owned())
    }

    fn begin_build(&mut self) -> Done {
        let since = self.clock.now();
        // Cargo shows how far it is the first time; later only what the compiler says.
        let quiet = !self.is_first || self.args.quiet;
        let mut cargo = self.toolchain.begin(&self.manifest, quiet).map_err(Stop::Failed)?;
        let (out, bell) = (cargo.stdout.take(), Arc::clone(&self.bell));
        spawn_thread("build", move || {
            let mut messages = Vec::new();
            // A pipe that breaks ends the messages; how cargo ended says what came of it.
            drop(out.map(|mut out| out.read_to_end(&mut messages)));
            let messages = String::from_utf8_lossy(&messages).into_owned();
            bell.ring(|news| news.built = Some(messages));
        });
        self.build = Some(Build { cargo, since });
        Ok(())
    }

    fn has_built(&mut self, messages: &str) -> Done {
        let Some(mut build) = self.build.take() else { return Ok(()) };
        let status = build.cargo.wait().map_err(|error| {
            Stop::Failed(Diagnostic::external("cargo cannot be waited for").detail(error.to_string()))
        })?;
        let took = self.clock.now() - build.since;
        let built = Built::of(status, messages);
        let watched = self.sources.were_built(built.as_ref().ok());
        self.say_not_told(watched.err());
        if std::mem::take(&mut self.is_dirty) {
            self.say("Sources have changed meanwhile: building again.");
            return self.begin_build();
        }
        self.refused = None;
        match built {
            Ok(Built { component: file, .. }) => {
                // The next build may write to the file while this one still waits.
                let component = Component { bytes: load::read(&file)?, file };
                self.ready = Some(Ready { component, took });
            }
            Err(error) => {
                self.terminal.error(&error);
                self.say_what_stays();
                self.is_no_more_first();
            }
        }
        Ok(())
    }

    fn say_what_stays(&self) {
        self.say(match self.project.runs() {
            true => "The job runs on as it is.",
            false => "It is tried again when a source changes.",
        });
    }

    fn is_no_more_first(&mut self) {
        if std::mem::take(&mut self.is_first) {
            self.say(&format!("Watching {}.", self.args.job.file.display()));
        }
    }

    /// Has the job run as the version that was built last, as soon as that can be.
    fn take_over(&mut self) -> Done {
        if self.changing.is_some() {
            return Ok(());
        }
        let Some(ready) = self.ready.take() else { return Ok(()) };
        if !self.project.runs() {
            return self.start(&ready);
        }
        let since = self.clock.now();
        match self.project.change(&ready.component) {
            Ok(Change::Begun) => self.changing = Some((ready, since)),
            Ok(Change::Later) => self.ready = Some(ready),
            Ok(Change::Same) => self.say("The component is the same as before."),
            Err(stop) => {
                stop.tell(self.terminal);
                self.say_what_stays();
                self.refused = Some(ready);
            }
        }
        Ok(())
    }

    fn start(&mut self, ready: &Ready) -> Done {
        match self.project.start(&ready.component) {
            Ok(()) => {
                if let Some(component) = self.project.component() {
                    let size = bytes(ready.component.bytes.len() as u64);
                    let (component, took) = (short(&component), duration(ready.took));
                    self.say(&format!("Started component {component} ({size}), built in {took}."));
                }
                self.is_no_more_first();
                Ok(())
            }
            Err(stop) if self.is_first => Err(stop),
            Err(stop) => {
                stop.tell(self.terminal);
                self.say_what_stays();
                Ok(())
            }
        }
    }

    fn has_changed(&mut self, result: Result<String, Diagnostic>) {
        let Some((ready, since)) = self.changing.take() else { return };
        match result {
            Ok(how) => {
                let took = self.clock.now() - since;
                let component = self.project.component().unwrap_or_default();
                self.say(&format!(
                    "Changed to component {} {how}: built in {}, changed in {}.",
                    short(&component),
                    duration(ready.took),
                    duration(took)
                ));
            }
            Err(error) => {
                self.terminal.error(&error);
                match self.project.runs() {
                    true => {
                        self.say_what_stays();
                        self.refused = Some(ready);
                    }
                    false => self.ready = Some(ready),
                }
            }
        }
    }

    fn has_ended(&mut self, outcome: JobOutcome) {
        // What was built since goes on at once.
        self.ready = self.ready.take().or(self.refused.take());
        let when = match self.ready.is_some() || self.changing.is_some() {
            true => "",
            false => " when a source changes",
        };
        match outcome {
            JobOutcome::Finished => self.say(&format!("The job begins anew{when}.")),
            JobOutcome::Cancelled => self.say(&format!("The job was cancelled; it begins anew{when}.")),
            JobOutcome::Failed(error) => {
                self.terminal.error(&error);
                self.say(&format!("The job goes on from its last checkpoint{when}."));
            }
        }
    }
}
