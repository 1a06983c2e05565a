//! Messages to the operator's log: the `log` facade, `println!`, and the last words of a panic.

use std::cell::Cell;
use std::fmt;
use std::sync::Once;

use millstream_sys::host::{self, Level};

thread_local! {
    /// Whether the host keeps messages of a level, as far as it was asked in this call.
    static KEPT: Cell<[Option<bool>; 5]> = const { Cell::new([None; 5]) };
    static MUTED: Cell<bool> = const { Cell::new(false) };
}

/// Prepares for a call: the first time installs the logger and, in a guest, the panic hook.
pub(crate) fn begin_call() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // A test may have a logger of its own, which then stays.
        if log::set_logger(&Facade).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
        #[cfg(target_arch = "wasm32")]
        std::panic::set_hook(Box::new(|panic| host::abort(&panic.to_string())));
    });
    KEPT.set([None; 5]);
}

/// Keeps quiet until the guard is dropped: a part of a call runs again.
pub(crate) fn mute() -> impl Drop {
    struct Muted(bool);
    impl Drop for Muted {
        fn drop(&mut self) {
            MUTED.set(self.0);
        }
    }
    Muted(MUTED.replace(true))
}

pub(crate) fn is_muted() -> bool {
    MUTED.get()
}

/// The logger behind the `log` crate's macros.
struct Facade;

impl log::Log for Facade {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        is_kept(level(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = level(record.level());
        if is_kept(level) {
            host::write(level, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

fn is_kept(level: Level) -> bool {
    if is_muted() {
        return false;
    }
    let mut kept = KEPT.get();
    *kept[level as usize].get_or_insert_with(|| {
        let is_kept = host::enabled(level);
        let mut kept = KEPT.get();
        kept[level as usize] = Some(is_kept);
        KEPT.set(kept);
        is_kept
    })
}

/// What `println!` and its like call: to the log, and natively to the test's own output too.
#[doc(hidden)]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a test's own output, which cargo captures")]
pub fn print(is_error: bool, message: fmt::Arguments<'_>) {
    if cfg!(not(target_arch = "wasm32")) {
        if is_error {
            std::eprint!("{message}");
        } else {
            std::print!("{message}");
        }
    }
    let level = if is_error { Level::Warn } else { Level::Info };
    if is_kept(level) {
        let message = message.to_string();
        host::write(level, message.strip_suffix('\n').unwrap_or(&message));
    }
}

/// As `std::println!`, to the operator's log, at the level `info`.
///
/// In a guest there is no standard output: what std's own macro prints is lost. Inside a function
/// with `#[job]` the names `println!`, `print!`, `eprintln!`, `eprint!` are these; elsewhere say
/// `use millstream::println;`. In native tests they print.
#[macro_export]
macro_rules! println {
    () => { $crate::private::print(false, ::core::format_args!("\n")) };
    ($($message:tt)*) => { $crate::private::print(false, $crate::private_line!($($message)*)) };
}

/// As `std::print!`, to the operator's log, at the level `info`: each call is a message.
#[macro_export]
macro_rules! print {
    ($($message:tt)*) => { $crate::private::print(false, ::core::format_args!($($message)*)) };
}

/// As `std::eprintln!`, to the operator's log, at the level `warn`.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::private::print(true, ::core::format_args!("\n")) };
    ($($message:tt)*) => { $crate::private::print(true, $crate::private_line!($($message)*)) };
}

/// As `std::eprint!`, to the operator's log, at the level `warn`: each call is a message.
#[macro_export]
macro_rules! eprint {
    ($($message:tt)*) => { $crate::private::print(true, ::core::format_args!($($message)*)) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! private_line {
    ($($message:tt)*) => { ::core::format_args!("{}\n", ::core::format_args!($($message)*)) };
}
