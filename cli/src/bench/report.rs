//! Times → a table for people, or one object a line.

use std::io;

use sd_conditioner::Conditioner;
use serde::Serialize;

use super::timing::Times;
use crate::groups::{ComputeFlags, SourceFlags};
use crate::ui;

/// What every row says, and how.
#[derive(Debug)]
pub(super) struct Report {
    family: &'static str,
    device: String,
    dtype: &'static str,
    weights: String,
    threads: usize,
    json: bool,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
struct Row<'a> {
    family: &'static str,
    device: &'a str,
    dtype: &'static str,
    weights: &'a str,
    threads: usize,
    /// Windows of 77 ids; 0 where none is encoded.
    windows: usize,
    stage: &'static str,
    median_ms: f64,
    min_ms: f64,
    runs: usize,
}

impl Report {
    /// Prints the head of the table.
    pub(super) fn new(
        text: &Conditioner,
        (source, compute): (&SourceFlags, &ComputeFlags),
        threads: usize,
        json: bool,
    ) -> io::Result<Report> {
        let in_files = text.encoders().any(|clip| clip.n_mapped() > 0);
        let mapped = if in_files { ", mapped" } else { "" };
        let report = Report {
            family: text.family().name(),
            device: compute.device.to_string(),
            dtype: compute.dtype.dtype().as_str(),
            weights: source.named() + mapped,
            threads,
            json,
        };
        if !json {
            report.head(text.kernels())?;
        }
        Ok(report)
    }

    fn head(&self, kernels: &str) -> io::Result<()> {
        let (family, device, dtype) = (self.family, &self.device, self.dtype);
        let (weights, threads) = (&self.weights, self.threads);
        let many = if threads == 1 { "thread" } else { "threads" };
        ui::print(format!(
            "{family} on {device}, {dtype}, {threads} {many}, kernels: {kernels}, weights: {weights}\n"
        ))?;
        line("stage", "windows", "median ms", "min ms", "runs")
    }

    /// Prints one stage.
    pub(super) fn row(&self, stage: &'static str, windows: usize, times: &Times) -> io::Result<()> {
        if self.json {
            let row = self.object(stage, windows, times);
            return ui::print(serde_json::to_string(&row)?);
        }
        let shown = match windows {
            0 => String::new(),
            some => some.to_string(),
        };
        line(
            stage,
            &shown,
            &format!("{:.3}", times.median()),
            &format!("{:.3}", times.least()),
            &times.runs().to_string(),
        )
    }

    fn object(&self, stage: &'static str, windows: usize, times: &Times) -> Row<'_> {
        Row {
            family: self.family,
            device: &self.device,
            dtype: self.dtype,
            weights: &self.weights,
            threads: self.threads,
            windows,
            stage,
            median_ms: times.median(),
            min_ms: times.least(),
            runs: times.runs(),
        }
    }
}

fn line(stage: &str, windows: &str, median: &str, least: &str, runs: &str) -> io::Result<()> {
    ui::print(format!(
        "{stage:<9}{windows:>8}{median:>13}{least:>13}{runs:>6}"
    ))
}
