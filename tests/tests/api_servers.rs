//! Several API servers on one etcd, and one that is told to end.

use ferrokube_tests::{TOKEN, bin, eventually, free_port};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(dir: &Path) -> (Running, u16) {
    let (client, peer) = (free_port(), free_port());
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("default={}", url(peer))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    (Running(child.expect("etcd is installed")), client)
}

struct Server {
    child: Running,
    url: String,
}

impl Server {
    fn start(dir: &Path, store: &str, port: u16, flags: &[&str]) -> Self {
        let tokens = dir.join("tokens");
        std::fs::write(&tokens, format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let child = Command::new(bin("kube-apiserver"))
            .args([
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
            ])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--token-auth-file={}", tokens.display()))
            .arg(format!("--cert-dir={}", dir.join(format!("certs{port}")).display()))
            .arg(store)
            .args(flags)
            .stderr(Stdio::null())
            .spawn();
        let server = Server {
            child: Running(child.expect("kube-apiserver starts")),
            url: format!("https://127.0.0.1:{port}"),
        };
        eventually("the server is ready", || server.get("/readyz").0.eq(&200).then_some(()));
        server
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["-sk", "-m", "30", "-X", method, "-w", "\n%{http_code}"]);
        command.args(["-H", &format!("Authorization: Bearer {TOKEN}")]);
        if !body.is_empty() {
            command.args(["-H", "Content-Type: application/json", "--data-binary", body]);
        }
        let out = command.arg(format!("{}{path}", self.url)).output().expect("curl is installed");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a code");
        (code.parse().expect("a number"), serde_json::from_str(body).unwrap_or_default())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "")
    }

    /// The addresses among the endpoints of the `kubernetes` service.
    fn endpoints(&self) -> Vec<String> {
        let (_, endpoints) = self.get("/api/v1/namespaces/default/endpoints/kubernetes");
        let addresses = endpoints.pointer("/subsets/0/addresses").and_then(Value::as_array).cloned();
        addresses.unwrap_or_default().iter().filter_map(|a| a["ip"].as_str()).map(Into::into).collect()
    }

    fn terminate(&self) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }
}

#[test]
fn two_servers_share_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (_etcd, port) = etcd(dir.path());
    let store = format!("--etcd-servers=http://127.0.0.1:{port}");
    let one = Server::start(dir.path(), &store, free_port(), &["--advertise-address=10.1.1.1"]);
    let two = Server::start(dir.path(), &store, free_port(), &["--advertise-address=10.1.1.2"]);
    let both = ["10.1.1.1", "10.1.1.2"];
    eventually("both are among the endpoints", || {
        (one.endpoints() == both && two.endpoints() == both).then_some(())
    });
    let services = "/api/v1/namespaces/default/services";
    for port in 30100..30105 {
        let body = |name: &str| {
            json!({"metadata": {"name": format!("{name}{port}")}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
                .to_string()
        };
        let codes = std::thread::scope(|s| {
            let asked = [
                s.spawn(|| one.ask("POST", services, &body("a")).0),
                s.spawn(|| two.ask("POST", services, &body("b")).0),
            ];
            let mut codes = asked.map(|a| a.join().unwrap());
            codes.sort();
            codes
        });
        assert_eq!(codes, [201, 422], "{port} is given once");
    }
    // A page of one server goes on at the other, from the same state.
    let maps = "/api/v1/namespaces/default/configmaps";
    for i in 0..4 {
        assert_eq!(one.ask("POST", maps, &json!({"metadata": {"name": format!("m{i}")}}).to_string()).0, 201);
        let (_, page) = one.get(&format!("{maps}?limit=1"));
        if let Some(token) = page["metadata"]["continue"].as_str() {
            let (code, rest) = two.get(&format!("{maps}?continue={token}"));
            assert_eq!((code, rest["items"].as_array().map(Vec::len)), (200, Some(i)), "{rest}");
        }
    }
    // What nobody can do without comes back.
    assert_eq!(one.ask("DELETE", &format!("{services}/kubernetes"), "").0, 200);
    eventually("the service is back", || (one.get(&format!("{services}/kubernetes")).0 == 200).then_some(()));
    two.terminate();
    eventually("who leaves is taken out", || (one.endpoints() == ["10.1.1.1"]).then_some(()));
}

#[test]
fn a_server_that_ends_says_so_first_and_answers_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let mut server = Server::start(dir.path(), &data, free_port(), &["--shutdown-delay-duration=3s"]);
    let mut watch = Command::new("curl");
    watch.args(["-skN", "-H", &format!("Authorization: Bearer {TOKEN}")]);
    let mut watch = Running(
        watch.arg(format!("{}/api/v1/namespaces?watch=1", server.url)).stdout(Stdio::null()).spawn().unwrap(),
    );
    server.terminate();
    eventually("it is not ready any more", || (server.get("/readyz").0 == 500).then_some(()));
    assert_eq!((server.get("/livez").0, server.get("/api/v1/namespaces").0), (200, 200));
    let end = eventually("it ends, whoever watches", || server.child.0.try_wait().unwrap());
    assert!(end.success(), "{end}");
    eventually("the watch is over", || watch.0.try_wait().unwrap());
}

#[test]
fn default_roles_get_what_they_lack() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node";
    let roles =
        |s: &Server, name: &str| s.get(&format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}")).1;
    let mut server = Server::start(dir.path(), &data, free_port(), &[]);
    let whole = roles(&server, "system:node")["rules"].as_array().unwrap().len();
    let emptied = |name: &str, autoupdate: &str| {
        let mut role = roles(&server, name);
        role["rules"] = json!([{"apiGroups": [""], "resources": ["own"], "verbs": ["get"]}]);
        role["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": autoupdate});
        let path = path.replace("system:node", name);
        assert_eq!(server.ask("PUT", &path, &role.to_string()).0, 200);
    };
    emptied("system:node", "true");
    emptied("system:kube-scheduler", "false");
    server.terminate();
    eventually("it ends", || server.child.0.try_wait().unwrap());
    let server = Server::start(dir.path(), &data, free_port(), &[]);
    assert_eq!(roles(&server, "system:node")["rules"].as_array().unwrap().len(), whole + 1);
    assert_eq!(roles(&server, "system:kube-scheduler")["rules"].as_array().unwrap().len(), 1);
}

fn shell(dir: &Path, script: &str) {
    let done = Command::new("sh").current_dir(dir).args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Certificates that are put in the place of others count, on connections that are open too.
#[test]
fn certificates_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        "for ca in a b; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$ca -keyout $ca.key -out $ca.crt -days 2; done
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=system:masters/CN=me -keyout me.key -out me.csr
        openssl x509 -req -in me.csr -CA a.crt -CAkey a.key -CAcreateserial -days 1 -out me.crt
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=first -keyout s.key -out s.crt -days 2
        cp a.crt ca.crt",
    );
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let data = format!("--data-dir={}", at("data").display());
    let port = free_port();
    let flags = [
        format!("--client-ca-file={}", at("ca.crt").display()),
        format!("--tls-cert-file={}", at("s.crt").display()),
        format!("--tls-private-key-file={}", at("s.key").display()),
    ];
    let server = Server::start(dir.path(), &data, port, &flags.each_ref().map(String::as_str));
    let code = || {
        let script = format!(
            "curl -sk --cert me.crt --key me.key -o /dev/null -w '%{{http_code}}' {}/api/v1/namespaces/default",
            server.url
        );
        let out = Command::new("sh").current_dir(dir.path()).args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(code(), "200");
    // Two requests of one connection, with a change of the authority between them.
    let request = r"printf 'GET /api/v1/namespaces/default HTTP/1.1\r\nHost: x\r\n\r\n'";
    let script = format!(
        "({request}; touch sent; while [ ! -e go ]; do sleep 0.1; done; {request}; while [ ! -e end ]; do sleep 0.1; done) \
         | openssl s_client -quiet -connect 127.0.0.1:{port} -cert me.crt -key me.key >answers 2>/dev/null"
    );
    let _open = Running(Command::new("sh").current_dir(dir.path()).args(["-c", &script]).spawn().unwrap());
    let answers = || {
        let text = std::fs::read_to_string(at("answers")).unwrap_or_default();
        // A body may end without a new line.
        text.split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|rest| rest.get(..3).map(Into::into))
            .collect::<Vec<String>>()
    };
    eventually("the first is answered", || (answers() == ["200"]).then_some(()));
    shell(dir.path(), "cp b.crt ca.new && mv ca.new ca.crt");
    eventually("the authority is another", || (code() == "401").then_some(()));
    shell(dir.path(), "touch go");
    eventually("the second is refused", || (answers() == ["200", "401"]).then_some(()));
    shell(dir.path(), "touch end; cp a.crt ca.new && mv ca.new ca.crt");
    eventually("it is the first again", || (code() == "200").then_some(()));
    shell(
        dir.path(),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=second -keyout t.key -out t.crt -days 2; mv t.key s.key; mv t.crt s.crt",
    );
    eventually("the serving certificate is another", || {
        let shown = format!(
            "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | grep -q 'CN *= *second'"
        );
        Command::new("sh").args(["-c", &shown]).status().unwrap().success().then_some(())
    });
}
