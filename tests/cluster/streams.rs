//! What goes through the kubelet to a person: logs, exec, attach, port-forward, copying.

use crate::Case;
use crate::world::{Answer, Running, Space, ensure, eventually, output};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// Harmless to others.
pub const CASES: &[Case] = &[
    ("streams logs", logs),
    ("streams exec", exec),
    ("streams attach", attach),
    ("streams port-forward", port_forward),
    ("streams cp", copy),
];

fn logs(space: &Space) -> Answer {
    space.pod("p", "for i in 1 2 3; do echo line $i; done; head -c 40000 /dev/zero | tr '\\0' x; echo; test -e /v/again || { touch /v/again; exit 1; }; sleep 1000",
        "volumes: [{name: v, emptyDir: {}}]", "volumeMounts: [{name: v, mountPath: /v}]")?;
    eventually("the container was started again", || {
        let state = space.field("pod/p", "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}")?;
        ensure(state.starts_with('1') && state.len() > 2, state)
    })?;
    for arguments in [&["logs", "p"][..], &["logs", "p", "--previous"]] {
        let log = space.kubectl(arguments)?;
        let lines: Vec<&str> = log.lines().collect();
        ensure(
            lines.len() == 4 && lines[0] == "line 1" && lines[3].len() == 40000,
            format!("{arguments:?}: {} lines", lines.len()),
        )?;
    }
    let timed = space.kubectl(&["logs", "p", "--timestamps"])?;
    let long = timed.lines().last().unwrap_or_default();
    ensure(
        timed.lines().count() == 4 && long.matches('T').count() == 1 && long.len() > 40000,
        format!(
            "a long line with its time has {} characters and {} times",
            long.len(),
            long.matches('T').count()
        ),
    )?;
    let mut follow = Running(
        space
            .command(&["logs", "-f", "p", "--tail=1"])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?,
    );
    let mut lines = BufReader::new(follow.0.stdout.take().ok_or("no output")?).lines();
    lines.next().ok_or("no line")?.map_err(|e| e.to_string())?;
    space.exec("p", "echo spoken > /proc/1/fd/1")?;
    let line = lines.next().ok_or("the log ended")?.map_err(|e| e.to_string())?;
    ensure(line == "spoken", format!("followed: {line:?}"))
}

fn exec(space: &Space) -> Answer {
    space.pod("p", "sleep 1000", "", "")?;
    space.ready("p")?;
    let Err(wrong) = space.exec("p", "echo out; echo err >&2; exit 7") else {
        return Err("an exit code of 7 was lost".to_owned());
    };
    ensure(wrong.contains("exit code 7") && wrong.contains("err") && wrong.contains("out"), wrong)?;
    let mut child = space
        .command(&["exec", "-i", "p", "--", "sh", "-c", "cat | md5sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut input = child.stdin.take().ok_or("no input")?;
    let sent = std::thread::spawn(move || input.write_all(&vec![b'a'; 3_000_000]));
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    sent.join().map_err(|_| "the writer panicked")?.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let here = output(
        std::process::Command::new("sh").args(["-c", "head -c 3000000 /dev/zero | tr '\\0' a | md5sum"]),
        "md5sum",
    )?;
    ensure(text == here, format!("3 MB of input arrived as {text:?}"))
}

fn attach(space: &Space) -> Answer {
    space.pod("p", "while read -r line; do echo heard $line; done", "", "stdin: true")?;
    space.ready("p")?;
    let mut child = Running(
        space
            .command(&["attach", "-i", "p"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?,
    );
    let mut input = child.0.stdin.take().ok_or("no input")?;
    let mut lines = BufReader::new(child.0.stdout.take().ok_or("no output")?).lines();
    input.write_all(b"you\n").map_err(|e| e.to_string())?;
    let line = lines.next().ok_or("the stream ended")?.map_err(|e| e.to_string())?;
    ensure(line == "heard you", line)
}

fn port_forward(space: &Space) -> Answer {
    space.pod(
        "p",
        "mkdir /www; head -c 2000000 /dev/zero | tr '\\0' w > /www/big; exec httpd -f -p 8080 -h /www",
        "",
        "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}",
    )?;
    space.ready("p")?;
    let mut child = Running(
        space
            .command(&["port-forward", "p", ":8080"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?,
    );
    let mut lines = BufReader::new(child.0.stdout.take().ok_or("no output")?).lines();
    let line = lines.next().ok_or("no word of it")?.map_err(|e| e.to_string())?;
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|r| r.split(' ').next())
        .and_then(|p| p.parse().ok())
        .ok_or(line)?;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        stream.write_all(b"GET /big HTTP/1.0\r\n\r\n").map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
        ensure(
            answer.ends_with(b"www") && answer.len() > 2_000_000,
            format!("{} bytes of 2 MB", answer.len()),
        )?;
    }
    Ok(())
}

fn copy(space: &Space) -> Answer {
    space.pod("p", "sleep 1000", "", "")?;
    space.ready("p")?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, "copied").map_err(|e| e.to_string())?;
    space.kubectl(&["cp", &from.to_string_lossy(), &format!("{}/p:/tmp/f", space.name)])?;
    space.kubectl(&["cp", &format!("{}/p:/tmp/f", space.name), &to.to_string_lossy()])?;
    ensure(std::fs::read_to_string(&to).is_ok_and(|t| t == "copied"), "the file came back different")
}
