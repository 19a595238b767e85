//! Services from pods, nodes and outside, and names, across the two nodes.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually, output};
use std::collections::BTreeSet;
use std::process::Command;

/// Harmless to others.
pub const CASES: &[Case] = &[
    ("services across nodes", across),
    ("services headless", headless),
    ("services session affinity", affinity),
    ("services without endpoints", nobody),
    ("services pods keep their addresses", no_nat),
];

/// A web server on each node that says which node it is on.
const SERVERS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: "@IMAGE@"
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        command: [sh, -c, "mkdir -p /www/cgi-bin; echo $NODE > /www/index.html; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /www/cgi-bin/who; chmod 755 /www/cgi-bin/who; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

fn servers(space: &Space) -> Answer {
    space.apply(SERVERS)?;
    space.kubectl(&["rollout", "status", "daemonset/web", "--timeout=120s"])?;
    for (name, node) in ["client1", "client2"].iter().zip(&space.world.nodes) {
        space.pod(name, "sleep 1000", &format!("nodeName: {node}"), "")?;
    }
    space.ready("client1")?;
    space.ready("client2")
}

/// Asks ten times at a time until both nodes' servers have answered.
fn both_answer(space: &Space, what: &str, mut ask: impl FnMut(&str) -> Answer<String>, once: &str) -> Answer {
    let mut seen = BTreeSet::new();
    let script = format!("for i in 1 2 3 4 5 6 7 8 9 10; do {once} || exit 1; done");
    eventually(&format!("{what}: servers on both nodes answer"), || {
        seen.extend(ask(&script)?.lines().map(|l| l.trim().to_owned()));
        ensure(space.world.nodes.iter().all(|n| seen.contains(n)), format!("only {seen:?}"))
    })
}

fn across(space: &Space) -> Answer {
    servers(space)?;
    space.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}")?;
    let ip = space.field("service/web", "{.spec.clusterIP}")?;
    let port = space.field("service/web", "{.spec.ports[0].nodePort}")?;
    for client in ["client1", "client2"] {
        for name in
            [&ip, "web", &format!("web.{}", space.name), &format!("web.{}.svc.cluster.local", space.name)]
        {
            let get = format!("timeout 5 wget -qO- http://{name}/");
            both_answer(space, &format!("{client} by {name}"), |script| space.exec(client, script), &get)?;
        }
    }
    for node in &space.world.nodes {
        let get = format!("curl -sf --max-time 2 http://{ip}/");
        both_answer(space, &format!("{node} by address"), |script| space.world.on(node, script), &get)?;
        let get =
            format!("curl -sf --noproxy '*' --max-time 2 http://{}:{port}/", space.world.address(node)?);
        both_answer(
            space,
            &format!("{node}'s port from outside"),
            |script| output(Command::new("sh").args(["-c", script]), "curl"),
            &get,
        )?;
    }
    // A server that goes is not asked any more.
    space.kubectl(&[
        "patch",
        "daemonset",
        "web",
        "-p",
        &format!(
            r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":"{}"}}}}}}}}}}"#,
            space.world.nodes[0]
        ),
    ])?;
    eventually("only one server is left", || {
        let found = space.field("endpointslices", "{.items[*].endpoints[*].nodeName}")?;
        ensure(found == space.world.nodes[0], found)
    })?;
    eventually("only that one is asked", || {
        let seen: BTreeSet<String> = (0..10)
            .map(|_| space.exec("client2", &format!("timeout 5 wget -qO- http://{ip}/")))
            .collect::<Answer<_>>()?;
        ensure(seen.len() == 1, format!("{seen:?}"))
    })
}

fn headless(space: &Space) -> Answer {
    servers(space)?;
    space.apply("{apiVersion: v1, kind: Service, metadata: {name: each}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}}")?;
    let mut want: Vec<String> = space
        .field("pods", "{.items[?(@.metadata.labels.app=='web')].status.podIP}")?
        .split(' ')
        .map(str::to_owned)
        .collect();
    want.sort();
    eventually("the name has all pods' addresses", || {
        let text = space.exec("client1", &format!("nslookup each.{}.svc.cluster.local", space.name))?;
        let mut found: Vec<String> =
            text.lines().filter_map(|l| l.strip_prefix("Address: ")).map(|a| a.trim().to_owned()).collect();
        found.sort();
        found.dedup();
        ensure(found == want, format!("{found:?} instead of {want:?}: {text}"))
    })
}

fn affinity(space: &Space) -> Answer {
    servers(space)?;
    space.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}")?;
    eventually("one client is led to one server", || {
        let seen: BTreeSet<String> = (0..10)
            .map(|_| space.exec("client1", "timeout 5 wget -qO- http://web/"))
            .collect::<Answer<_>>()?;
        ensure(seen.len() == 1, format!("{seen:?}"))
    })
}

fn nobody(space: &Space) -> Answer {
    space.pod("client", "sleep 1000", "", "")?;
    space.ready("client")?;
    space.apply("{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {selector: {app: nobody}, ports: [{port: 80}]}}")?;
    eventually("a service without endpoints refuses at once", || {
        match space.exec("client", "timeout 5 wget -qO- http://nobody/") {
            Ok(text) => Err(text),
            Err(e) => ensure(e.contains("refused"), e),
        }
    })
}

fn no_nat(space: &Space) -> Answer {
    servers(space)?;
    let servers =
        space.field("pods", "{range .items[?(@.metadata.labels.app=='web')]}{.status.podIP} {end}")?;
    for client in ["client1", "client2"] {
        let own = space.field(&format!("pod/{client}"), "{.status.podIP}")?;
        for server in servers.split_whitespace() {
            let seen =
                space.exec(client, &format!("timeout 5 wget -qO- http://{server}:8080/cgi-bin/who"))?;
            ensure(
                seen.trim().trim_matches(['[', ']']).trim_start_matches("::ffff:") == own,
                format!("{server} sees {client} ({own}) as {seen}"),
            )?;
        }
    }
    Ok(())
}
