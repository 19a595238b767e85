//! Names that are not ours: the node's resolvers are asked, one after the other.

use rand::Rng;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long a resolver may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How many are asked.
const MOST: usize = 3;

/// The resolvers of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolvers(pub Vec<SocketAddr>);

impl Resolvers {
    /// Reads the lines `nameserver ADDRESS` of a file such as /etc/resolv.conf. `own` is where we listen:
    /// asking ourselves would never end.
    pub fn read(path: &Path, own: SocketAddr) -> std::io::Result<Resolvers> {
        Ok(Resolvers::parse(&std::fs::read_to_string(path)?, own))
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str, own: SocketAddr) -> Resolvers {
        let servers = text.lines().filter_map(|l| {
            let mut words = l.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
        });
        let others = servers.map(|ip| SocketAddr::new(ip, 53)).filter(|a| *a != own);
        Resolvers(others.take(MOST).collect())
    }

    /// Asks until one answers. The answer has the query's number.
    pub async fn ask(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for server in &self.0 {
            let answer =
                async { if tcp { over_tcp(*server, query).await } else { over_udp(*server, query).await } };
            match tokio::time::timeout(LIMIT, answer).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(e)) => tracing::debug!("resolver {server}: {e}"),
                Err(_) => tracing::debug!("resolver {server}: no answer within {} s", LIMIT.as_secs()),
            }
        }
        None
    }
}

fn number(message: &[u8]) -> Option<[u8; 2]> {
    message.first_chunk::<2>().copied()
}

/// Each query has a port and a number of its own, so that answers are hard to forge.
async fn over_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let ours: [u8; 2] = rand::rng().random();
    let mut sent = query.to_vec();
    let Some(place) = sent.first_chunk_mut::<2>() else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let theirs = std::mem::replace(place, ours);
    socket.send(&sent).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        if number(answer) == Some(ours) && length >= 12 {
            let mut answer = answer.to_vec();
            if let Some(place) = answer.first_chunk_mut::<2>() {
                *place = theirs;
            }
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if number(&answer) != number(query) {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_a_file() {
        let own = "10.0.0.10:53".parse().unwrap();
        let text = "# x\nsearch a b\nnameserver 10.0.0.10\nnameserver 1.1.1.1\n nameserver  fd00::1 # y\nnameserver x\noptions ndots:5\n";
        let found = Resolvers::parse(text, own);
        assert_eq!(found.0, ["1.1.1.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
    }
}
