//! What a stretch of time costs the server and the generator, read from /proc, and the result as JSON.

use std::fmt::{Display, Write};
use std::fs;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::histogram::Histogram;

/// The server's process and its children, by process id; 0: not known.
#[derive(Clone, Copy)]
pub struct Server(pub u32);

impl Server {
    fn processes(self) -> Vec<u32> {
        let mut found = if self.0 == 0 { vec![] } else { vec![self.0] };
        let mut at = 0;
        while let Some(pid) = found.get(at) {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children: Vec<u32> = tasks
                .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
                .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
                .collect();
            found.extend(children);
            at += 1;
        }
        found
    }

    /// User and system time of all threads, with children that have ended.
    pub fn cpu_seconds(self) -> f64 {
        let tick = rustix::param::clock_ticks_per_second() as f64;
        let ticks = |pid: &u32| -> u64 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
            fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
        };
        self.processes().iter().map(ticks).sum::<u64>() as f64 / tick
    }

    pub fn rss_kb(self) -> f64 {
        let pages = |pid: &u32| -> u64 {
            let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
        };
        self.processes().iter().map(pages).sum::<u64>() as f64 * rustix::param::page_size() as f64 / 1024.0
    }
}

fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs while a row is measured.
pub struct Meter {
    server: Server,
    start: Instant,
    own: f64,
    theirs: f64,
}

impl Meter {
    pub fn start(server: Server) -> Self {
        Meter { server, theirs: server.cpu_seconds(), own: own_cpu_seconds(), start: Instant::now() }
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Write down what `count` units took until now; the rate is over `seconds`.
    pub fn stop(&self, count: u64, seconds: f64, report: &mut Report) {
        let (wall, own) = (self.seconds(), own_cpu_seconds() - self.own);
        let each = |cpu: f64| if count == 0 { 0.0 } else { cpu / count as f64 * 1e6 };
        report.number("count", count as f64, 0);
        report.number("seconds", seconds, 3);
        report.number("per_second", count as f64 / seconds, 1);
        report.number("generator_cpu_us_each", each(own), 3);
        report.number("generator_cores", own / wall, 3);
        if self.server.0 != 0 {
            let theirs = self.server.cpu_seconds() - self.theirs;
            report.number("server_cpu_us_each", each(theirs), 2);
            report.number("server_cores", theirs / wall, 3);
            report.number("server_rss_mb", self.server.rss_kb() / 1024.0, 1);
        }
    }
}

/// A flat JSON object.
#[derive(Default)]
pub struct Report(String);

impl Report {
    fn put(&mut self, name: &str, value: impl Display) {
        let comma = if self.0.is_empty() { "" } else { ", " };
        let _ = write!(self.0, "{comma}\"{name}\": {value}");
    }

    pub fn number(&mut self, name: &str, value: f64, digits: usize) {
        self.put(name, format_args!("{value:.digits$}"));
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.put(name, value);
    }

    /// Put the percentiles of what was found, `<name>_p50_ms` and so on, without a name `p50_ms`; nothing if nothing was.
    pub fn latency(&mut self, name: &str, found: &Histogram) {
        if found.count() == 0 {
            return;
        }
        let prefix = if name.is_empty() { String::new() } else { format!("{name}_") };
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            self.number(&format!("{prefix}{label}_ms"), found.percentile_ms(share), 3);
        }
        self.number(&format!("{prefix}max_ms"), found.largest_ms(), 3);
    }

    pub fn text(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_json() {
        let mut report = Report::default();
        report.number("count", 3.0, 0);
        report.flag("verified", true);
        report.latency("ack", &Histogram::default());
        assert_eq!(report.text(), r#"{"count": 3, "verified": true}"#);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(Server(std::process::id()).rss_kb() > 100.0);
        assert_eq!(Server(0).processes(), []);
    }
}
