//! What can go wrong with a guest, and how the user reads it.

use std::time::Duration;

use model::Diagnostic;
use thiserror::Error;

/// Why a component is refused, or a call of it failed.
#[derive(Clone, Debug, Error)]
pub enum GuestError {
    /// A file that cannot be read.
    #[error("cannot read the component: {0}")]
    Unreadable(String),
    /// Not WebAssembly at all, or damaged.
    #[error("this is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// A core module.
    #[error("this is a core WebAssembly module, not a component")]
    CoreModule,
    /// A component of another world.
    #[error("this component is no Millstream job: it does not export `{0}`")]
    WrongWorld(String),
    /// A component made for another version of the contract.
    #[error("this component is made for version {found} of the contract; this is version {expected}")]
    WrongVersion {
        /// The component's.
        found: String,
        /// The host's.
        expected: String,
    },
    /// An export of another type than the contract's.
    #[error("the component's interface `{interface}` is not the contract's: {what}")]
    WrongType {
        /// The interface.
        interface: String,
        /// What wasmtime says.
        what: String,
    },
    /// An import that nobody grants.
    #[error("the component imports `{0}`, which is not granted")]
    ImportNotGranted(String),
    /// More of something than a job needs.
    #[error("the component is too large: {0}")]
    TooLarge(String),
    /// It cannot be compiled.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// Compiling it took too long.
    #[error("the component takes more than {0:?} of CPU time to compile")]
    CompileTime(Duration),
    /// Compiling it took too much memory, in bytes.
    #[error("the component takes more than {0} bytes of memory to compile")]
    CompileMemory(usize),
    /// It trapped.
    #[error("trapped: {message}")]
    Trapped {
        /// The guest's last words, or the trap's name.
        message: String,
        /// Where, in the guest.
        backtrace: String,
    },
    /// It ran too long.
    #[error("ran longer than {0:?} of CPU time in one call")]
    TimedOut(Duration),
    /// It asked for too much memory, and then trapped.
    #[error("needed more than {0} bytes of memory")]
    OutOfMemory(usize),
    /// Its memory is larger than an instance may have before it has done anything.
    #[error("the component needs {needed} bytes of memory at its start")]
    MemoryAtStart {
        /// What it asks for, in bytes.
        needed: u64,
        /// What an instance may have, in bytes.
        limit: usize,
    },
    /// It recursed too deep.
    #[error("overflowed its stack")]
    StackOverflow,
    /// It gave too much at once.
    #[error("gave more than {0} bytes in one call")]
    OutputTooLarge(usize),
    /// What it gave is not what the contract says.
    #[error("gave what cannot be: {0}")]
    Lied(String),
    /// `open` said no.
    #[error("could not be opened: {0}")]
    OpenRefused(String),
    /// The sandbox itself failed.
    #[error("the sandbox failed: {0}")]
    Internal(String),
}

impl GuestError {
    /// Whether a row may be to blame: then the call is worth repeating, and halving.
    #[must_use]
    pub fn is_of_a_row(&self) -> bool {
        matches!(
            self,
            Self::Trapped { .. }
                | Self::TimedOut(_)
                | Self::OutOfMemory(_)
                | Self::StackOverflow
                | Self::OutputTooLarge(_)
                | Self::Lied(_)
        )
    }

    /// As the user reads it.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let message = self.to_string();
        match self {
            Self::Unreadable(_) => Diagnostic::user(message),
            Self::NotAComponent(_) => {
                Diagnostic::user(message).hint("`streamctl build DIR -o FILE` makes a component of a project")
            }
            Self::CoreModule => Diagnostic::user(message)
                .detail("the file is WebAssembly, but has no component around it")
                .hint("`streamctl build DIR -o FILE` makes a component of a project"),
            Self::WrongWorld(_) => Diagnostic::user(message)
                .detail("a job exports the world `millstream:job/millstream-job`")
                .hint("`streamctl new NAME` makes a project that does"),
            Self::WrongVersion { .. } => Diagnostic::user(message)
                .hint("build it again with this release's SDK: `streamctl build DIR -o FILE`"),
            Self::WrongType { .. } => Diagnostic::user(message)
                .hint("build it again with this release's SDK: `streamctl build DIR -o FILE`"),
            Self::ImportNotGranted(_) => Diagnostic::user(message)
                .detail("a guest may log and count; files, network, clocks and the like are the host's")
                .hint("read and write through sources and sinks of the job"),
            Self::TooLarge(_) | Self::Compile(_) => Diagnostic::user(message),
            Self::CompileTime(_) => Diagnostic::user(message)
                .detail("compiling is limited (millstream.compile.time, and ten times as long by the clock)")
                .hint("to give it more time: -D millstream.compile.time=5min, of the session where one is asked"),
            Self::CompileMemory(_) => Diagnostic::user(message)
                .detail("compiling is limited (millstream.compile.memory)")
                .hint("to give it more: -D millstream.compile.memory=2gb, of the session where one is asked"),
            Self::Trapped { message, backtrace } => {
                let trapped = Diagnostic::user(format!("trapped: {message}"));
                let trapped = match message.contains("out of bounds memory access") {
                    true => trapped
                        .hint("recursion without end? It ends so too, where the stack is the guest's own"),
                    false => trapped,
                };
                if backtrace.is_empty() { trapped } else { trapped.detail(backtrace.clone()) }
            }
            Self::TimedOut(_) => Diagnostic::user(message)
                .hint("an endless loop? To give calls more time: -D millstream.guest.call-time=10s"),
            Self::OutOfMemory(_) => {
                Diagnostic::user(message).hint("to give guests more: -D millstream.guest.memory=1gb")
            }
            Self::MemoryAtStart { needed, limit } => Diagnostic::user(message)
                .detail(format!("a guest has {limit} bytes at most (millstream.guest.memory)"))
                .hint(format!(
                    "to give guests more: -D millstream.guest.memory={}mb",
                    needed.div_ceil(1 << 20)
                )),
            Self::StackOverflow => Diagnostic::user(message).hint("recursion without end?"),
            Self::OutputTooLarge(_) => Diagnostic::user(message)
                .detail("does one row become very many?")
                .hint("to let a call give more: -D millstream.guest.output=256mb"),
            Self::Lied(_) => Diagnostic::user(message)
                .detail("what a guest returns is checked before it is used")
                .hint("a bug in the guest's SDK, or a guest that means harm"),
            Self::OpenRefused(_) => Diagnostic::user(message),
            Self::Internal(_) => Diagnostic::internal(message),
        }
    }
}
