//! A DNS question is answered.

use hickory_proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::{Stage, Target, udp};
use crate::{
    config::{self, Dns},
    health::{Cause, Kind},
};

/// What answers may have: what fits every way (DNS flag day 2020).
const ANSWER: u16 = 1232;

/// Asks a question, and looks at the answer to it.
pub(super) async fn ask(dns: &Dns, target: &Target, stage: &Stage) -> Result<(), Cause> {
    let question = question(dns)?;
    let local = |error| Cause::new(Kind::Local, format!("dns: {error}"));
    let bytes = question.to_vec().map_err(local)?;
    let socket = udp::connect(target)?;
    let sent = socket.send(&bytes).await;
    sent.map_err(|error| udp::cause("send", &error))?;
    stage.set("waiting for the answer");
    let mut answer = [0; 4096];
    loop {
        let length = udp::receive(&socket, &mut answer).await?;
        let Ok(answer) = Message::from_vec(&answer[..length]) else {
            return Err(Cause::new(Kind::Answer, "dns: the answer makes no sense"));
        };
        // Others are late, or not for us.
        if answer.metadata.id == question.metadata.id {
            return judge(dns, &question, &answer);
        }
    }
}

fn question(dns: &Dns) -> Result<Message, Cause> {
    // Names of hosts are not all that there is: reverse zones have `/`, for one (RFC 2317).
    let labels = dns.name.split('.').filter(|label| !label.is_empty());
    let name = Name::from_labels(labels.map(str::as_bytes))
        .map_err(|error| Cause::new(Kind::Local, format!("dns: {}: {error}", dns.name)))?;
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type(dns.record)));
    let mut edns = Edns::new();
    edns.set_max_payload(ANSWER);
    message.set_edns(edns);
    Ok(message)
}

fn judge(dns: &Dns, question: &Message, answer: &Message) -> Result<(), Cause> {
    let wrong = |text: String| Err(Cause::new(Kind::Answer, text));
    if answer.metadata.message_type != MessageType::Response || answer.queries != question.queries {
        return wrong("dns: the answer is to another question".into());
    }
    let code = answer.metadata.response_code;
    if code != ResponseCode::NoError {
        return wrong(format!("dns: {}", word(code)));
    }
    let kind = record_type(dns.record);
    let mut records = answer
        .answers
        .iter()
        .filter(|record| record.record_type() == kind);
    match &dns.expect {
        _ if records.clone().next().is_none() => wrong(format!("dns: no {kind} record")),
        Some(pattern)
            if !records.any(|record| pattern.is_in(record.data.to_string().as_bytes())) =>
        {
            wrong(format!("dns: the pattern is in no {kind} record"))
        }
        _ => Ok(()),
    }
}

/// The word that every DNS tool has for a code (IANA's registry of DNS RCODEs).
fn word(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        ResponseCode::BADVERS => "BADVERS".into(),
        other => format!("code {}", u16::from(other)),
    }
}

fn record_type(record: config::RecordType) -> RecordType {
    match record {
        config::RecordType::A => RecordType::A,
        config::RecordType::Aaaa => RecordType::AAAA,
        config::RecordType::Cname => RecordType::CNAME,
        config::RecordType::Mx => RecordType::MX,
        config::RecordType::Ns => RecordType::NS,
        config::RecordType::Ptr => RecordType::PTR,
        config::RecordType::Soa => RecordType::SOA,
        config::RecordType::Srv => RecordType::SRV,
        config::RecordType::Txt => RecordType::TXT,
    }
}
