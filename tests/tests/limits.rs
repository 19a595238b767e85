//! Clients that ask for too much, send too much or take too little: each gets a clear answer or is cut off, the
//! server's memory stays within bounds, and others are served meanwhile.

use ferrokube_tests::wire::{self, Http2, ask, code, connect, head, rest};
use ferrokube_tests::{Cluster, PATIENCE, Store, TOKEN, eventually};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const MIB: u64 = 1 << 20;

/// Another client's request is answered within a bound.
fn serves(cluster: &Cluster, why: &str) {
    let started = Instant::now();
    let (code, text) = ask(cluster, "GET", &format!("{MAPS}?limit=1"), &[], b"");
    assert_eq!(code, 200, "{why}: {text}");
    assert!(started.elapsed() < Duration::from_secs(10), "{why}: another waited {:?}", started.elapsed());
}

/// Runs something that may cost the server this much memory, and no other its service.
fn within(cluster: &Cluster, why: &str, bytes: u64, run: impl FnOnce()) {
    let before = cluster.memory();
    run();
    serves(cluster, why);
    let grown = cluster.memory().saturating_sub(before);
    assert!(grown < bytes, "{why}: {} MiB more than before", grown / MIB);
}

/// The Status in an answer.
fn status(why: &str, (code, text): &(u16, String)) -> Value {
    let body = text.split_once("\r\n\r\n").unwrap_or_default().1;
    let status: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{why}: {code}: {e}: {text}"));
    assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &(*code).into()), "{why}: {text}");
    status
}

/// The other side ends the connection, in time.
fn ends(why: &str, mut stream: impl Read, time: Duration) {
    let started = Instant::now();
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
    let took = started.elapsed();
    assert!(took < time, "{why}: it took {took:?}");
}

#[test]
fn who_is_slow_is_waited_for_so_long_and_no_longer() {
    let flags =
        ["--request-timeout=3s", "--max-mutating-requests-inflight=2", "--authorization-mode=AlwaysAllow"];
    let cluster = &Cluster::with_flags(Store::Embedded, &flags);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = TcpStream::connect(cluster.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            ends("a handshake that does not begin", stream, Duration::from_secs(25));
        });
        scope.spawn(|| {
            let mut stream = TcpStream::connect(cluster.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
            ends("a handshake that stalls", stream, Duration::from_secs(25));
        });
        scope.spawn(|| ends("no request", connect(cluster, &["http/1.1"]), Duration::from_secs(50)));
        scope.spawn(|| ends("no protocol", connect(cluster, &[]), Duration::from_secs(50)));
        scope.spawn(|| {
            let mut stream = connect(cluster, &["http/1.1"]);
            let started = Instant::now();
            for byte in head("GET", MAPS, &[]).bytes().cycle() {
                if stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err() {
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "a head byte by byte goes on for ever");
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        scope.spawn(|| {
            for (why, length) in
                [("Content-Length", "Content-Length: 99"), ("chunks", "Transfer-Encoding: chunked")]
            {
                let mut stream = connect(cluster, &["http/1.1"]);
                let started = Instant::now();
                let head = head("POST", MAPS, &[JSON]) + length + "\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                let answer = code(&rest(&mut stream));
                assert_eq!(answer.0, 504, "{why}: {}", answer.1);
                assert_eq!(status(why, &answer)["reason"], "Timeout");
                assert!(started.elapsed() < Duration::from_secs(20), "{why}");
            }
        });
        scope.spawn(|| {
            // A watch has no body; one that is announced is not waited for.
            let mut stream = connect(cluster, &["http/1.1"]);
            let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
            let head = head("GET", &path, &[("Content-Length", "99")]) + "\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let mut start = [0; 15];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK");
        });
        for half in [head("GET", MAPS, &[]), head("POST", MAPS, &[JSON, ("Content-Length", "99")]) + "\r\n{"]
        {
            scope.spawn(move || {
                let mut stream = connect(cluster, &["http/1.1"]);
                stream.write_all(half.as_bytes()).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
                stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
                ends("closed by half", stream, Duration::from_secs(20));
            });
        }
        for _ in 0..20 {
            serves(cluster, "slow clients");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn requests_under_way_are_limited_but_for_administrators() {
    let flags =
        ["--request-timeout=8s", "--max-mutating-requests-inflight=2", "--authorization-mode=AlwaysAllow"];
    let cluster = &Cluster::with_flags(Store::Embedded, &flags);
    let as_jane = |length: &str| {
        head("POST", MAPS, &[JSON, ("Content-Length", length)]).replace(TOKEN, "user-token") + "\r\n"
    };
    let mut stalled: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(cluster, &["http/1.1"]);
            stream.write_all(as_jane("99").as_bytes()).unwrap();
            stream
        })
        .collect();
    // Nobody can tell when the two have their seats; from then on the answer is 429.
    let refused = eventually("all seats are taken", || {
        let mut stream = connect(cluster, &["http/1.1"]);
        stream
            .write_all((as_jane("2") + "{}").replace("Host", "Connection: close\r\nHost").as_bytes())
            .ok()?;
        Some(code(&rest(&mut stream))).filter(|(code, _)| *code == 429)
    });
    assert!(refused.1.to_lowercase().contains("retry-after: 1\r\n"), "{}", refused.1);
    assert_eq!(status("429", &refused)["message"], "Too many requests, please try again later.");
    serves(cluster, "reading has seats of its own");
    assert_eq!(ask(cluster, "POST", MAPS, &[JSON], br#"{"metadata":{"name":"a"}}"#).0, 201);
    for stream in &mut stalled {
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 504");
    }
    let mut stream = connect(cluster, &["http/1.1"]);
    let last = as_jane("25").replace("Host", "Connection: close\r\nHost") + r#"{"metadata":{"name":"b"}}"#;
    stream.write_all(last.as_bytes()).unwrap();
    assert_eq!(code(&rest(&mut stream)).0, 201, "seats are given back");
}

#[test]
fn floods_of_headers_and_long_paths() {
    let cluster = &Cluster::start(Store::Embedded);
    within(cluster, "headers", 64 * MIB, || {
        let many: Vec<(String, String)> = (0..20_000).map(|i| (format!("X-{i}"), "y".into())).collect();
        let many: Vec<_> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(ask(cluster, "GET", MAPS, &many, b"").0, 431, "many");
        assert_eq!(ask(cluster, "GET", MAPS, &many[..500], b"").0, 200, "not that many");
        let large = "y".repeat(2 << 20);
        assert_eq!(ask(cluster, "GET", MAPS, &[("X", &large)], b"").0, 431, "large");
        assert_eq!(ask(cluster, "GET", MAPS, &[("X", &large[..100 << 10])], b"").0, 200, "not that large");
    });
    within(cluster, "paths", 64 * MIB, || {
        let long = format!("/api/v1/{}", "y".repeat(100 << 10));
        assert_eq!(ask(cluster, "GET", &long, &[], b"").0, 414, "path");
        let long = format!("{MAPS}?labelSelector={}", "a%3Db,".repeat(20 << 10));
        assert_eq!(ask(cluster, "GET", &long, &[], b"").0, 414, "query");
        let long = format!("{MAPS}?labelSelector=a");
        let terms: String = (0..8000).map(|i| format!(",a{i}")).collect();
        assert_eq!(ask(cluster, "GET", &(long.clone() + &terms), &[], b"").0, 200, "many terms");
        let fields = format!("{MAPS}?fieldSelector=metadata.name!=a{}", ",metadata.name!=a".repeat(3000));
        assert_eq!(ask(cluster, "GET", &fields, &[], b"").0, 200, "many fields");
    });
    within(cluster, "headers of HTTP/2", 96 * MIB, || {
        let mut http2 = Http2::connect(cluster);
        http2.get(1, &format!("/api/v1/{}", "y".repeat(12 << 10))).unwrap();
        http2.until(|f| f.0 == wire::HEADERS && f.2 == 1).expect("a path of 12 KB is answered");
        // Headers without end: CONTINUATION after CONTINUATION.
        let block: Vec<u8> =
            (0..400).flat_map(|i| wire::literal(&format!("x-{i}"), "yyyyyyyyyyyyyyyy")).collect();
        let mut sent = http2.send(wire::HEADERS, 1, 3, &wire::get_block(MAPS)).and_then(|()| {
            for _ in 0..20_000 {
                http2.send(wire::CONTINUATION, 0, 3, &block)?;
            }
            Ok(())
        });
        sent = sent.and_then(|()| http2.until(|f| f.0 == wire::GOAWAY).map(|_| ()));
        // Who writes when the other side has left is told so by the system.
        println!("a flood of CONTINUATION ends with {sent:?}");
        ends("a flood of CONTINUATION", http2.0, Duration::from_secs(10));
    });
}

#[test]
fn bodies_too_large_too_deep_or_packed() {
    let cluster = &Cluster::start(Store::Embedded);
    let packed = |n: usize| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b' '; n]).unwrap();
        gzip.finish().unwrap()
    };
    within(cluster, "large", 96 * MIB, || {
        let large = vec![b' '; 4 << 20];
        let refused = ask(cluster, "POST", MAPS, &[JSON], &large);
        assert_eq!(refused.0, 413, "{}", refused.1);
        let refused = status("large", &refused);
        assert_eq!(refused["reason"], "RequestEntityTooLarge");
        assert_eq!(refused["message"], "Request entity too large: limit is 3145728");
        let mut stream = connect(cluster, &["http/1.1"]);
        let chunk = format!("10000\r\n{}\r\n", "y".repeat(0x10000));
        let head =
            head("POST", MAPS, &[JSON, ("Transfer-Encoding", "chunked"), ("Connection", "close")]) + "\r\n";
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| (0..100).try_for_each(|_| stream.write_all(chunk.as_bytes())));
        let refused = code(&rest(&mut stream));
        assert_eq!(refused.0, 413, "chunks: {}", refused.1);
        // Upstream reads bodies as they come, whatever they say they are packed with.
        let bomb = packed(256 << 20);
        let refused = ask(cluster, "POST", MAPS, &[JSON, ("Content-Encoding", "gzip")], &bomb);
        assert_eq!(refused.0, 400, "{}", refused.1);
        assert_eq!(status("a bomb", &refused)["reason"], "BadRequest");
    });
    let protobuf = |depth: usize| {
        // Field 1 of a CustomResourceDefinition's schema within itself: 0a is a message in field 1.
        let mut inner = Vec::new();
        for _ in 0..depth {
            let mut length = inner.len();
            let mut outer = vec![0x0a];
            while length >= 128 {
                outer.push((length % 128) as u8 | 128);
                length /= 128;
            }
            outer.push(length as u8);
            outer.extend(inner);
            inner = outer;
        }
        let mut body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
        let mut length = inner.len();
        while length >= 128 {
            body.push((length % 128) as u8 | 128);
            length /= 128;
        }
        body.push(length as u8);
        body.extend(inner);
        body
    };
    let mut aliases = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        aliases += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
    }
    aliases += "metadata: {name: a, managedFields: [{fieldsV1: *a11}]}\n";
    let (json, yaml) = ("application/json", "application/yaml");
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    for (why, kind, body) in [
        ("300 arrays", json, deep("[", 300)),
        (
            "300 objects",
            json,
            (r#"{"metadata":{"managedFields":[{"fieldsV1":"#.to_string() + &r#"{"a":"#.repeat(300))
                .into_bytes(),
        ),
        ("a million arrays", json, deep("[", 1_000_000)),
        ("a million objects", json, deep(r#"{"a":"#, 500_000)),
        ("300 flows", yaml, deep("[", 300)),
        ("many flows", yaml, deep("{a: ", 500_000)),
        ("many sequences", yaml, deep("- ", 500_000)),
        ("300 sequences", yaml, deep("- ", 300)),
        ("aliases", yaml, aliases.into_bytes()),
        ("300 messages", "application/vnd.kubernetes.protobuf", protobuf(300)),
        ("many messages", "application/vnd.kubernetes.protobuf", protobuf(2000)),
    ] {
        within(cluster, why, 128 * MIB, || {
            let started = Instant::now();
            let refused = ask(cluster, "POST", MAPS, &[("Content-Type", kind)], &body);
            assert_eq!(refused.0, 400, "{why}: {}", refused.1);
            assert_eq!(status(why, &refused)["reason"], "BadRequest", "{why}");
            assert!(started.elapsed() < Duration::from_secs(10), "{why}: {:?}", started.elapsed());
        });
    }
    // A patch is a body too.
    ask(cluster, "POST", MAPS, &[JSON], br#"{"metadata":{"name":"m"},"data":{"a":"1"}}"#);
    let copies: Vec<_> =
        (0..60).map(|i| format!(r#"{{"op":"copy","from":"/data","path":"/data/a{i}"}}"#)).collect();
    let merge = format!(r#"{{"data":{}"#, r#"{"a":"#.repeat(300));
    for (kind, body) in [
        ("application/json-patch+json", format!("[{}]", copies.join(","))),
        ("application/merge-patch+json", merge.clone() + &"}".repeat(301)),
        ("application/strategic-merge-patch+json", merge.clone() + &"}".repeat(301)),
        ("application/apply-patch+yaml", format!("data: {}", "[".repeat(300))),
    ] {
        within(cluster, kind, 128 * MIB, || {
            let path = format!("{MAPS}/m?fieldManager=x");
            let refused = ask(cluster, "PATCH", &path, &[("Content-Type", kind)], body.as_bytes());
            assert!((400..500).contains(&refused.0), "{kind}: {}", refused.1);
            status(kind, &refused);
        });
    }
}

#[test]
fn selectors_as_large_as_a_body_are_matched() {
    let cluster = &Cluster::start(Store::Embedded);
    let expressions: Vec<_> =
        (0..5000).map(|i| format!(r#"{{"key":"k{i}","operator":"NotIn","values":["a","b"]}}"#)).collect();
    let policy = format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"podSelector":{{"matchExpressions":[{}]}},"policyTypes":["Ingress"]}}}}"#,
        expressions.join(",")
    );
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    within(cluster, "a large selector", 128 * MIB, || {
        let started = Instant::now();
        let made = ask(cluster, "POST", path, &[JSON], policy.as_bytes());
        assert_eq!(made.0, 201, "{}", &made.1[..made.1.len().min(2000)]);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    });
}

#[test]
fn streams_are_limited_and_resets_do_not_pile_up() {
    let cluster = &Cluster::start(Store::Embedded);
    let mut http2 = Http2::connect(cluster);
    let settings = http2.until(|f| f.0 == wire::SETTINGS && f.1 == 0).unwrap().3;
    let streams =
        settings.chunks(6).find(|s| s[..2] == [0, 3]).map(|s| u32::from_be_bytes([s[2], s[3], s[4], s[5]]));
    assert_eq!(streams, Some(100), "upstream's number");
    within(cluster, "many streams", 64 * MIB, || {
        for stream in 0..300 {
            http2.get(2 * stream + 1, &format!("{MAPS}?watch=1")).unwrap();
        }
        // 100 are answered, and the others refused.
        let (mut answered, mut refused) = (0, 0);
        while answered + refused < 300 {
            match http2.frame().expect("each stream has an answer") {
                (wire::HEADERS, ..) => answered += 1,
                (wire::RESET, _, _, code) => {
                    assert_eq!(code, [0, 0, 0, 7], "REFUSED_STREAM");
                    refused += 1;
                }
                (wire::GOAWAY, ..) => panic!("the connection ended"),
                _ => {}
            }
        }
        assert_eq!(answered, 100);
    });
    within(cluster, "rapid resets", 64 * MIB, || {
        let mut http2 = Http2::connect(cluster);
        let mut sent = 0;
        for stream in 0..50_000u32 {
            let id = 2 * stream + 1;
            if http2.get(id, MAPS).and_then(|()| http2.send(wire::RESET, 0, id, &[0, 0, 0, 8])).is_err() {
                break;
            }
            sent = stream;
        }
        http2.patience(Duration::from_secs(10));
        println!("{sent} resets; {:?}", http2.until(|f| f.0 == wire::GOAWAY).map(|f| f.3));
    });
}

#[test]
fn a_watcher_who_does_not_read_is_left_behind() {
    let cluster = &Cluster::start(Store::Embedded);
    const CHANGES: usize = 300;
    let large = "y".repeat(200 << 10);
    let put = |i: usize| {
        let body = format!(r#"{{"metadata":{{"name":"m"}},"data":{{"i":"{i}","a":"{large}"}}}}"#);
        let path = format!("{MAPS}/m");
        match i {
            0 => ask(cluster, "POST", MAPS, &[JSON], body.as_bytes()),
            _ => ask(cluster, "PUT", &path, &[JSON], body.as_bytes()),
        }
    };
    assert_eq!(put(0).0, 201);
    // What the store keeps in memory is not the watchers'.
    (1..CHANGES).for_each(|i| assert_eq!(put(i).0, 200));
    let watch = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dm");
    let mut lazy: Vec<_> = (0..10)
        .map(|i| {
            let mut stream = connect(cluster, &["http/1.1"]);
            let head = head("GET", &watch, &[("Connection", "close")]) + "\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            // It reads the beginning, so that it is a watcher for sure.
            let mut start = [0; 15];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK", "{i}");
            stream
        })
        .collect();
    let mut http2 = Http2::connect(cluster);
    http2.get(1, &watch).unwrap();
    http2.until(|f| f.0 == wire::HEADERS && f.2 == 1).unwrap();
    within(cluster, "watchers", 100 * MIB, || {
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..20)
                .map(|_| {
                    let mut stream = connect(cluster, &["http/1.1"]);
                    let head = head("GET", &watch, &[]) + "\r\n";
                    stream.write_all(head.as_bytes()).unwrap();
                    scope.spawn(move || {
                        let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
                        let last = format!("\"i\":\"{}\"", CHANGES - 1);
                        loop {
                            let n = stream.read(&mut buffer).expect("events");
                            assert_ne!(n, 0, "who reads is not cut off");
                            seen.extend_from_slice(&buffer[..n]);
                            if seen.windows(last.len()).any(|w| w == last.as_bytes()) {
                                return;
                            }
                            seen.drain(..seen.len().saturating_sub(last.len()));
                        }
                    })
                })
                .collect();
            for i in 1..CHANGES {
                assert_eq!(put(i).0, 200);
            }
            let told = Instant::now();
            readers.into_iter().for_each(|r| r.join().unwrap());
            assert!(told.elapsed() < Duration::from_secs(20), "the last event took {:?}", told.elapsed());
        });
    });
    // What was on its way still comes, and then the end: far less than there was to tell.
    for stream in &mut lazy {
        let got = rest(stream);
        assert!(got.len() < CHANGES * large.len() / 2, "{} bytes", got.len());
    }
}

#[test]
fn thousands_of_idle_connections() {
    let cluster = &Cluster::start(Store::Embedded);
    let mut idle = Vec::new();
    within(cluster, "idle connections", 200 * MIB, || {
        for i in 0..2000 {
            idle.push(connect(cluster, &[["http/1.1", "h2"][i % 2]]));
        }
    });
    drop(idle);
    within(cluster, "connections without TLS", 64 * MIB, || {
        let raw: Vec<_> = (0..2000).map(|_| TcpStream::connect(cluster.address()).unwrap()).collect();
        serves(cluster, "raw connections");
        drop(raw);
    });
}
