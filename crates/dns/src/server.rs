//! DNS over UDP and TCP.

use crate::forward::Resolvers;
use crate::zone::{Found, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use ipnet::IpNet;
use rand::seq::SliceRandom;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many names are looked up elsewhere at once.
const FORWARDS: usize = 512;
/// How many TCP connections there may be.
const CONNECTIONS: usize = 128;
/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// What fits into a UDP packet if the client does not say.
const SMALL: u16 = 512;
/// What we send at most over UDP, so that packets are not cut in two.
const LARGE: u16 = 1232;

/// Answers queries.
pub struct Server {
    zone: Zone,
    resolvers: Resolvers,
    forwards: Semaphore,
    clients: Clients,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a packet: the answer has to fit into one.
    Udp,
    /// On a connection.
    Tcp,
}

impl Server {
    /// A server of a zone that sends other names to resolvers.
    pub fn new(zone: Zone, resolvers: Resolvers, clients: Clients) -> Self {
        Server { zone, resolvers, forwards: Semaphore::new(FORWARDS), clients }
    }

    /// The answer to a query, if it deserves one.
    pub async fn answer(&self, query: &[u8], transport: Transport, from: IpAddr) -> Option<Vec<u8>> {
        let message = match Message::from_vec(query) {
            Ok(message) if message.metadata.message_type == MessageType::Query => message,
            Ok(_) => return None, // an answer to an answer would be answered
            Err(_) => {
                let id = u16::from_be_bytes(*query.first_chunk::<2>()?);
                // Short packets and answers get nothing.
                query.get(2).filter(|flags| query.len() >= 12 && **flags & 0x80 == 0)?;
                return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
            }
        };
        if !self.clients.allow(from) {
            return reply(&message, ResponseCode::Refused).to_vec().ok();
        }
        let local = self.local(&message).await;
        let mut response = match local {
            Some(response) => response,
            None => match self.forward(query, transport).await {
                Some(answer) => return Some(fit_foreign(answer, &message, transport)),
                None => reply(&message, ResponseCode::ServFail),
            },
        };
        if let Some(edns) = &message.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(LARGE).set_version(0);
            if edns.version() > 0 {
                response.metadata.response_code = ResponseCode::BADVERS;
                ours.set_rcode_high(ResponseCode::BADVERS.high());
            }
            response.set_edns(ours);
        }
        let bytes = response.to_vec().ok()?;
        if transport == Transport::Udp && bytes.len() > usize::from(limit(&message)) {
            return cut(&response, usize::from(limit(&message)));
        }
        Some(bytes)
    }

    /// What we know ourselves; `None` if others have to be asked.
    async fn local(&self, message: &Message) -> Option<Message> {
        if message.metadata.op_code != OpCode::Query {
            return Some(reply(message, ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else { return Some(reply(message, ResponseCode::FormErr)) };
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Some(reply(message, ResponseCode::Refused));
        }
        if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return Some(reply(message, ResponseCode::Refused));
        }
        let mut found = self.zone.look_up(query.name(), query.query_type())?;
        self.follow(&mut found, query.query_type(), message.metadata.recursion_desired).await;
        let code = if found.exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let mut response = reply(message, code);
        response.metadata.authoritative = true;
        if found.answers.is_empty() {
            response.add_authority(self.zone.soa());
        }
        // Clients take the first: no endpoint should always be it. What a CNAME leads to stays behind it.
        if !found.answers.iter().any(|r| r.record_type() == RecordType::CNAME) {
            found.answers.shuffle(&mut rand::rng());
        }
        response.add_answers(found.answers);
        response.add_additionals(found.additionals);
        Some(response)
    }

    /// An answer that leads elsewhere comes with what is there.
    async fn follow(&self, found: &mut Found, kind: RecordType, recurse: bool) {
        for _ in 0..8 {
            let Some(target) = found.elsewhere.take() else { return };
            if let Some(next) = self.zone.look_up(&target, kind) {
                found.answers.extend(next.answers);
                found.elsewhere = next.elsewhere;
                continue;
            }
            if !recurse {
                return;
            }
            let mut question = Message::query();
            question.metadata.recursion_desired = true;
            question.add_query(Query::query(target, kind));
            let Ok(bytes) = question.to_vec() else { return };
            if let Some(answer) = self.forward(&bytes, Transport::Udp).await
                && let Ok(answer) = Message::from_vec(&answer)
            {
                found.answers.extend(answer.answers);
            }
        }
    }

    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _slot = self.forwards.try_acquire().ok()?; // too many: they will ask again
        self.resolvers.ask(query, transport == Transport::Tcp).await
    }
}

fn reply(message: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(message.metadata.id, message.metadata.op_code);
    response.metadata.response_code = code;
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(message.queries.iter().cloned());
    response
}

fn limit(message: &Message) -> u16 {
    message.edns.as_ref().map_or(SMALL, |e| e.max_payload().clamp(SMALL, LARGE))
}

/// As many of its answers as fit, with the word that there are more: a client that can asks again over TCP, others go on with these.
fn cut(response: &Message, limit: usize) -> Option<Vec<u8>> {
    let with = |answers: usize| {
        let mut cut = reply(response, response.metadata.response_code);
        cut.metadata.authoritative = response.metadata.authoritative;
        cut.metadata.truncation = true;
        cut.edns = response.edns.clone();
        cut.add_answers(response.answers.iter().take(answers).cloned());
        cut.to_vec().ok()
    };
    let (mut fit, mut most) = (0, response.answers.len());
    while fit < most {
        let middle = (fit + most).div_ceil(2);
        match with(middle).is_some_and(|bytes| bytes.len() <= limit) {
            true => fit = middle,
            false => most = middle - 1,
        }
    }
    with(fit)
}

fn fit_foreign(answer: Vec<u8>, message: &Message, transport: Transport) -> Vec<u8> {
    let limit = message.edns.as_ref().map_or(SMALL, |e| e.max_payload().max(SMALL));
    if transport == Transport::Tcp || answer.len() <= usize::from(limit) {
        return answer;
    }
    Message::from_vec(&answer).ok().and_then(|m| cut(&m, usize::from(limit))).unwrap_or(answer)
}

/// Who is answered. A server that looks names up for anybody is a tool for attacks on others.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// Ranges beside those that are not routed in the internet.
    pub more: Vec<IpNet>,
}

impl Clients {
    /// Whether an address gets answers: one of this machine, of a private network, or of a range that was named.
    pub fn allow(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        let private = match from {
            // 100.64.0.0/10 is what carriers and clouds use inside (RFC 6598).
            IpAddr::V4(ip) => {
                ip.is_loopback()
                    || ip.is_private()
                    || ip.is_link_local()
                    || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        private || self.more.iter().any(|range| range.contains(&from))
    }
}

/// Answers packets until shutdown.
pub async fn serve_udp(server: Arc<Server>, socket: UdpSocket, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let slots = Arc::new(Semaphore::new(2 * FORWARDS));
    let mut buffer = vec![0; 4096];
    loop {
        let received = tokio::select! {
            r = socket.recv_from(&mut buffer) => r,
            () = shutdown.cancelled() => return,
        };
        // An error is about an earlier answer that nobody took.
        let Ok((length, from)) = received else { continue };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue }; // they will ask again
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (server, socket) = (server.clone(), socket.clone());
        tokio::spawn(async move {
            let _slot = slot;
            if let Some(answer) = server.answer(&query, Transport::Udp, from.ip()).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Answers on connections until shutdown.
pub async fn serve_tcp(server: Arc<Server>, listener: TcpListener, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of file descriptors
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (server, shutdown) = (server.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            shutdown.run_until_cancelled(connection(&server, stream, from.ip())).await
        });
    }
}

async fn connection(server: &Server, mut stream: TcpStream, from: IpAddr) -> std::io::Result<()> {
    loop {
        let query = async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            Ok::<_, std::io::Error>(query)
        };
        let query = tokio::time::timeout(IDLE, query).await??;
        let Some(answer) = server.answer(&query, Transport::Tcp, from).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(answer);
        tokio::time::timeout(IDLE, stream.write_all(&bytes)).await??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Fixed;

    fn server() -> Server {
        let zone = Zone::new("cluster.local", Box::new(Fixed::default())).unwrap();
        Server::new(zone, Resolvers::default(), Clients::default())
    }

    async fn code(message: &Message) -> Option<ResponseCode> {
        let answer =
            server().answer(&message.to_vec().unwrap(), Transport::Udp, IpAddr::from([127, 0, 0, 1])).await?;
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        Some(answer.metadata.response_code)
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(name.parse().unwrap(), kind));
        message
    }

    #[tokio::test]
    async fn codes() {
        let is = |m: Message| async move { code(&m).await };
        assert_eq!(is(query("x.a.svc.cluster.local.", RecordType::A)).await, Some(ResponseCode::NXDomain));
        assert_eq!(is(query("cluster.local.", RecordType::A)).await, Some(ResponseCode::NoError));
        assert_eq!(is(query("example.com.", RecordType::A)).await, Some(ResponseCode::ServFail));
        assert_eq!(is(query("cluster.local.", RecordType::AXFR)).await, Some(ResponseCode::Refused));
        assert_eq!(is(Message::query()).await, Some(ResponseCode::FormErr));
        assert_eq!(is(query("cluster.local.", RecordType::A).into_response()).await, None);
    }

    #[tokio::test]
    async fn bytes_that_are_no_query() {
        for bytes in [&b""[..], b"\0", b"\0\x01\0\0", &[0xff; 40], &[0; 11]] {
            assert_eq!(
                server().answer(bytes, Transport::Udp, IpAddr::from([127, 0, 0, 1])).await,
                None,
                "{bytes:?}"
            );
        }
        // One question is promised and none is there.
        let broken = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 60];
        let answer = server().answer(&broken, Transport::Udp, IpAddr::from([127, 0, 0, 1])).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::FormErr);
    }

    #[tokio::test]
    async fn other_names_go_to_the_resolvers() {
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let zone = Zone::new("elsewhere", Box::new(Fixed::default())).unwrap();
        let resolver = other.local_addr().unwrap();
        tokio::spawn(serve_udp(
            Arc::new(Server::new(zone, Resolvers::default(), Clients::default())),
            other,
            stop.clone(),
        ));
        let zone = Zone::new("cluster.local", Box::new(Fixed::default())).unwrap();
        let server = Server::new(zone, Resolvers(vec![resolver]), Clients::default());
        let asked = query("dns-version.elsewhere.", RecordType::TXT);
        let answer = server
            .answer(&asked.to_vec().unwrap(), Transport::Udp, IpAddr::from([127, 0, 0, 1]))
            .await
            .unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (asked.metadata.id, 1));
        stop.cancel();
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        let mut asked = Message::query();
        asked.add_query(Query::query("example.com.".parse().unwrap(), RecordType::A));
        let bytes = asked.to_vec().unwrap();
        for (from, stranger) in [
            ("127.0.0.1", false),
            ("10.244.0.7", false),
            ("192.168.1.1", false),
            ("100.64.3.2", false),
            ("fd00::7", false),
            ("::ffff:10.0.0.1", false),
            ("203.0.113.9", true),
            ("100.128.0.1", true),
            ("2001:db8::1", true),
        ] {
            let answer = server().answer(&bytes, Transport::Udp, from.parse().unwrap()).await.unwrap();
            let code = Message::from_vec(&answer).unwrap().metadata.response_code;
            assert_eq!(code == ResponseCode::Refused, stranger, "{from}: {code}");
        }
        let named = Clients { more: vec!["203.0.113.0/24".parse().unwrap()] };
        assert!(named.allow("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn what_fits_stays() {
        let mut response = Message::response(1, OpCode::Query);
        let name: hickory_proto::rr::Name = "web.default.svc.cluster.local.".parse().unwrap();
        response.add_query(Query::query(name.clone(), RecordType::A));
        for i in 0..60u8 {
            let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A::new(10, 0, 0, i));
            response.add_answer(hickory_proto::rr::Record::from_rdata(name.clone(), 5, data));
        }
        let cut = cut(&response, 512).unwrap();
        let read = Message::from_vec(&cut).unwrap();
        assert!(cut.len() <= 512 && read.metadata.truncation);
        assert!(read.answers.len() > 25, "{} of 60 answers in {} bytes", read.answers.len(), cut.len());
    }
}
