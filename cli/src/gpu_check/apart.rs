//! Each part in a process of its own, for as long as it may take. Their rows are one table in the end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::parts::{Extent, Part};
use super::report::{Report, Row};

/// How long a process that was ended may take to be gone: the driver tidies up behind it.
const GONE: Duration = Duration::from_secs(10);

/// Runs all parts with `words` as their command line, one after the other.
pub(crate) fn all(words: &[String], extent: &Extent, folder: &Path) -> Report {
    let mut words = words.to_vec();
    let start = Instant::now();
    let mut report = Report::default();
    for part in Part::ALL {
        let left = extent.most_seconds - start.elapsed().as_secs_f64();
        let name = part.name();
        if left <= 0.0 {
            report.holds(&format!("{name}: not begun, out of time"), false);
            continue;
        }
        println!("part {name}, after {:.1} s", start.elapsed().as_secs_f64());
        let until_end = extent.end_seconds - start.elapsed().as_secs_f64();
        let limit = Duration::from_secs_f64(extent.part_seconds.min(until_end));
        let ended = one(part, (&words, folder), limit, &mut report);
        if report.attempt(&name, ended).is_none() && part == Part::OwnProducts {
            // What hangs or faults there does so in each part that uses them.
            println!("the parts that follow go without our own products");
            words.push("--without-own".to_owned());
        }
    }
    println!("all done after {:.1} s", start.elapsed().as_secs_f64());
    report
}

/// Runs one part and takes its rows. An error is a part that did not come to its end.
fn one(
    part: Part,
    (words, folder): (&[String], &Path),
    limit: Duration,
    report: &mut Report,
) -> Result<()> {
    let failed = report.failed();
    let program = std::env::current_exe().context("where this program lies is unknown")?;
    let mut command = Command::new(program);
    command.args(words).args(["--part", &part.name()]);
    command.arg("--folder").arg(folder).stdout(Stdio::piped());
    // What the driver makes of candle's kernels, once for all parts; and nothing of an earlier run.
    command.env("CUDA_CACHE_PATH", folder.join("driver"));
    let mut child = command.spawn().context("no process could be started")?;
    let end = Instant::now() + limit;
    let lines = child.stdout.take().map(read_lines);
    let heard = lines.is_none_or(|lines| listen(&lines, end, report));
    let status = if heard { wait(&mut child, end)? } else { None };
    match status.map(|status| (status.code(), status)) {
        Some((Some(0), _)) => Ok(()),
        // That is said of a check that failed, which has its row.
        Some((Some(1), _)) if report.failed() > failed => Ok(()),
        Some((_, status)) => anyhow::bail!("did not come to its end: {status}"),
        None => {
            child.kill().context("it hangs and cannot be ended")?;
            wait(&mut child, Instant::now() + GONE)?;
            anyhow::bail!("hung for {:.0} s and was ended", limit.as_secs_f64())
        }
    }
}

/// What a process writes, line by line, until it is through.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).lines();
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Shows lines and takes rows. False if that went on until `end`.
fn listen(lines: &Receiver<String>, end: Instant, report: &mut Report) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => match Row::read(&line) {
                Some(row) => report.take(row),
                None => println!("{line}"),
            },
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// How a process ended, if it does until `end`.
fn wait(child: &mut Child, end: Instant) -> Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait().context("a process is lost")?;
        if status.is_some() || Instant::now() >= end {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
