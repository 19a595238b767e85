//! What the tests share: a real API server over a real store, and kubectl.
//! Everything waits on conditions; the time limits only keep a broken test from hanging.

pub mod wire;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Behind the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The embedded one.
    Embedded,
    /// etcd, as Debian has it.
    Etcd,
    /// Three members of etcd.
    ThreeEtcds,
}

/// The token of an administrator.
pub const TOKEN: &str = "test-token";

/// Long enough for anything that ends at all on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that `cargo build` made beside this test.
pub fn bin(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap_or_default();
    while dir.pop() {
        if dir.join(name).is_file() {
            return dir.join(name);
        }
    }
    panic!("{name} is not built: run hack/test, or cargo build first");
}

/// A port nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Waits until a condition holds.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A kube-apiserver of its own, and its store.
pub struct Cluster {
    store: Store,
    dir: tempfile::TempDir,
    port: u16,
    /// Each member's port for clients, and for the others.
    etcd_ports: Vec<(u16, u16)>,
    server: Option<Child>,
    etcd: Vec<Option<Child>>,
    flags: Vec<String>,
    /// The kubectl that is used: the one on the PATH, unless a test wants another.
    pub kubectl: PathBuf,
}

impl Cluster {
    /// Starts one and waits until it is ready.
    pub fn start(store: Store) -> Self {
        Self::with_flags(store, &[])
    }

    /// The same with more flags.
    pub fn with_flags(store: Store, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cluster = Cluster {
            store,
            dir,
            port: free_port(),
            etcd_ports: Vec::new(),
            server: None,
            etcd: Vec::new(),
            flags: flags.iter().map(|f| f.to_string()).collect(),
            kubectl: "kubectl".into(),
        };
        let tokens = format!("{TOKEN},admin,1,\"system:masters\"\nuser-token,jane,2,\"devs\"\n");
        std::fs::write(cluster.path("tokens"), tokens).expect("the token file");
        let members = match store {
            Store::Embedded => 0,
            Store::Etcd => 1,
            Store::ThreeEtcds => 3,
        };
        cluster.etcd_ports = (0..members).map(|_| (free_port(), free_port())).collect();
        cluster.etcd = (0..members).map(|_| None).collect();
        (0..members).for_each(|i| cluster.start_etcd(i));
        cluster.start_server();
        cluster.write_kubeconfig();
        cluster
    }

    /// A file in the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the API server listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The same without the scheme.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The API server's resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let pid = self.server.as_ref().map(Child::id).expect("the server runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Starts a member of etcd, after [`Cluster::kill_etcd`].
    pub fn start_etcd(&mut self, member: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.etcd_ports[member];
        let all: Vec<String> =
            self.etcd_ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}={}", url(*peer))).collect();
        let child = Command::new("etcd")
            .args(["--name", &format!("m{member}")])
            .args(["--data-dir", &self.path(&format!("etcd{member}")).display().to_string()])
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &all.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.etcd[member] = Some(child.expect("etcd is installed"));
    }

    /// Ends a member of etcd at once, as a crash would.
    pub fn kill_etcd(&mut self, member: usize) {
        if let Some(mut child) = self.etcd[member].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the API server, after [`Cluster::kill_server`].
    pub fn start_server(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("the log");
        let mut command = Command::new(bin("kube-apiserver"));
        command
            .args([
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
            ])
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--token-auth-file={}", self.path("tokens").display()))
            .arg(format!("--cert-dir={}", self.path("certs").display()))
            .args(&self.flags);
        match self.store {
            Store::Embedded => command.arg(format!("--data-dir={}", self.path("data").display())),
            Store::Etcd | Store::ThreeEtcds => {
                let urls = self.etcd_ports.iter().map(|(port, _)| format!("http://127.0.0.1:{port}"));
                command.arg(format!("--etcd-servers={}", urls.collect::<Vec<_>>().join(",")))
            }
        };
        self.server = Some(command.stderr(log).spawn().expect("kube-apiserver starts"));
        self.write_kubeconfig();
        eventually("the API server is ready", || self.kubectl(&["get", "--raw", "/readyz"]).ok());
    }

    /// Ends the API server at once, as a crash would.
    pub fn kill_server(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn write_kubeconfig(&self) {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url(), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}, {"name": "jane", "user": {"token": "user-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "admin"}}, {"name": "jane", "context": {"cluster": "c", "user": "jane"}}],
        });
        std::fs::write(self.path("kubeconfig"), config.to_string()).expect("the kubeconfig");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.path("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.path("cache"))
            .args(args);
        command
    }

    /// Runs kubectl. What it printed, or what it complained of.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        answer(self.command(args).stdin(Stdio::null()).output().expect("kubectl is installed"))
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("kubectl reads");
        answer(child.wait_with_output().expect("kubectl ends"))
    }

    /// What curl gets as the administrator: headers in small letters, and the body.
    pub fn curl(&self, args: &[&str], path: &str) -> (String, Vec<u8>) {
        let head = self.path("head");
        let out = Command::new("curl")
            .args(["-sk", "-H", &format!("Authorization: Bearer {TOKEN}"), "-D"])
            .arg(&head)
            .args(args)
            .arg(format!("{}{path}", self.url()))
            .output()
            .expect("curl is installed");
        assert!(out.status.success(), "{path}: {:?}", out.status);
        (std::fs::read_to_string(head).unwrap_or_default().to_ascii_lowercase(), out.stdout)
    }

    /// A client of ours, as the administrator.
    pub fn client(&self) -> client::Client {
        let mut config = client::Config::new(&self.url()).token(TOKEN).user_agent("test");
        config.insecure = true;
        client::Client::new(config).expect("a client")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.server.take().into_iter().chain(self.etcd.drain(..).flatten()) {
            let mut child = child;
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the API server's log\n{}", self.log());
        }
    }
}

fn answer(output: Output) -> Result<String, String> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
