//! The cluster that is tested: kubectl, the hosts, and waiting for what should come true.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything may take; it only keeps a broken case from hanging.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An answer, or what is wrong.
pub type Answer<T = ()> = Result<T, String>;

/// The image of all pods; it has a shell, a web server and clients.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// The two hosts and their cluster.
pub struct World {
    root: PathBuf,
    kubeconfig: PathBuf,
    /// The control plane's node, and the other.
    pub nodes: [String; 2],
}

impl World {
    /// The cluster that `hack/up` left.
    pub fn find() -> Answer<World> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().map_err(|e| e.to_string())?;
        let state =
            std::env::var_os("FERROKUBE_STATE").map_or_else(|| root.join(".ferrokube"), PathBuf::from);
        let name = |variable: &str, usual: &str| std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
        let world = World {
            kubeconfig: state.join("kubeconfig"),
            root,
            nodes: [name("FERROKUBE_NODE", "node1"), name("FERROKUBE_NODE2", "node2")],
        };
        for node in &world.nodes {
            world.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("node/{node}")])?;
        }
        Ok(world)
    }

    /// kubectl as the administrator. What it prints, or what it says is wrong.
    pub fn kubectl(&self, arguments: &[&str]) -> Answer<String> {
        output(
            self.kubectl_command(arguments).stdin(Stdio::null()),
            &format!("kubectl {}", arguments.join(" ")),
        )
    }

    /// The same, for a case that talks to it while it runs.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// Runs a shell script on a host.
    pub fn on(&self, node: &str, script: &str) -> Answer<String> {
        output(
            Command::new(self.root.join("hack/host"))
                .args(["run", node, "sh", "-c", script])
                .stdin(Stdio::null()),
            &format!("on {node}: {script}"),
        )
    }

    /// `hack/host` itself: `reboot`, `crash`, `address`.
    pub fn host(&self, arguments: &[&str]) -> Answer<String> {
        output(
            Command::new(self.root.join("hack/host")).args(arguments).stdin(Stdio::null()),
            &format!("hack/host {}", arguments.join(" ")),
        )
    }

    /// A host's address.
    pub fn address(&self, node: &str) -> Answer<String> {
        Ok(self.host(&["address", node])?.trim().to_owned())
    }

    /// Waits until the API server is ready and both nodes are.
    pub fn settled(&self) -> Answer {
        eventually("the API server and both nodes are ready again", || {
            self.kubectl(&["get", "--raw", "/readyz"])?;
            for node in &self.nodes {
                self.kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", &format!("node/{node}")])?;
            }
            Ok(())
        })
    }
}

/// Runs a command to its end.
pub fn output(command: &mut Command, what: &str) -> Answer<String> {
    let out = command.output().map_err(|e| format!("{what}: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    match out.status.success() {
        true => Ok(text),
        false => Err(format!("{what}: {}: {}{text}", out.status, String::from_utf8_lossy(&out.stderr))),
    }
}

/// Tries until it works. The last failure is the answer if it never does.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Answer<T>) -> Answer<T> {
    within(PATIENCE, what, attempt)
}

/// The same with another limit.
pub fn within<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Answer<T>) -> Answer<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(e) if Instant::now() > end => return Err(format!("{what}: not in {limit:?}: {e}")),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// An error unless the condition holds.
pub fn ensure(condition: bool, what: impl Into<String>) -> Answer {
    match condition {
        true => Ok(()),
        false => Err(what.into()),
    }
}

/// A child that ends with its case.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace of one case's own.
pub struct Space<'a> {
    /// The cluster.
    pub world: &'a World,
    /// The namespace.
    pub name: String,
}

impl<'a> Space<'a> {
    /// Makes it and waits until pods can be made in it.
    pub fn new(world: &'a World, case: &str) -> Answer<Space<'a>> {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name = format!("t-{}", case.chars().map(letter).collect::<String>());
        let space = Space { world, name };
        world.kubectl(&["delete", "namespace", &space.name, "--ignore-not-found", "--timeout=120s"])?;
        world.kubectl(&["create", "namespace", &space.name])?;
        eventually("the namespace has its service account", || {
            space.get(&["serviceaccount", "default"]).map(drop)
        })?;
        Ok(space)
    }

    /// Takes it away, without waiting.
    pub fn end(&self) {
        let _ = self.world.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Answer<String> {
        self.world.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// The same, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.world.kubectl_command(&[&["-n", &self.name], arguments].concat())
    }

    /// `kubectl get ... -o json`.
    pub fn get(&self, what: &[&str]) -> Answer<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat())?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    /// Applies a manifest. `@IMAGE@` stands for the image, `@NODE1@` and `@NODE2@` for the nodes.
    pub fn apply(&self, manifest: &str) -> Answer {
        // kubectl takes what begins with a brace for JSON.
        let text = format!("---\n{manifest}")
            .replace("@IMAGE@", IMAGE)
            .replace("@NODE1@", &self.world.nodes[0])
            .replace("@NODE2@", &self.world.nodes[1])
            .replace("@NAMESPACE@", &self.name);
        let mut child = self
            .command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        }
        let out = child.wait_with_output().map_err(|e| e.to_string())?;
        ensure(out.status.success(), format!("kubectl apply: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// A pod of one container that runs a script; `spec` is more of its spec, `container` more of its container, both as YAML
    /// flow mappings without braces.
    pub fn pod(&self, name: &str, script: &str, spec: &str, container: &str) -> Answer {
        let comma = |more: &str| if more.is_empty() { String::new() } else { format!(", {more}") };
        self.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, \
             containers: [{{name: main, image: \"@IMAGE@\", imagePullPolicy: IfNotPresent, command: [sh, -c, {}]{}}}]{}}}}}",
            serde_json::Value::from(script),
            comma(container),
            comma(spec)
        ))
    }

    /// Waits until a pod is ready.
    pub fn ready(&self, pod: &str) -> Answer {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("pod/{pod}")]).map(drop)
    }

    /// Waits until a pod has come to an end in this phase.
    pub fn phase(&self, pod: &str, phase: &str) -> Answer {
        eventually(&format!("pod {pod} is {phase}"), || {
            let found = self.field(&format!("pod/{pod}"), "{.status.phase}")?;
            ensure(found == phase, format!("it is {found}"))
        })
    }

    /// One field by JSONPath.
    pub fn field(&self, what: &str, path: &str) -> Answer<String> {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
    }

    /// A container's log.
    pub fn logs(&self, pod: &str) -> Answer<String> {
        self.kubectl(&["logs", pod])
    }

    /// Runs a script in a pod.
    pub fn exec(&self, pod: &str, script: &str) -> Answer<String> {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// For the reader of a failure.
    pub fn describe(&self) -> String {
        let all = self.kubectl(&["get", "all,endpointslices,pvc", "-o", "wide"]).unwrap_or_else(|e| e);
        let events = self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]).unwrap_or_else(|e| e);
        let pods = self.kubectl(&["describe", "pods"]).unwrap_or_else(|e| e);
        format!("{all}\n{events}\n{pods}")
    }
}
