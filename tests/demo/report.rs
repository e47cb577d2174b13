//! The report that stays: one table over all acts, JSON with everything, Markdown for people.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use writefence_tests::ledger::text_ms;

use crate::act::Act;

/// The folder of the report: as asked for, else `demo/` in cargo's target folder, which this
/// program lies two levels below; else beside other temporary things.
pub(crate) fn folder(asked: Option<&Path>) -> Result<PathBuf> {
    let program = env::current_exe().context("the path of this program")?;
    let target = program
        .ancestors()
        .nth(2)
        .filter(|target| target.join("CACHEDIR.TAG").exists());
    let folder = match (asked, target) {
        (Some(asked), _) => asked.to_owned(),
        (None, Some(target)) => target.join("demo"),
        (None, None) => env::temp_dir().join("writefence-demo"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    folder
        .canonicalize()
        .with_context(|| format!("find {}", folder.display()))
}

/// All acts, a line each.
pub(crate) fn table(acts: &[Act]) -> String {
    let head = [
        "",
        "write gap",
        "promotion",
        "read gap",
        "errors",
        "closed",
        "lost",
        "doubled",
    ];
    let mut rows: Vec<Vec<String>> = vec![head.iter().map(ToString::to_string).collect()];
    for act in acts {
        let report = &act.report;
        let found = &report.findings;
        rows.push(vec![
            act.title.clone(),
            text_ms(report.write.worst),
            text_ms(act.promotion_ms),
            text_ms(report.read.worst),
            report.errors().to_string(),
            report.connections_lost().to_string(),
            found.acked_lost.len().to_string(),
            found.duplicates.len().to_string(),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            rows.iter()
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if n == 0 {
            let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _ = writeln!(text, "|-{}-|", lines.join("-|-"));
        }
    }
    text
}

/// Writes `report.md` and `report.json`; gives back the first.
pub(crate) fn write(acts: &[Act], out: &Path) -> Result<PathBuf> {
    json(out, "report.json", &acts)?;
    let mut text = format!("# What clients saw\n\n{}", table(acts));
    for act in acts {
        let steps: Vec<String> = act
            .steps
            .iter()
            .map(|(name, ms)| format!("{name} {}", text_ms(Some(*ms))))
            .collect();
        let _ = write!(
            text,
            "\n## {}\n\n{}\n- the command took {}; steps: {}\n- worst write gap before the move: {}\n\n{}",
            act.title,
            act.lines()
                .iter()
                .fold(String::new(), |all, (name, value)| {
                    format!("{all}- {}: {value}\n", name.trim())
                }),
            text_ms(Some(act.command_ms)),
            if steps.is_empty() {
                "not told".to_owned()
            } else {
                steps.join(", ")
            },
            text_ms(act.report.quiet_write_ms),
            act.report
        );
        for fault in act.faults() {
            let _ = writeln!(text, "\n**Not kept:** {fault}");
        }
    }
    let path = out.join("report.md");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Writes a JSON file.
pub(crate) fn json(out: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = out.join(name);
    fs::write(&path, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("write {}", path.display()))
}
