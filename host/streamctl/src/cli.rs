//! The command line, as clap reads it; `docs/cli.md` is made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster::checkpoints::Restore;

/// Runs stream-processing jobs whose operators are WebAssembly components.
#[derive(Parser)]
#[command(name = "streamctl", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a job
    Run(RunArgs),
    /// List the jobs of a session
    List(ListArgs),
    /// Cancel a job
    Cancel(CancelArgs),
    /// Stop a job with a savepoint
    Stop(StopArgs),
    /// Make a savepoint of a running job, or dispose of one
    Savepoint(SavepointArgs),
    /// Make a checkpoint of a running job, out of turn
    Checkpoint(CheckpointArgs),
    /// Pause a job: it gives its slots back, position and state are kept
    Pause(OneJob),
    /// Go on with a job that was paused
    Resume(OneJob),
    /// Change a running job to another version, with its state
    Swap(SwapArgs),
    /// Show what a change of a running job to another version would do
    Diff(VersionArgs),
    /// List the versions that a job has been, and from which checkpoint on
    Versions(OneJob),
    /// Show what a job has said, the last of it
    Logs(OneJob),
    /// Start, stop or look at a session: jobs run in it on and on, and come back when it has died
    Session(SessionArgs),
    /// Show a component: its jobs, graph, imports, and what it asks of the outside
    Info(InfoArgs),
    /// Make a project from a template: word count in Rust, with the SDK
    New(NewArgs),
    /// Build a component from a project
    Build(BuildArgs),
    /// Run a project's tests, then its golden cases in the real sandbox
    Test(TestArgs),
    /// Run a job step by step, in virtual time: for the test harness of an SDK, by requests on standard
    /// input
    Drive(JobArgs),
    /// Look whether this machine has what jobs and projects need
    Doctor,
    /// Show the configuration, and where each value comes from
    Config(ConfigArgs),
    /// Show the state in a checkpoint or savepoint, or make a savepoint of rows
    State(StateArgs),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a folder
    Man {
        /// The folder, which is made
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What `run` and `info` have in common.
#[derive(Args)]
pub(crate) struct JobArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The job, where the component has several [default: its first]
    #[arg(short = 'c', long = "job", visible_alias = "class", value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Parallel subtasks of each operator that does not set its own [default: parallelism.default]
    #[arg(short = 'p', long, value_name = "N")]
    pub(crate) parallelism: Option<u32>,
    /// Sets a configuration value; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
    /// Results as they change, or final ones only (for input that ends) [default: streaming]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) execution: Option<Execution>,
    /// Grants a path, a HOST:PORT, or `stdin` that the job's arguments do not name
    #[arg(long, value_name = "WHAT")]
    pub(crate) allow: Vec<String>,
    /// The job's own arguments; `streamctl run FILE --help` asks the job
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Execution {
    /// Every change is a row
    Streaming,
    /// Final results only
    Batch,
}

/// Run a job
///
/// Options stand before FILE. What stands after it is the job's own, in its order, but for
/// -p, -c, -d, -s, -n, -m, -D, --execution and --allow; all that stands after `--` is the job's.
#[derive(Args)]
#[command(override_usage = "streamctl run [OPTIONS] FILE [ARGS]")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Gives every call of the guest a fresh instance, for testing: no result may change
    #[arg(long)]
    pub(crate) chaos_instances: bool,
    /// Says nothing on standard error but warnings and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Goes on from a checkpoint: `latest` of this job in execution.checkpointing.dir, or the path of one
    #[arg(long, value_name = "latest|PATH")]
    pub(crate) restore: Option<Restore>,
    /// Path to a savepoint to restore the job from, or s3://BUCKET/NAME
    #[arg(short = 's', long = "fromSavepoint", value_name = "PATH", conflicts_with = "restore")]
    pub(crate) from_savepoint: Option<PathBuf>,
    /// Port of the job's REST interface, or `off` [default: rest.bind-port: the first free one from 8081 to 8090]
    #[arg(long, value_name = "N|off", conflicts_with_all = ["detached", "jobmanager"])]
    pub(crate) rest_port: Option<String>,
    /// Runs the job in a session, and does not wait for its end
    #[arg(short, long, conflicts_with_all = ["restore", "chaos_instances"])]
    pub(crate) detached: bool,
    /// Runs the job in the session whose REST interface this is
    #[arg(short = 'm', long = "jobmanager", value_name = "HOST:PORT", conflicts_with_all = ["restore", "chaos_instances"])]
    pub(crate) jobmanager: Option<String>,
    /// Allow to skip savepoint state that cannot be restored: of operators that the job does not have any more
    #[arg(short = 'n', long = "allowNonRestoredState")]
    pub(crate) allow_non_restored_state: bool,
}

/// Which session is asked.
#[derive(Args)]
pub(crate) struct At {
    /// The session's REST interface [default: rest.address and rest.port]
    #[arg(short = 'm', long = "jobmanager", value_name = "HOST:PORT")]
    pub(crate) jobmanager: Option<String>,
    /// Sets a configuration value; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct OneJob {
    #[command(flatten)]
    pub(crate) at: At,
    /// The job's id: 32 hex digits
    #[arg(value_name = "JOB")]
    pub(crate) id: String,
}

/// Show what a change of a running job to another version would do
///
/// What is kept, runs other code, is migrated, new and dropped; whether the running job can take it over, and whether
/// it could go back.
#[derive(Args)]
#[command(
    override_usage = "streamctl diff [OPTIONS] JOB FILE [ARGS]\n       streamctl diff [OPTIONS] JOB --back"
)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    pub(crate) of: OneJob,
    /// The component of the other version
    #[arg(value_name = "FILE", required_unless_present = "back")]
    pub(crate) file: Option<PathBuf>,
    /// The job, where the component has several [default: the one of the same name, or its first]
    #[arg(short = 'c', long = "job", value_name = "NAME", conflicts_with = "back")]
    pub(crate) job: Option<String>,
    /// Means the version before the one that runs
    #[arg(long, conflicts_with_all = ["file", "args"])]
    pub(crate) back: bool,
    /// The job's own arguments [default: those of the version that runs]
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// How a version on probation goes back.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RollbackKind {
    /// The old code takes over at the row that trapped, elsewhere at the next barrier; nothing is replayed
    Forward,
    /// All goes on from the change's checkpoint with the old code; sinks commit nothing before that is decided
    Exact,
}

/// Change a running job to another version, with its state
///
/// The new component is checked and made ready while the job runs. At the barrier of a checkpoint every subtask
/// changes: rows before it are handled by the old code, rows after it by the new, none lost, none twice; state, timers
/// and windows stay. What a running job cannot take over (another exchange, key, source, sink, window) is refused
/// before anything stops; --restart does it by a savepoint.
#[derive(Args)]
#[command(
    override_usage = "streamctl swap [OPTIONS] JOB FILE [ARGS]\n       streamctl swap [OPTIONS] JOB --back"
)]
pub(crate) struct SwapArgs {
    #[command(flatten)]
    pub(crate) version: VersionArgs,
    /// Stops the job with a savepoint, and starts the new version from it; if that does not start, the old one
    #[arg(long)]
    pub(crate) restart: bool,
    /// With --restart: allow to skip state of operators that the job does not have any more
    #[arg(short = 'n', long = "allowNonRestoredState", requires = "restart")]
    pub(crate) allow_non_restored_state: bool,
    /// Goes back to the old version if the new one traps within this time; the command waits for that long
    #[arg(long, value_name = "TIME", conflicts_with = "restart")]
    pub(crate) probation: Option<String>,
    /// On probation: so many traps lead nowhere
    #[arg(long, value_name = "N", default_value_t = 0, requires = "probation")]
    pub(crate) max_traps: u32,
    /// On probation: how it goes back
    #[arg(long, value_enum, value_name = "HOW", default_value_t = RollbackKind::Forward, requires = "probation")]
    pub(crate) rollback: RollbackKind,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) at: At,
    /// Those that run only
    #[arg(short, long)]
    pub(crate) running: bool,
    /// Those that wait for slots only
    #[arg(short, long)]
    pub(crate) scheduled: bool,
    /// Those that have ended too
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) at: At,
    /// The job's id: 32 hex digits
    #[arg(value_name = "JOB", required_unless_present = "with_savepoint")]
    pub(crate) id: Option<String>,
    /// Makes a savepoint before, in DIR or in execution.checkpointing.savepoint-dir; deprecated: `stop` does it
    #[arg(short = 's', long = "withSavepoint", value_name = "DIR", num_args = 0..=1)]
    pub(crate) with_savepoint: Option<Option<String>>,
}

/// In which form savepoints are.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SavepointForm {
    /// Tables that other programs read
    Canonical,
    /// As checkpoints are: faster
    Native,
}

#[derive(Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) of: OneJob,
    /// Sends the last watermark before the savepoint: windows and timers fire
    #[arg(short, long)]
    pub(crate) drain: bool,
    /// Where the savepoint is put [default: execution.checkpointing.savepoint-dir]
    #[arg(short = 'p', long = "savepointPath", value_name = "DIR")]
    pub(crate) savepoint_path: Option<String>,
    /// Does not wait until it is complete
    #[arg(long)]
    pub(crate) detached: bool,
    /// In which form
    #[arg(long = "type", value_enum, value_name = "FORM", default_value_t = SavepointForm::Canonical)]
    pub(crate) form: SavepointForm,
}

#[derive(Args)]
pub(crate) struct SavepointArgs {
    #[command(flatten)]
    pub(crate) at: At,
    /// The job's id: 32 hex digits
    #[arg(value_name = "JOB", required_unless_present = "dispose")]
    pub(crate) id: Option<String>,
    /// Where it is put [default: execution.checkpointing.savepoint-dir]
    #[arg(value_name = "DIR")]
    pub(crate) target: Option<String>,
    /// Removes the savepoint at this path
    #[arg(short, long, value_name = "PATH", conflicts_with = "id")]
    pub(crate) dispose: Option<String>,
    /// In which form
    #[arg(long = "type", value_enum, value_name = "FORM", default_value_t = SavepointForm::Canonical)]
    pub(crate) form: SavepointForm,
    /// Does not wait until it is complete
    #[arg(long)]
    pub(crate) detached: bool,
}

#[derive(Args)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    pub(crate) of: OneJob,
    /// All state is written, also what checkpoints before have
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

#[derive(Subcommand)]
pub(crate) enum SessionCommand {
    /// Start a session; SIGTERM ends it, and its jobs come back with the next
    Start(SessionStartArgs),
    /// End a session; its jobs come back with the next
    Stop(At),
    /// Look at a session
    Status(At),
}

#[derive(Args)]
pub(crate) struct SessionStartArgs {
    /// Task slots [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u32>,
    /// In the background
    #[arg(short, long)]
    pub(crate) detached: bool,
    /// Sets a configuration value; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
}

/// Show a component
#[derive(Args)]
#[command(override_usage = "streamctl info [OPTIONS] FILE [ARGS]")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The plan alone, as Flink's `info` shows it
    #[arg(long, conflicts_with = "json")]
    pub(crate) plan: bool,
}

#[derive(Args)]
pub(crate) struct NewArgs {
    /// The project's folder, which is made; its last part is the project's name
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Where the component goes [default: DIR/NAME.wasm]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// A component that is built already; the project's own tests are passed over
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// Parallelisms to run each case at
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 3, 7])]
    pub(crate) parallelism: Vec<u32>,
    /// Writes what comes out as the expectation, where there is none yet
    #[arg(long)]
    pub(crate) accept: bool,
}

/// Show the state in a checkpoint or savepoint: its operators and states with their sizes, or a state's rows
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct StateArgs {
    #[command(subcommand)]
    pub(crate) command: Option<StateCommand>,
    /// The folder of the savepoint, or of the checkpoint: DIR/JOB-ID/chk-NUMBER; both may be s3://BUCKET/NAME
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Option<PathBuf>,
    /// Shows the rows of a state of the operator of this uid
    #[arg(long, value_name = "UID", requires = "state")]
    pub(crate) operator: Option<String>,
    /// The state's name; of timers `timers`, of a running aggregate `aggregate`
    #[arg(long, value_name = "NAME", requires = "operator")]
    pub(crate) state: Option<String>,
    /// As JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Sets a configuration value (how S3 is reached); may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum StateCommand {
    /// Make a savepoint of rows, from which a job begins: `run -s OUT`
    Write(StateWriteArgs),
}

/// Make a savepoint of rows, from which a job begins: `run -s OUT`
///
/// --operator, --state and --input are given once for each state. Rows are JSON lines, or CSV with a first line
/// of names, with the columns that `streamctl state OUT --operator UID --state NAME --json` shows: those of the key,
/// of an entry's own key, and of the value. `key_group` can be left out, and is not read.
#[derive(Args)]
pub(crate) struct StateWriteArgs {
    /// The savepoint's folder, or s3://BUCKET/NAME, which is made
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// The component
    #[arg(long, value_name = "FILE")]
    pub(crate) component: PathBuf,
    /// The job, where the component has several [default: its first]
    #[arg(short = 'c', long = "job", visible_alias = "class", value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// The uid of an operator
    #[arg(long, value_name = "UID", required = true)]
    pub(crate) operator: Vec<String>,
    /// The name of a state of it
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) state: Vec<String>,
    /// The rows that it is to have: a file FILE.jsonl, FILE.json or FILE.csv
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// Sets a configuration value; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
    /// The job's own arguments
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    /// Only this key
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Sets a value, to see what it would be
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    /// The page as it should be.
    fn page() -> String {
        let mut page = String::from(
            "# The command line\n\nMade from the binary's own help; `UPDATE=1 cargo test --release -p streamctl cli` writes it anew.\n\n\
             `run` and `info` take all options before FILE. After it only `-p`, `-c`, `-D`, `--execution` and `--allow` are\n\
             streamctl's, and of `run` `-d`, `-s`, `-n` and `-m`; all else is the job's own, in its order, and so is everything after `--`.\n\
             `swap` and `diff` take `-c`, `-D`, `-m` and `--restart` after FILE, too.\n\n\
             Exit codes: 0 finished, or did what was asked; 1 failed; 2 wrong usage, or refused before anything started;\n\
             130 and 143 after a clean stop by Ctrl-C and SIGTERM; 141 when nobody reads standard output any more.\n\
             Standard output carries rows and answers that were asked for; progress, logs and errors go to standard\n\
             error.\n",
        );
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut add = |name: &str, command: &mut clap::Command| {
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
            page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n")));
        };
        add("streamctl", &mut command);
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let name = format!("streamctl {}", sub.get_name());
            add(&name, sub);
            for below in sub.get_subcommands_mut().filter(|below| below.get_name() != "help") {
                let name = format!("{name} {}", below.get_name());
                add(&name, below);
            }
        }
        page
    }

    #[test]
    fn the_page_of_the_command_line_is_true() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&file).unwrap_or_default() == page(),
            "docs/cli.md is not up to date"
        );
    }
}
