//! Writes the API schema, `crates/api/schema/v1.36.txt`, from the sources of the crates `k8s-openapi`
//! (names, types, descriptions) and `k8s-pb` (protobuf tags, list types, patch strategies, defaults) and
//! from `crates/api/schema/extra.txt`, which holds what neither knows. `--check` only says whether the
//! file is fresh. The grammar of the file is described in `api::schema::text`.

mod join;
mod openapi;
mod proto;

use cargo_metadata::{CargoOpt, MetadataCommand};
use std::{error::Error, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run(std::env::args().any(|a| a == "--check")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("schemagen: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<bool, Box<dyn Error>> {
    let metadata = MetadataCommand::new().features(CargoOpt::AllFeatures).exec()?;
    let source = |name: &str| -> Result<PathBuf, String> {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == name);
        let manifest = &package.ok_or_else(|| format!("crate {name} is not in the lock file"))?.manifest_path;
        Ok(PathBuf::from(manifest.with_file_name("src")))
    };
    let dir = PathBuf::from(metadata.workspace_root.join("crates/api/schema"));
    let types = openapi::read(&source("k8s-openapi")?.join("v1_36"))?;
    let messages = proto::read(&source("k8s-pb")?)?;
    let extra = fs::read_to_string(dir.join("extra.txt"))?;
    let (text, faults) = join::write(&types, &messages, &extra)?;
    for fault in &faults {
        eprintln!("schemagen: {fault}");
    }
    let file = dir.join("v1.36.txt");
    let fresh = fs::read_to_string(&file).is_ok_and(|old| old == text);
    if !fresh && check {
        eprintln!("schemagen: {} is stale: run `cargo run -p schemagen`", file.display());
    } else if !fresh {
        fs::write(&file, text)?;
    }
    Ok(faults.is_empty() && (fresh || !check))
}
