//! Measures the daemons: rates, percentiles, and the processor time that the server's processes spend on one
//! operation. `hack/bench` builds everything in release and runs this.

mod api_load;
mod node;
mod scale;
mod server;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum What {
    /// The API server alone, under load.
    Api,
    /// The API server with much in it and many who watch.
    Scale,
    /// The cluster that runs: pods, and what all daemons cost.
    Node,
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
    #[arg(long)]
    count: Option<usize>,
    /// The cluster of `node`.
    #[arg(long, default_value = ".ferrokube/kubeconfig")]
    kubeconfig: PathBuf,
    /// What the pods of `node` run: an image with a shell that the nodes have.
    #[arg(long, default_value = "busybox:latest")]
    image: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    match options.what {
        What::Api => {
            for store in &options.store {
                api_load::run(&options.bin, store, options.count.unwrap_or(5000)).await?;
            }
        }
        What::Scale => {
            for store in &options.store {
                scale::run(&options.bin, store, options.count.unwrap_or(100_000)).await?;
            }
        }
        What::Node => node::run(&options.kubeconfig, &options.image, options.count.unwrap_or(20)).await?,
    }
    Ok(())
}
