//! Files of users on the command line.

use clap::Args;
use cofferdam_experiment::catalogue::{PLACEMENTS, nearest, placement_named};
use cofferdam_experiment::header::know_own;
use cofferdam_placement::own::{Kind, OwnError, PlatformId, Source, register};
use cofferdam_placement::trial::PlacementId;
use std::path::{Path, PathBuf};

/// Placements and platforms from files.
#[derive(Args)]
pub struct Files {
    /// Also a placement of your own, described in a TOML file; may be given again.
    #[arg(long = "placement-file", value_name = "FILE")]
    placement_files: Vec<PathBuf>,
    /// Also a platform of your own, described in a TOML file; may be given again.
    #[arg(long = "platform-file", value_name = "FILE")]
    platform_files: Vec<PathBuf>,
}

impl Files {
    /// Makes them known, after those of the run that is continued. To be called before anything is
    /// listed.
    pub fn register(&self, continued: Option<&Path>) -> Result<(), OwnError> {
        if let Some(directory) = continued {
            know_own(directory)?;
        }
        let placements = self
            .placement_files
            .iter()
            .map(|path| (Kind::Placement, path));
        let platforms = self
            .platform_files
            .iter()
            .map(|path| (Kind::Platform, path));
        for (kind, path) in placements.chain(platforms) {
            register(&Source::read(kind, path)?)?;
        }
        Ok(())
    }
}

/// The placement of that id. Ids are looked up when all files are known, so not by the parser.
pub fn placement(id: &str) -> Result<PlacementId, String> {
    let ids = PLACEMENTS.iter().map(|entry| entry.id);
    placement_named(id).ok_or_else(|| unknown("placement", "placements", id, ids))
}

/// The platform of that id.
pub fn platform(id: &str) -> Result<PlatformId, String> {
    let ids = PlatformId::list().into_iter().map(PlatformId::id);
    PlatformId::named(id).ok_or_else(|| unknown("platform", "platforms", id, ids))
}

fn unknown(noun: &str, list: &str, id: &str, ids: impl Iterator<Item = &'static str>) -> String {
    let meant = nearest(id, ids).map(|id| format!("did you mean '{id}'? "));
    let meant = meant.unwrap_or_default();
    format!("no {noun} is called '{id}': {meant}`cofferdam list {list}` shows all")
}
