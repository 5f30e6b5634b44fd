//! What the demo prints: decisions, the table of backups, the commands for stock tools. Every figure comes from the fleet.

use std::process::{Command, Output, Stdio};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::harness::fleet::Fleet;

/// One line of the table.
#[derive(Debug)]
pub struct Line {
    host: String,
    level: String,
    files: u64,
    source_bytes: u64,
    content_bytes: u64,
    stored_bytes: u64,
    seconds: f64,
    checks: String,
    /// The archive's file.
    pub archive: String,
}

impl Line {
    /// The facts of the backup that a run left.
    ///
    /// # Errors
    /// The fleet does not know the backup.
    pub fn of(fleet: &Fleet, run: &Value) -> Result<Self, String> {
        let id = run["backup_id"].as_str().ok_or_else(|| format!("no backup_id in {run}"))?;
        let backup = fleet.coordctl(&["backup", "show", id, "-o", "json"])?.success()?.json()?;
        let number = |key: &str| backup[key].as_u64().unwrap_or(0);
        let checks = backup["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let passed = checks.iter().filter(|check| check["passed"] == Value::Bool(true)).count();
        let verdict = if passed == checks.len() && !checks.is_empty() { "PASS" } else { "FAIL" };
        let location = &backup["location"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            host: text(&backup["host"]),
            level: text(&backup["level"]),
            files: number("files"),
            source_bytes: number("source_bytes"),
            content_bytes: number("content_bytes"),
            stored_bytes: number("stored_bytes"),
            seconds: seconds(run),
            checks: format!("{verdict} {passed}/{}", checks.len()),
            archive: format!("{}/{}", text(&location["folder"]), text(&location["key"])),
        })
    }

    /// Whether every check of the verification passed, and there were some.
    #[must_use]
    pub fn verified(&self) -> bool {
        self.checks.starts_with("PASS")
    }
}

/// How long a run took, by the coordinator's account.
fn seconds(run: &Value) -> f64 {
    let instant = |key: &str| run[key].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (instant("started_at"), instant("ended_at")) {
        (Some(start), Some(end)) => end.duration_since(start).as_secs_f64(),
        (None, _) | (_, None) => 0.0,
    }
}

/// Prints the lines as a table.
pub fn print_table(lines: &[Line]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["host", "level", "files", "source", "archived", "stored", "ratio", "time", "checks"]);
    for line in lines {
        let ratio = if line.stored_bytes == 0 { 0.0 } else { line.content_bytes as f64 / line.stored_bytes as f64 };
        table.add_row([
            line.host.clone(),
            line.level.clone(),
            line.files.to_string(),
            human(line.source_bytes),
            human(line.content_bytes),
            human(line.stored_bytes),
            format!("{ratio:.2}"),
            format!("{:.1} s", line.seconds),
            line.checks.clone(),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

/// A size for people.
#[must_use]
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Prints why each run of a host had its level.
///
/// # Errors
/// As `coordctl explain`.
pub fn print_decisions(fleet: &Fleet, runs: &[Value]) -> Result<(), String> {
    for run in runs {
        let id = run["id"].as_str().unwrap_or_default();
        let explanation = fleet.coordctl(&["explain", id, "-o", "json"])?.success()?.json()?;
        for decision in explanation["decisions"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let text = |key: &str| decision[key].as_str().unwrap_or("?");
            println!(
                "  {:<8} {:<12} {} ({}, {})",
                text("host"),
                text("level"),
                text("reason"),
                text("rule"),
                text("stage")
            );
        }
    }
    Ok(())
}

/// Prints what the archives themselves say of how to restore them with no program of ours, read with stock `tar`. Stock `tar` starts
/// the program `zstd`; where that is not installed, this program does its part, and says so.
///
/// # Errors
/// Stock `tar` cannot read an archive.
pub fn print_stock_commands(full: &str, differential: &str) -> Result<(), String> {
    for archive in [full, differential] {
        println!("  $ tar -xOf {archive} ./.coord/RESTORE.txt");
        for line in String::from_utf8_lossy(&read_instructions(archive)?).lines() {
            println!("    {line}");
        }
    }
    Ok(())
}

fn read_instructions(archive: &str) -> Result<Vec<u8>, String> {
    const MEMBER: &str = "./.coord/RESTORE.txt";
    let has_zstd = Command::new("zstd").arg("--version").output().is_ok_and(|output| output.status.success());
    let output = if has_zstd || !archive.ends_with(".zst") {
        Command::new("tar").args(["-xOf", archive, MEMBER]).output()
    } else {
        println!(
            "    (the program zstd is not installed here, so this one decompresses for tar; apt-get install zstd)"
        );
        tar_reads_plain(archive, MEMBER)
    };
    let output = output.map_err(|error| format!("tar: {error}"))?;
    // Asked for one member of a pipe, tar may end before all of it is read, and all it needs was there.
    if !output.status.success() || output.stdout.is_empty() {
        return Err(format!("stock tar cannot read {archive}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

/// Stock `tar` on the archive's plain tar, decompressed as it reads.
fn tar_reads_plain(archive: &str, member: &str) -> std::io::Result<Output> {
    let mut tar = Command::new("tar");
    tar.args(["-xOf", "-", member]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tar = tar.spawn()?;
    let mut plain = zstd::Decoder::new(std::fs::File::open(archive)?)?;
    let feeder = tar.stdin.take().map(|mut input| {
        std::thread::spawn(move || {
            // It closes the pipe when it has seen enough.
            let _closed = std::io::copy(&mut plain, &mut input);
        })
    });
    let output = tar.wait_with_output();
    drop(feeder.map(std::thread::JoinHandle::join));
    output
}

#[cfg(test)]
mod tests {
    use super::{human, tar_reads_plain};

    #[test]
    fn tar_reads_an_archive_that_another_program_decompresses() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/v1");
        let output = tar_reads_plain(&format!("{folder}/full.tar.zst"), "./.coord/RESTORE.txt");
        let output = output.unwrap_or_else(|error| panic!("tar: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("tar "), "{output:?}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(3 * 1024 * 1024 * 1024), "3.0 GiB");
    }
}
