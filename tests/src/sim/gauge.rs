//! What a process uses, as the kernel counts it: memory and processor time from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    at: Instant,
    /// Memory that is resident, in bytes.
    pub resident: u64,
    /// Processor time used since its start, all threads together.
    pub used: Duration,
}

impl Gauge {
    /// Looks at a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn read(process: u32) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let path = format!("/proc/{process}/{name}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let status = text("status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
        // After the name, which may hold anything and ends with the last parenthesis: state is field 3, utime 14, stime 15.
        let stat = text("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |field: usize| -> anyhow::Result<u64> { Ok(fields.get(field - 3).context("a short stat")?.parse()?) };
        let ticks = ticks(14)? + ticks(15)?;
        let used = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(Self { at: Instant::now(), resident: kibibytes << 10, used })
    }

    /// Cores that were busy between two looks: 0.1 is a tenth of one.
    #[must_use]
    pub fn cores_since(&self, earlier: &Self) -> f64 {
        let used = self.used.saturating_sub(earlier.used).as_secs_f64();
        used / self.at.duration_since(earlier.at).as_secs_f64().max(f64::EPSILON)
    }
}

/// The processes of one name below another, by its process id.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn children_of(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            found.push(process);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let before = Gauge::read(std::process::id()).unwrap();
        assert!(before.resident > 0);
        let mut sum = 0_u64;
        while Gauge::read(std::process::id()).unwrap().used == before.used {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Gauge::read(std::process::id()).unwrap().cores_since(&before) > 0.0);
    }
}
