//! Where rows come from and go to: names and options of the host's connectors.

use millstream_sys::bindings::millstream::job::graph::Setting;

/// A source's connector.
#[derive(Clone, Debug)]
pub struct Connector {
    pub(crate) name: String,
    pub(crate) options: Vec<Setting>,
    pub(crate) format: Option<String>,
    pub(crate) format_options: Vec<Setting>,
}

impl Connector {
    /// A connector by name, as `docs/connectors.md` lists them.
    pub fn of(name: &str) -> Connector {
        Connector { name: name.into(), options: Vec::new(), format: None, format_options: Vec::new() }
    }

    /// A file, a folder, or a glob.
    pub fn files(path: impl ToString) -> Connector {
        Connector::of("files").option("path", path)
    }

    /// A socket to connect to.
    pub fn socket(host: impl ToString, port: u16) -> Connector {
        Connector::of("socket").option("host", host).option("port", port)
    }

    /// Standard input.
    pub fn stdin() -> Connector {
        Connector::of("stdin")
    }

    /// A text that the component carries.
    pub fn text(text: impl ToString) -> Connector {
        Connector::of("values").option("text", text)
    }

    /// Sets an option of the connector.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl ToString) -> Connector {
        self.options.push(setting(name, value));
        self
    }

    /// Sets an option of the format, such as `header` of CSV.
    #[must_use]
    pub fn format_option(mut self, name: &str, value: impl ToString) -> Connector {
        self.format_options.push(setting(name, value));
        self
    }
}

impl From<&Connector> for Connector {
    fn from(connector: &Connector) -> Connector {
        connector.clone()
    }
}

/// A sink's connector and format.
#[derive(Clone, Debug)]
pub struct Sink {
    pub(crate) name: String,
    pub(crate) options: Vec<Setting>,
    pub(crate) format: Option<String>,
    pub(crate) format_options: Vec<Setting>,
}

impl Sink {
    /// A connector by name, as `docs/connectors.md` lists them.
    pub fn of(name: &str) -> Sink {
        Sink { name: name.into(), options: Vec::new(), format: None, format_options: Vec::new() }
    }

    /// Standard output, with the subtask's number: `3> (word,7)`.
    pub fn print() -> Sink {
        Sink::of("print")
    }

    /// Files in a folder, as JSON lines unless another format is set.
    pub fn files(path: impl ToString) -> Sink {
        Sink::of("files").option("path", path).format("json")
    }

    /// Nowhere: rows are counted.
    pub fn blackhole() -> Sink {
        Sink::of("blackhole")
    }

    /// For tests: kept by name.
    pub fn collect(name: impl ToString) -> Sink {
        Sink::of("collect").option("name", name)
    }

    /// Writes a changelog by key: the new form of a row, or that it is gone, without the form before. The
    /// columns are those by which a row is found again. Without it, all changes are written as they come.
    #[must_use]
    pub fn upsert<const N: usize>(self, key: [&str; N]) -> Sink {
        self.option("changelog", "upsert").option("key", key.join(","))
    }

    /// Sets the format: `json`, `csv` or `text`.
    #[must_use]
    pub fn format(mut self, format: impl ToString) -> Sink {
        self.format = Some(format.to_string());
        self
    }

    /// Sets an option of the connector.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl ToString) -> Sink {
        self.options.push(setting(name, value));
        self
    }

    /// Sets an option of the format.
    #[must_use]
    pub fn format_option(mut self, name: &str, value: impl ToString) -> Sink {
        self.format_options.push(setting(name, value));
        self
    }
}

impl From<&Sink> for Sink {
    fn from(sink: &Sink) -> Sink {
        sink.clone()
    }
}

fn setting(name: &str, value: impl ToString) -> Setting {
    Setting { name: name.into(), value: value.to_string() }
}
