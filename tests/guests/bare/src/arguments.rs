//! The job's arguments, parsed by hand.

use crate::exports::millstream::job::job::Refusal;

/// What the user asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) input: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) format: Option<String>,
}

const HELP: &str = "Counts the words of a text.

Usage: word_count [--input PATH | --host HOST --port PORT] [--output print|blackhole|DIR] [--format json|csv|text]
";

/// Reads `--name value` and `--name=value`.
pub(crate) fn parse(args: &[String]) -> Result<Arguments, Refusal> {
    let mut arguments = Arguments::default();
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        if argument == "--help" || argument == "-h" {
            return Err(Refusal::Help(HELP.into()));
        }
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        let place = match name {
            "--input" => &mut arguments.input,
            "--host" => &mut arguments.host,
            "--port" => &mut arguments.port,
            "--output" => &mut arguments.output,
            "--format" => &mut arguments.format,
            _ => return Err(Refusal::Usage(format!("unexpected argument `{argument}`\n\n{HELP}"))),
        };
        let Some(value) = given.or_else(|| rest.next().cloned()) else {
            return Err(Refusal::Usage(format!("`{name}` wants a value\n\n{HELP}")));
        };
        *place = Some(value);
    }
    if arguments.host.is_some() != arguments.port.is_some() {
        return Err(Refusal::Usage(format!("`--host` and `--port` belong together\n\n{HELP}")));
    }
    if arguments.input.is_some() && arguments.host.is_some() {
        return Err(Refusal::Usage(format!("either `--input` or `--host` and `--port`\n\n{HELP}")));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn names_and_values() {
        let arguments = parse(&words("--input a.txt --output=out")).unwrap();
        assert_eq!(arguments.input.as_deref(), Some("a.txt"));
        assert_eq!(arguments.output.as_deref(), Some("out"));
    }

    #[test]
    fn refusals() {
        for wrong in ["--inptu a", "--input", "--host h", "--input a --host h --port 1"] {
            assert!(matches!(parse(&words(wrong)), Err(Refusal::Usage(_))), "{wrong}");
        }
        assert!(matches!(parse(&words("--input a --help")), Err(Refusal::Help(_))));
    }
}
