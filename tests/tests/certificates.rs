//! Client certificates: those that count, and those that don't.

use ferrokube_tests::{Cluster, Store, TOKEN};
use std::path::Path;
use std::process::Command;

/// Runs openssl and the like in a directory.
fn shell(dir: &Path, script: &str) {
    let out = Command::new("sh").current_dir(dir).args(["-ec", script]).output().expect("sh");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// What the API server says to who shows a certificate: the code and the body.
fn ask(c: &Cluster, dir: &Path, name: &str, more: &[&str]) -> String {
    let out = Command::new("curl")
        .current_dir(dir)
        .args([
            "-sk",
            "-w",
            " %{http_code}",
            "--cert",
            &format!("{name}.crt"),
            "--key",
            &format!("{name}.key"),
        ])
        .args(more)
        .arg(format!("{}/api/v1/nodes", c.url()))
        .output()
        .expect("curl");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn each_gets_an_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    shell(
        dir.path(),
        "for ca in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.crt -days 30 -subj /CN=ca; done
         make() {
           openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /O=system:masters/CN=root
           openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days $3 -out $1.crt $4
         }
         echo 'extendedKeyUsage=clientAuth' > ext
         make plain ca 30; make full ca 30 '-extfile ext'; make foreign other 30; make expired ca -1; make expired3 ca -1 '-extfile ext'
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ec.key -out ec.csr -subj /O=system:masters/CN=ec
         openssl x509 -req -in ec.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3 -out ec.crt",
    );
    let c = Cluster::with_flags(
        Store::Embedded,
        &[&format!("--client-ca-file={}", dir.path().join("ca.crt").display())],
    );
    // `openssl x509 -req` without extensions makes version 1, which upstream takes.
    for name in ["plain", "full", "ec"] {
        for tls in ["--tlsv1.3", "--tls-max=1.2"] {
            let tls: Vec<&str> = tls.split('=').collect();
            let said = ask(&c, dir.path(), name, &tls);
            assert!(said.ends_with(" 200") && said.contains("NodeList"), "{name}: {said}");
        }
    }
    for name in ["foreign", "expired", "expired3"] {
        let said = ask(&c, dir.path(), name, &[]);
        assert!(said.ends_with(" 401") && said.contains("\"reason\":\"Unauthorized\""), "{name}: {said}");
        // A token that counts is enough.
        let said = ask(&c, dir.path(), name, &["-H", &format!("Authorization: Bearer {TOKEN}")]);
        assert!(said.ends_with(" 200"), "{name}: {said}");
    }
    // A key of somebody else's.
    shell(dir.path(), "cp full.crt stolen.crt; cp foreign.key stolen.key");
    assert!(!ask(&c, dir.path(), "stolen", &[]).ends_with(" 200"));
}

#[test]
fn a_front_proxy_says_who_asks() {
    let dir = tempfile::tempdir().expect("a directory");
    shell(
        dir.path(),
        "for ca in ca proxy; do openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.crt -days 30 -subj /CN=$ca; done
         make() {
           openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj $3
           openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 30 -out $1.crt
         }
         make front proxy /CN=front-proxy-client; make other proxy /CN=other; make forged ca /CN=front-proxy-client",
    );
    let file = |name: &str| dir.path().join(name).display().to_string();
    let c = Cluster::with_flags(
        Store::Embedded,
        &[
            &format!("--client-ca-file={}", file("ca.crt")),
            &format!("--requestheader-client-ca-file={}", file("proxy.crt")),
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-uid-headers=X-Remote-Uid",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ],
    );
    let user = ["-H", "X-Remote-User: ann", "-H", "X-Remote-Group: system:masters"];
    for (name, headers, code) in [
        ("front", &user[..], " 200"),
        // Nobody in particular, though of a group that may do all.
        ("front", &user[2..], " 401"),
        ("front", &user[..2], " 403"),
        ("other", &user[..], " 401"),
        ("forged", &user[..], " 403"),
    ] {
        let said = ask(&c, dir.path(), name, headers);
        assert!(said.ends_with(code), "{name} {headers:?}: {said}");
    }
    let whoami = ["-H", "X-Remote-User: ann", "-H", "X-Remote-Uid: 7", "-H", "X-Remote-Extra-A%2fb: c"];
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let out = Command::new("curl")
        .current_dir(dir.path())
        .args(["-sk", "--cert", "front.crt", "--key", "front.key", "-H", "Content-Type: application/json"])
        .args(whoami)
        .args(["-d", review])
        .arg(format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", c.url()))
        .output()
        .expect("curl");
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).expect("a review");
    let ann = serde_json::json!({
        "username": "ann", "uid": "7", "groups": ["system:authenticated"], "extra": {"a/b": ["c"]},
    });
    assert_eq!(said["status"]["userInfo"], ann);
    let published =
        ["get", "configmap", "-n", "kube-system", "extension-apiserver-authentication", "-o", "json"];
    let map: serde_json::Value = serde_json::from_str(&c.kubectl(&published).unwrap()).unwrap();
    for (key, want) in [
        ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
    ] {
        assert_eq!(map["data"][key], want, "{key}");
    }
    for (key, name) in [("client-ca-file", "ca.crt"), ("requestheader-client-ca-file", "proxy.crt")] {
        assert_eq!(map["data"][key], std::fs::read_to_string(file(name)).unwrap(), "{key}");
    }
}
