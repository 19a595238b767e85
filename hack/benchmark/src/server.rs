//! A kube-apiserver of its own for a measurement, with the store behind it, and what they cost.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Processes that end with the measurement.
pub struct Server {
    processes: Vec<Child>,
    _dir: tempfile::TempDir,
    /// Where it listens.
    pub url: String,
    /// From its start to the first good /readyz.
    pub cold_start: Duration,
}

/// The bearer token of the load.
const TOKEN: &str = "bench-token";
/// The bearer token of all kube-proxies.
pub const PROXY_TOKEN: &str = "bench-proxy";
/// Nodes whose kubelets have tokens.
pub const NODES: usize = 1000;

/// The bearer token of a node's kubelet.
pub fn node_token(i: usize) -> String {
    format!("bench-node-{i}")
}

impl Server {
    /// Starts it and waits until it is ready.
    pub async fn start(bin: &Path, store: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut processes = Vec::new();
        let mut tokens = format!("{TOKEN},bench,1,\"system:masters\"\n{PROXY_TOKEN},system:kube-proxy,2\n");
        for i in 0..NODES {
            tokens += &format!("{},system:node:node-{i},node-{i},\"system:nodes\"\n", node_token(i));
        }
        std::fs::write(dir.path().join("tokens"), tokens)?;
        let port = free_port()?;
        let mut command = Command::new(bin.join("kube-apiserver"));
        command.args([
            "--bind-address=127.0.0.1",
            &format!("--secure-port={port}"),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16",
        ]);
        command.arg(format!("--token-auth-file={}", dir.path().join("tokens").display()));
        command.arg(format!("--cert-dir={}", dir.path().join("certs").display()));
        match store {
            "embedded" => command.arg(format!("--data-dir={}", dir.path().join("data").display())),
            "etcd" => {
                let (peer, listen) = (free_port()?, free_port()?);
                let url = format!("http://127.0.0.1:{listen}");
                let mut etcd = Command::new("etcd");
                etcd.args([
                    "--data-dir",
                    &dir.path().join("etcd").display().to_string(),
                    "--listen-client-urls",
                    &url,
                    "--advertise-client-urls",
                    &url,
                ]);
                etcd.args([
                    "--listen-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                    "--initial-advertise-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                ]);
                etcd.args(["--initial-cluster", &format!("default=http://127.0.0.1:{peer}")]);
                processes.push(etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
                tokio::time::sleep(Duration::from_secs(2)).await;
                command.arg(format!("--etcd-servers={url}"))
            }
            other => return Err(format!("--store: {other} is neither embedded nor etcd").into()),
        };
        let started = Instant::now();
        processes.insert(0, command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let url = format!("https://127.0.0.1:{port}");
        let mut server = Server { processes, _dir: dir, url, cold_start: Duration::ZERO };
        let client = server.client()?;
        let ready = || async {
            let request = http::Request::get("/readyz").body(bytes::Bytes::new()).ok()?;
            client.raw(request).await.ok().filter(|r| r.status() == 200)
        };
        while ready().await.is_none() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("the API server did not become ready".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.cold_start = started.elapsed();
        Ok(server)
    }

    /// A client of it that may do everything.
    pub fn client(&self) -> Result<client::Client, Box<dyn std::error::Error>> {
        self.client_of(TOKEN)
    }

    /// A client of it with a connection of its own.
    pub fn client_of(&self, token: &str) -> Result<client::Client, Box<dyn std::error::Error>> {
        let mut config = client::Config::new(&self.url).token(token).user_agent("bench");
        config.insecure = true;
        Ok(client::Client::new(config)?)
    }

    /// Processor time of all its processes so far, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.processes.iter().map(|p| cpu_us(p.id())).sum()
    }

    /// Resident memory of the API server in MB.
    pub fn memory_mb(&self) -> u64 {
        self.status_mb("VmRSS:")
    }

    /// The most it was since [`Server::forget_peak`].
    pub fn peak_mb(&self) -> u64 {
        self.status_mb("VmHWM:")
    }

    /// Begins to look for the peak anew (proc(5), `clear_refs`).
    pub fn forget_peak(&self) {
        if let Some(server) = self.processes.first() {
            let _ = std::fs::write(format!("/proc/{}/clear_refs", server.id()), "5");
        }
    }

    fn status_mb(&self, field: &str) -> u64 {
        let path = self.processes.first().map(|p| format!("/proc/{}/status", p.id())).unwrap_or_default();
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let value = status.lines().find_map(|l| l.strip_prefix(field)).unwrap_or_default();
        value.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for p in &mut self.processes {
            let _ = p.kill();
            let _ = p.wait();
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Nanoseconds on the processor of every thread, as the scheduler counts them: finer than clock ticks.
fn cpu_us(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ns: u64 = tasks
        .filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok())
        .filter_map(|s| s.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()))
        .sum();
    ns / 1000
}
