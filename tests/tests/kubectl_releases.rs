//! Unmodified kubectls of several years: the one on the PATH, and the one that this Debian has.

use ferrokube_tests::{Cluster, Store, eventually};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's kubectl, which is older; `None` where it can't be fetched.
fn debians() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubectl");
    let program = dir.join("usr/bin/kubectl");
    if program.is_file() {
        return Some(program);
    }
    std::fs::create_dir_all(&dir).expect("a directory");
    let script = "apt-get download -qq kubernetes-client && dpkg-deb -x kubernetes-client_*.deb .";
    let out = Command::new("sh").args(["-ec", script]).current_dir(&dir).output().expect("a shell");
    if !out.status.success() {
        eprintln!("LEFT OUT, since {script:?} failed: {}", String::from_utf8_lossy(&out.stderr));
    }
    program.is_file().then_some(program)
}

const CONFIG: &str =
    r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "VALUE"}}"#;

#[test]
fn every_release_drives_it() {
    let mut c = Cluster::start(Store::Embedded);
    let on_path = c.kubectl.clone();
    for program in [Some(on_path), debians()].into_iter().flatten() {
        c.kubectl = program;
        let version = c.kubectl(&["version", "--client", "-o", "json"]).unwrap();
        println!("{}", version.lines().find(|l| l.contains("gitVersion")).unwrap_or_default());
        let run = |args: &[&str]| c.kubectl(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let config = |value: &str| CONFIG.replace("VALUE", value);
        run(&["create", "namespace", "other"]);
        run(&["create", "deployment", "web", "--image=nginx:1", "-n", "other"]);
        for (args, want) in [
            (&["scale", "deployment", "web", "--replicas=3"][..], "deployment.apps/web scaled"),
            (&["set", "image", "deployment/web", "nginx=nginx:2"], "deployment.apps/web image updated"),
            (&["label", "deployment", "web", "a=b"], "deployment.apps/web labeled"),
            (
                &["patch", "deployment", "web", "-p", r#"{"spec": {"paused": true}}"#],
                "deployment.apps/web patched",
            ),
            (
                &[
                    "get",
                    "deployment",
                    "web",
                    "-o",
                    "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}",
                ],
                "3 nginx:2",
            ),
            (&["get", "deployment", "-l", "a=b", "-o", "wide"], "nginx:2"),
            (&["get", "deployment", "-o", "custom-columns=N:.metadata.name"], "web"),
            (&["describe", "deployment", "web"], "StrategyType:"),
            (&["autoscale", "deployment", "web", "--max=5"], "autoscaled"),
            (&["expose", "deployment", "web", "--port=80"], "service/web exposed"),
            (&["api-resources"], "deployments"),
            (&["explain", "pod.spec.containers.image"], "image"),
            (&["auth", "can-i", "create", "pods"], "yes"),
            (&["delete", "deployment,service,hpa", "web"], "deleted"),
        ] {
            let args: Vec<&str> = args.iter().copied().chain(["-n", "other"]).collect();
            let text = run(&args);
            assert!(text.contains(want), "{args:?}: {text}");
        }
        for (value, want) in
            [("1", "configmap/c created"), ("1", "configmap/c unchanged"), ("2", "configmap/c configured")]
        {
            assert_eq!(c.kubectl_with(&["apply", "-f", "-"], &config(value)).unwrap().trim(), want);
        }
        let applied =
            c.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &config("3"));
        assert_eq!(applied.unwrap().trim(), "configmap/c serverside-applied");
        assert_eq!(run(&["get", "configmap", "c", "-o", "jsonpath={.data.a}"]), "3");
        let refused = c.kubectl_with(
            &["create", "-f", "-"],
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "C"}}"#,
        );
        assert!(refused.unwrap_err().contains("a lowercase RFC 1123 subdomain"));
        run(&["delete", "configmap", "c"]);
        run(&["delete", "namespace", "other", "--wait=false"]);
        // There is no controller here that empties it.
        let path = "/api/v1/namespaces/other/finalize";
        let body = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}, "spec": {"finalizers": []}}"#;
        c.curl(&["-X", "PUT", "-H", "Content-Type: application/json", "-d", body], path);
        eventually("the namespace goes", || c.kubectl(&["get", "namespace", "other"]).is_err().then_some(()));
    }
}
