//! Reads the workflow, plans, and runs once or whenever it changes.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use sd_conditioner::graph::{Folder, Plan, Session, Summary, Workflow};

use super::GraphFlags;
use super::table::{self, Table};
use super::watch::Watched;
use super::write::Writer;
use crate::pool;
use crate::progress::Progress;
use crate::ui::{self, Done};
use crate::values::Held;
use crate::weights;

/// The most bytes of a workflow or a picture.
const LARGEST: u64 = 256 << 20;

/// Shows the plan, or makes what it says.
pub(crate) fn run(flags: &GraphFlags, quiet: bool) -> Done {
    if flags.plan {
        let folder = flags.models.as_ref().map(Folder::new);
        ui::print(table::plan(&plan(flags)?, folder.as_ref()))?;
        return Ok(ExitCode::SUCCESS);
    }
    pool::start()?;
    let models = flags.models.as_deref().context("--models is missing")?;
    let out_dir = flags.out_dir.as_deref().context("--out-dir is missing")?;
    let runner = Runner {
        flags,
        progress: Progress::new(quiet),
        out_dir,
    };
    let mut session = Session::new(runner.folder(models)?);
    if !flags.watch {
        runner.once(&mut session)?;
        return Ok(ExitCode::SUCCESS);
    }
    runner.whenever_it_changes(&mut session)
}

struct Runner<'a> {
    flags: &'a GraphFlags,
    progress: Progress,
    out_dir: &'a Path,
}

impl Runner<'_> {
    fn folder(&self, models: &Path) -> anyhow::Result<Folder> {
        if !models.is_dir() {
            bail!("{}: there is no such folder of models", models.display());
        }
        let held = if self.flags.watch {
            Held::Long
        } else {
            Held::Briefly
        };
        let builder = weights::builder(None, (&self.flags.compute, held))?;
        Ok(Folder::new(models).loading(builder))
    }

    /// Runs now and after each change of the workflow, until the process is ended.
    fn whenever_it_changes(&self, session: &mut Session<Folder>) -> ! {
        let mut watched = Watched::new(&self.flags.workflow);
        loop {
            if let Err(failure) = self.once(session) {
                ui::error(ui::describe(&failure));
            }
            watched.wait();
        }
    }

    fn once(&self, session: &mut Session<Folder>) -> anyhow::Result<()> {
        let plan = plan(self.flags)?;
        fs::create_dir_all(self.out_dir).with_context(|| self.out_dir.display().to_string())?;
        let mut writer = Writer::new(self.out_dir, self.flags.out_dtype.dtype());
        for socket in plan.sockets() {
            let checked = Writer::check(socket);
            checked.with_context(|| self.flags.workflow.display().to_string())?;
        }
        let mut table = Table::default();
        let mut failed = None;
        let summary = session.run_each(&plan, &mut |socket, list| {
            table.add(socket, list);
            writer.write(socket, list).map_err(|error| {
                let told = sd_conditioner::Error::new(sd_conditioner::ErrorKind::Io, "not written");
                failed = Some(error);
                told
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let summary = summary.with_context(|| self.flags.workflow.display().to_string())?;
        ui::print(table)?;
        self.tell(&summary, writer.written());
        Ok(())
    }

    fn tell(&self, summary: &Summary, files: usize) {
        for (node, note) in &summary.notes {
            ui::warn(format!("node {node}: {note}"));
        }
        let (encoded, reused, folder) = (summary.encoded, summary.reused, self.out_dir.display());
        self.progress.summary(format!(
            "wrote {files} files to {folder}: {encoded} prompts encoded, {reused} from before"
        ));
    }
}

fn plan(flags: &GraphFlags) -> anyhow::Result<Plan> {
    let workflow = open(&flags.workflow).with_context(|| flags.workflow.display().to_string())?;
    let sockets = match &flags.node {
        Some(node) => workflow.sockets_of(node),
        None => Ok(workflow.conditionings()),
    };
    let plan = sockets.and_then(|sockets| workflow.plan(&sockets));
    let plan = plan.with_context(|| flags.workflow.display().to_string())?;
    if plan.sockets().next().is_none() {
        bail!(
            "{}: no sampler in it (name a node with --node ID)",
            flags.workflow.display()
        );
    }
    Ok(plan)
}

fn open(path: &Path) -> anyhow::Result<Workflow> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        bail!("more than {LARGEST} bytes are no workflow");
    }
    Ok(Workflow::from_bytes(&bytes)?)
}
