//! What the system says of this process: the figures that Flink has of its JVM and any process has too.

use std::fs;

/// The figures, at one moment. What the system does not say is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Bytes that it has in memory.
    pub(crate) memory: u64,
    /// Bytes of the machine's memory.
    pub(crate) machine: u64,
    /// Of them, those that can be had.
    pub(crate) free: u64,
    /// CPU time, in nanoseconds.
    pub(crate) cpu: u64,
    pub(crate) threads: u64,
    /// Open files.
    pub(crate) files: u64,
    /// How many may be open.
    pub(crate) files_max: u64,
}

/// Ticks of CPU time a second, as Linux tells them to processes.
const TICKS: u64 = 100;

impl Process {
    /// Now.
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (status, machine) = (read("/proc/self/status"), read("/proc/meminfo"));
        let limits = read("/proc/self/limits");
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            memory: kilobytes(&status, "VmRSS:"),
            machine: kilobytes(&machine, "MemTotal:"),
            free: kilobytes(&machine, "MemAvailable:"),
            cpu: cpu(&read("/proc/self/stat")),
            threads: number(&status, "Threads:"),
            files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            files_max: limit
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or_default(),
        }
    }

    /// By Flink's names.
    pub(crate) fn metrics(&self) -> [(&'static str, u64); 7] {
        [
            ("Status.JVM.CPU.Time", self.cpu),
            ("Status.JVM.Memory.Heap.Used", self.memory),
            ("Status.JVM.Memory.Heap.Committed", self.memory),
            ("Status.JVM.Memory.Heap.Max", self.machine),
            ("Status.JVM.Threads.Count", self.threads),
            ("Status.JVM.FileDescriptor.Open", self.files),
            ("Status.JVM.FileDescriptor.Max", self.files_max),
        ]
    }
}

/// The names of its threads.
pub(crate) fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn kilobytes(text: &str, key: &str) -> u64 {
    number(text, key) << 10
}

/// The 14th and 15th words, of which the second is a name in brackets that may have spaces.
fn cpu(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * (1_000_000_000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_this_process_is() {
        let now = Process::now();
        assert!(now.memory > 1 << 20 && now.memory < now.machine && now.free < now.machine, "{now:?}");
        assert!(now.threads >= 1 && now.files >= 3 && now.files_max >= now.files, "{now:?}");
        assert!(!threads().is_empty());
        assert_eq!(cpu("1 (a b) c) S 0 0 0 0 0 0 0 0 0 0 7 5 0"), 120_000_000);
        assert_eq!(cpu(""), 0);
    }
}
