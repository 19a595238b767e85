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
