//! The points at which faults are, by their names: all of them.

/// Makes the points and the list of them.
macro_rules! points {
    ($($(#[doc = $what:literal])+ $point:ident = $name:literal,)+) => {
        /// A point of the engine that is passed now and then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $what])+ $point,)+
        }

        impl Point {
            /// All.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$point),+];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)+ }
            }
        }
    };
}

points! {
    /// In files: before the bytes of an object are written.
    StoreWrite = "store.write",
    /// Then: before they are made durable.
    StoreSync = "store.sync",
    /// Then: before the object is given its name.
    StoreRename = "store.rename",
    /// Then: before the name is made durable.
    StoreSyncFolder = "store.sync-folder",
    /// Then: before that is told.
    StoreDone = "store.done",
    /// Before an object is read.
    StoreRead = "store.read",
    /// Before an object is removed.
    StoreRemove = "store.remove",
    /// Then: before that is told.
    StoreRemoved = "store.removed",
    /// In an object store: before an object is sent.
    StoreUpload = "store.upload",
    /// Then: before that is told.
    StoreUploaded = "store.uploaded",

    /// Before bytes are written to a part file.
    SinkWrite = "sink.write",
    /// Before a part file that has ended is made durable.
    SinkSync = "sink.sync",
    /// Then: before it is given its name, or, where it waits for a checkpoint, kept.
    SinkEnd = "sink.end",
    /// Then: before that is told.
    SinkEnded = "sink.ended",
    /// Before the files of a checkpoint are shown.
    SinkCommit = "sink.commit",
    /// Then: before each of them is.
    SinkRename = "sink.rename",
    /// Then: before their names are made durable.
    SinkSyncFolder = "sink.sync-folder",
    /// Then: before that is told.
    SinkCommitted = "sink.committed",
    /// Before a folder is brought back to where it was.
    SinkRestore = "sink.restore",
    /// Then: before each file that is removed or put aside.
    SinkClear = "sink.clear",
    /// Then: before that is told.
    SinkRestored = "sink.restored",

    /// Before bytes of a file are read.
    SourceRead = "source.read",
    /// Before it is looked for new files.
    SourceLook = "source.look",
    /// Before a source is brought back to where it was.
    SourceRestore = "source.restore",
    /// Before a connection is made.
    NetworkConnect = "network.connect",
    /// Before bytes are received.
    NetworkRead = "network.read",

    /// Before the subtasks are told that a checkpoint begins.
    CheckpointTrigger = "checkpoint.trigger",
    /// All have acknowledged it: before its data are put.
    CheckpointStore = "checkpoint.store",
    /// Then: before its manifest is put.
    CheckpointManifest = "checkpoint.manifest",
    /// Then: before that is told.
    CheckpointStored = "checkpoint.stored",
    /// Before the subtasks are told that it is complete.
    CheckpointComplete = "checkpoint.complete",
    /// Then: before anything else is done.
    CheckpointCompleted = "checkpoint.completed",
    /// Before a checkpoint is removed.
    CheckpointRemove = "checkpoint.remove",

    /// Before a stage cuts at a barrier.
    BarrierCut = "barrier.cut",
    /// Then: before the barrier goes on.
    BarrierSend = "barrier.send",
    /// Then: before anything else is done.
    BarrierSent = "barrier.sent",
    /// Before a subtask acknowledges a checkpoint.
    SubtaskAcknowledge = "subtask.acknowledge",
    /// Then: before anything else is done.
    SubtaskAcknowledged = "subtask.acknowledged",
    /// Before a subtask's sink commits.
    SubtaskCommit = "subtask.commit",

    /// A change to another version begins: before the subtasks get its code.
    SwapBegin = "swap.begin",
    /// Then, or when it leads back: before a stage changes places with its other code.
    SwapChange = "swap.change",
    /// Then: before anything else is done.
    SwapChanged = "swap.changed",
    /// A version has trapped too often on probation: before its subtask goes back to the old code.
    SwapLeave = "swap.leave",
    /// The change is complete, or is not: before that is told.
    SwapEnd = "swap.end",

    /// Before state is written to the store on disk.
    StateWrite = "state.write",
    /// Before it is read there.
    StateRead = "state.read",
    /// Before the store is frozen for a checkpoint.
    StateFreeze = "state.freeze",
    /// Then: before that is told.
    StateFrozen = "state.frozen",
}

impl Point {
    /// Whether what follows it can be left out on purpose.
    pub(super) fn may_be_skipped(self) -> bool {
        self == Self::SinkRename
    }

    /// The point whose name is most like this.
    pub(super) fn nearest(name: &str) -> Self {
        let likeness = |point: &Self| strsim::jaro_winkler(name, point.name());
        Self::ALL.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(Self::StoreWrite)
    }
}
