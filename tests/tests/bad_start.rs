//! Daemons that are started wrongly: each says in one line which flag or field is wrong, and exits.

use ferrokube_tests::{bin, free_port};
use std::process::{Command, Stdio};

const FILES: [(&str, &str); 4] = [
    ("junk", "no sense in here\n"),
    (
        "scheduler-typo",
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nparalelism: 3\n",
    ),
    ("kubelet-typo", "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPod: 3\n"),
    (
        "kubeconfig",
        r#"{"current-context": "c", "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]}"#,
    ),
];

#[test]
fn each_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in FILES {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    let fill = |text: &str| {
        let mut text = text.to_string();
        for (name, _) in FILES {
            text = text.replace(&format!("{{{name}}}"), &dir.path().join(name).display().to_string());
        }
        text = text.replace("{port}", &free_port().to_string());
        text.replace("{dir}", &dir.path().join("empty").display().to_string())
    };
    for case in include_str!("../data/bad_start.txt").lines().filter(|l| !l.starts_with('#')) {
        let [daemon, arguments, expected] = case.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("three columns: {case}")
        };
        let child = Command::new(bin(daemon))
            .args(fill(arguments).split_whitespace())
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "{case}: it should fail, and says {said}");
        assert!(said.contains(&fill(expected)), "{case}: {said}");
        assert!(!said.contains("panicked"), "{case}: {said}");
        // A usage hint, or a note that its own oom_score_adj could not be lowered, may stand beside it.
        assert!(said.lines().filter(|l| !l.is_empty()).count() <= 3, "{case}: {said}");
    }
}
