//! Manual pages, made from the same table as the arguments are.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::{Failure, exit};

/// Writes `bartizan.1` and a page for each command into `dir`, or the first one to standard output.
pub fn man(command: Command, dir: Option<&Path>) -> Result<u8, Failure> {
    let Some(dir) = dir else {
        Man::new(command).render(&mut std::io::stdout()).map_err(Failure::other)?;
        return Ok(exit::DONE);
    };
    let failed = |error: std::io::Error| Failure::other(format!("writing into {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)?;
    println!("{}: try `man -l {}`", dir.display(), dir.join("bartizan.1").display());
    Ok(exit::DONE)
}
