//! Measures the daemons: rates, percentiles, and the processor time that the server's processes spend on one
//! operation. `hack/bench` builds everything in release and runs this.

mod api_load;
mod server;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum What {
    /// The API server alone, under load.
    Api,
}

#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Folder of the daemons' programs.
    #[arg(long)]
    bin: PathBuf,
    /// Behind the API server: embedded or etcd.
    #[arg(long, default_value = "embedded,etcd", value_delimiter = ',')]
    store: Vec<String>,
    /// Operations of each kind.
    #[arg(long, default_value_t = 5000)]
    count: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    for store in &options.store {
        match options.what {
            What::Api => api_load::run(&options.bin, store, options.count).await?,
        }
    }
    Ok(())
}
