//! Sorts the arguments of `run`, `dev`, `info`, `swap` and `diff` into Millstream's and the job's.
//!
//! Before FILE all options are Millstream's. After it a few are (Flink users write
//! `run FILE -p 3`); all else is the job's, in its order, and so is everything after `--`.

use clap::{ArgAction, CommandFactory};
use model::Diagnostic;

use crate::cli::Cli;

/// Options with a value that are Millstream's after FILE too.
const AFTER_FILE: [&str; 5] = ["-p", "-c", "-D", "--execution", "--allow"];
/// Of `run` alone: with a value, and without.
const OF_RUN: [&str; 2] = ["-s", "-m"];
const FLAGS_OF_RUN: [&str; 2] = ["-d", "-n"];
/// Of `dev` alone: with a value, and without.
const OF_DEV: [&str; 1] = ["-s"];
const FLAGS_OF_DEV: [&str; 1] = ["-n"];
/// Of `swap` and `diff`: with a value, and without.
const OF_SWAP: [&str; 3] = ["-c", "-D", "-m"];
const FLAGS_OF_SWAP: [&str; 2] = ["--restart", "-n"];

/// Puts Millstream's arguments first, then FILE, `--`, and the job's.
pub(crate) fn sort(raw: Vec<String>) -> Result<Vec<String>, Diagnostic> {
    let command = Cli::command();
    let Some(at) = raw.iter().skip(1).position(|arg| !arg.starts_with('-')).map(|at| at + 1) else {
        return Ok(raw);
    };
    // What is ours after FILE, with a value and without; and how many words stand before FILE.
    let (values, flags, before): (Vec<&str>, &[&str], usize) = match raw[at].as_str() {
        "run" => (AFTER_FILE.into_iter().chain(OF_RUN).collect(), &FLAGS_OF_RUN, 0),
        "dev" => (AFTER_FILE.into_iter().chain(OF_DEV).collect(), &FLAGS_OF_DEV, 0),
        "info" => (AFTER_FILE.to_vec(), &[], 0),
        "swap" | "diff" => (OF_SWAP.to_vec(), &FLAGS_OF_SWAP, 1),
        _ => return Ok(raw),
    };
    let sub = command.find_subcommand(&raw[at]);
    // What stands before FILE: known options, with their values.
    let takes_value = |arg: &str| {
        sub.into_iter().chain([&command]).flat_map(|c| c.get_arguments()).any(|known| {
            matches!(known.get_action(), ArgAction::Set | ArgAction::Append)
                && (known.get_long().is_some_and(|long| arg == format!("--{long}"))
                    || known.get_short().is_some_and(|short| arg == format!("-{short}")))
        })
    };
    let (mut file, mut before) = (at + 1, before);
    while file < raw.len() && raw[file] != "--" {
        file += match raw[file].starts_with('-') {
            true if takes_value(&raw[file]) => 2,
            true => 1,
            false if before > 0 => {
                before -= 1;
                1
            }
            false => break,
        };
    }
    if file >= raw.len() || raw[file] == "--" {
        return Ok(raw);
    }
    let mut ours = raw[..file].to_vec();
    let mut jobs = Vec::new();
    let mut rest = raw[file + 1..].iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            jobs.extend(rest.cloned());
            break;
        }
        if flags.contains(&arg.as_str()) {
            ours.push(arg.clone());
        } else if values.contains(&arg.as_str()) {
            ours.push(arg.clone());
            ours.extend(rest.next().cloned());
        } else if is_attached(&values, arg) {
            ours.push(arg.clone());
        } else {
            jobs.push(arg.clone());
        }
    }
    ours.push(raw[file].clone());
    ours.push("--".to_owned());
    ours.extend(jobs);
    Ok(ours)
}

/// `-p3`, `-Dkey=value`, `--allow=PATH`.
fn is_attached(values: &[&str], arg: &str) -> bool {
    let attached = |option: &&str| match option.len() {
        2 => arg
            .strip_prefix(*option)
            .is_some_and(|rest| *option != "-p" || rest.chars().all(|c| c.is_ascii_digit())),
        _ => arg.strip_prefix(*option).is_some_and(|rest| rest.starts_with('=')),
    };
    let may_be = |option: &&str| AFTER_FILE.contains(option) && *option != "-c";
    values.iter().copied().filter(may_be).any(|option| attached(&option))
}

/// Flink's long options with one dash, which clap does not know: of `savepoint`, `stop` and `checkpoint`.
pub(crate) fn with_two_dashes(mut raw: Vec<String>) -> Vec<String> {
    let is_theirs = raw.iter().skip(1).find(|arg| !arg.starts_with('-'));
    if is_theirs
        .is_some_and(|command| ["savepoint", "stop", "cancel", "checkpoint"].contains(&command.as_str()))
    {
        for arg in &mut raw {
            if ["-type", "-detached", "-full"].contains(&arg.as_str()) {
                arg.insert(0, '-');
            }
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(line: &str) -> String {
        sort(line.split(' ').map(str::to_owned).collect()).unwrap().join(" ")
    }

    #[test]
    fn after_the_file_only_a_few_are_ours() {
        assert_eq!(
            sorted("streamctl run wc.wasm -p 3 --input a -Dx.y=1 --execution=batch -q"),
            "streamctl run -p 3 -Dx.y=1 --execution=batch wc.wasm -- --input a -q"
        );
        assert_eq!(
            sorted("streamctl run -c word_count -p 3 wc.wasm --host localhost --port 7777"),
            "streamctl run -c word_count -p 3 wc.wasm -- --host localhost --port 7777"
        );
    }

    #[test]
    fn after_two_dashes_all_is_the_jobs() {
        assert_eq!(sorted("streamctl run wc.wasm -- -p 3"), "streamctl run wc.wasm -- -p 3");
        assert_eq!(sorted("streamctl run wc.wasm -p 1 -- -p -- 3"), "streamctl run -p 1 wc.wasm -- -p -- 3");
    }

    #[test]
    fn help_before_the_file_is_ours_and_after_it_the_jobs() {
        assert_eq!(sorted("streamctl run --help"), "streamctl run --help");
        assert_eq!(sorted("streamctl run wc.wasm --help"), "streamctl run wc.wasm -- --help");
    }

    #[test]
    fn a_word_that_begins_like_an_option_is_the_jobs() {
        assert_eq!(sorted("streamctl run a.wasm -path x"), "streamctl run a.wasm -- -path x");
    }

    #[test]
    fn flinks_options_of_run_are_ours_on_both_sides() {
        assert_eq!(
            sorted("streamctl run a.wasm -d -m host:1 -s path -n --x -d"),
            "streamctl run -d -m host:1 -s path -n -d a.wasm -- --x"
        );
        assert_eq!(sorted("streamctl info a.wasm -s x -d"), "streamctl info a.wasm -- -s x -d");
        let savepoint = ["streamctl", "savepoint", "-type", "native", "id"].map(str::to_owned).to_vec();
        assert_eq!(with_two_dashes(savepoint)[2], "--type");
        let run = ["streamctl", "run", "a.wasm", "-type"].map(str::to_owned).to_vec();
        assert_eq!(with_two_dashes(run)[3], "-type");
    }

    #[test]
    fn a_swap_has_a_job_before_its_file() {
        assert_eq!(
            sorted("streamctl swap -m h:1 id b.wasm --input a -p --restart"),
            "streamctl swap -m h:1 id --restart b.wasm -- --input a -p"
        );
        assert_eq!(sorted("streamctl diff id -c x b.wasm"), "streamctl diff id -c x b.wasm --");
        assert_eq!(sorted("streamctl swap id --back"), "streamctl swap id --back");
    }

    #[test]
    fn a_folder_stands_where_a_file_does() {
        assert_eq!(
            sorted("streamctl dev --rest-port off . -p 2 --input a -s b -n -d"),
            "streamctl dev --rest-port off -p 2 -s b -n . -- --input a -d"
        );
    }

    #[test]
    fn other_commands_are_left_as_they_are() {
        assert_eq!(sorted("streamctl build . -o x.wasm"), "streamctl build . -o x.wasm");
        assert_eq!(sorted("streamctl --color never run a.wasm b"), "streamctl --color never run a.wasm b");
    }
}
