//! Patroni's REST API: who is the leader, and the request to make the candidate the next one.
//!
//! Where there is a leader the request is a switchover that names it, which Patroni refuses when
//! another one leads by then; without one it is a failover. Patroni's answer is not proof of
//! anything: the server is looked at afterwards.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::DriverError;
use crate::outside::{Method, OutsideError, request};
use crate::upstream::Endpoint;

/// For an answer about the cluster, which Patroni has at hand.
const LOOK: Duration = Duration::from_secs(3);

#[derive(Debug, Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl Member {
    fn leads(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "master" | "primary")
    }
}

/// What is to be asked, and where.
#[derive(Debug)]
pub(super) struct Known {
    url: String,
    leader: Option<String>,
    candidate: String,
}

/// Asks the first address that answers for the candidate and the leader.
///
/// # Errors
/// Nobody answers, or the candidate is no member that runs.
pub(super) async fn known(
    urls: &[String],
    member: Option<&str>,
    endpoint: &Endpoint,
) -> Result<Known, DriverError> {
    let mut why = Vec::new();
    for url in urls {
        let url = url.trim_end_matches('/').to_owned();
        let asked = request(Method::Get, &format!("{url}/cluster"), String::new(), LOOK).await;
        match asked {
            Err(error) => why.push(error.to_string()),
            Ok(text) => return read(url, &text, member, endpoint),
        }
    }
    let why = why.join("; ");
    Err(DriverError::Asked(format!(
        "Patroni cannot be asked: {why}"
    )))
}

/// What an answer about the cluster says of the candidate. Pure.
fn read(
    url: String,
    text: &str,
    member: Option<&str>,
    endpoint: &Endpoint,
) -> Result<Known, DriverError> {
    let cluster: Cluster = serde_json::from_str(text).map_err(|error| {
        DriverError::Asked(format!(
            "{url}/cluster is not what Patroni answers: {error}"
        ))
    })?;
    let is_candidate = |one: &&Member| match member {
        Some(name) => one.name == name,
        None => {
            one.host.as_deref() == Some(endpoint.host.as_str()) && one.port == Some(endpoint.port)
        }
    };
    let Some(candidate) = cluster.members.iter().find(is_candidate) else {
        let names: Vec<&str> = cluster
            .members
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let what = member.map_or_else(|| endpoint.to_string(), str::to_owned);
        return Err(DriverError::Asked(format!(
            "Patroni has no member {what}, but {}; name it with `member` in the region's section",
            names.join(", ")
        )));
    };
    let state = candidate.state.as_deref().unwrap_or("unknown");
    if !matches!(state, "running" | "streaming" | "in archive recovery") {
        let name = &candidate.name;
        return Err(DriverError::Asked(format!(
            "Patroni's member {name} is {state}, so it would not be promoted"
        )));
    }
    let leader = cluster.members.iter().find(|one| one.leads());
    Ok(Known {
        leader: leader.map(|one| one.name.clone()),
        candidate: candidate.name.clone(),
        url,
    })
}

/// Asks Patroni to make the candidate the leader.
///
/// # Errors
/// It refused, or was not heard of in time; what it does then is seen at the server.
pub(super) async fn promote(
    urls: &[String],
    member: Option<&str>,
    endpoint: &Endpoint,
    until: Instant,
) -> Result<(), DriverError> {
    let known = known(urls, member, endpoint).await?;
    let (path, body) = match &known.leader {
        Some(leader) if *leader == known.candidate => return Ok(()),
        Some(leader) => {
            let body = json!({"leader": leader, "candidate": known.candidate});
            ("switchover", body)
        }
        None => ("failover", json!({"candidate": known.candidate})),
    };
    let url = format!("{}/{path}", known.url);
    let left = until.saturating_duration_since(Instant::now());
    match request(Method::Post, &url, body.to_string(), left).await {
        Ok(_) => Ok(()),
        // It may still do it: the look at the server decides. Behind the death of a leader Patroni
        // answers 503 "status unknown" and promotes when that leader's key has run out.
        Err(OutsideError::Late { .. }) => Ok(()),
        Err(error @ OutsideError::Status { status: 500.., .. }) => {
            tracing::warn!(%error, "Patroni is undecided");
            Ok(())
        }
        Err(error) => Err(DriverError::Asked(format!(
            "Patroni did not promote: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = r#"{"members": [
        {"name": "n1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
         "host": "10.0.0.1", "port": 5432, "timeline": 3},
        {"name": "n2", "role": "replica", "state": "streaming", "host": "10.0.0.2", "port": 5432,
         "timeline": 3, "lag": 0},
        {"name": "n3", "role": "replica", "state": "stopped", "host": "10.0.0.3", "port": 5432}],
        "scope": "demo"}"#;

    fn of(member: Option<&str>, host: &str) -> Result<Known, String> {
        let endpoint = Endpoint::new(host, 5432);
        read("http://x".into(), CLUSTER, member, &endpoint).map_err(|e| e.to_string())
    }

    #[test]
    fn a_member_is_found_by_its_address_or_by_its_name() {
        let known = of(None, "10.0.0.2").unwrap();
        assert_eq!(
            (known.candidate.as_str(), known.leader.as_deref()),
            ("n2", Some("n1"))
        );
        assert_eq!(of(Some("n2"), "elsewhere").unwrap().candidate, "n2");
    }

    #[test]
    fn a_member_that_is_not_there_or_does_not_run_is_told() {
        let error = of(None, "10.9.9.9").unwrap_err();
        assert!(error.contains("10.9.9.9:5432, but n1, n2, n3"), "{error}");
        let error = of(Some("n3"), "x").unwrap_err();
        assert!(error.contains("n3 is stopped"), "{error}");
    }
}
